"""A session that is laid down and taken up again, in this process or another: tensors and plain facts in one file.

A safetensors file; the facts are JSON in its metadata. Nothing in it is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from df_models import DualForce
from df_models.errors import UserError
from df_models.files import atomic_write

VERSION = 2
SAMPLED = 4096
"""Values of each parameter that its fingerprint looks at: models that differ anywhere in training differ in these."""


class SessionState(NamedTuple):
    """All that a session is at a moment."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write_state(path: Path, state: SessionState) -> None:
    """Write a state to a ``.safetensors`` file."""
    tensors = {name: x.cpu().contiguous() for name, x in state.tensors.items()}
    atomic_write(path, save(tensors, metadata={"session": json.dumps({"version": VERSION, **state.facts})}))


def read_state(path: Path) -> SessionState:
    """Read a state.

    Raises:
        UserError: it is not there, damaged, no session, or one of another version.
    """
    if not path.is_file():
        raise UserError(f"no such saved session: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("session")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(told) if told is not None else None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error})") from error
    if not isinstance(facts, dict) or facts.pop("version", None) != VERSION:
        raise UserError(f"{path} holds no session that this version can take up")
    return SessionState(tensors, facts)


@torch.no_grad()
def fingerprint(model: DualForce) -> str:
    """Return what tells a model from another: a hash over its configuration and the first values of each parameter."""
    told = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, parameter in sorted(model.state_dict().items()):
        told.update(name.encode())
        values = parameter if type(parameter) is Tensor else parameter.dequantize()  # of float8
        told.update(values.flatten()[:SAMPLED].float().cpu().numpy().tobytes())
    return told.hexdigest()
