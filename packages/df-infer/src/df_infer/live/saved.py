"""A session that is laid down and taken up again, in this process or another: tensors and plain facts in one file.

A safetensors file; the facts are JSON in its metadata. Nothing in it is unpickled, and nothing is taken as it stands: a
session that goes on from it compares names, shapes and lengths with its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from df_infer.config import RolloutConfig
from df_models import DualForce
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import FrozenModel, validate_config

VERSION = 2
SAMPLED = 4096
"""Values of each parameter that its fingerprint looks at: models that differ anywhere in training differ in these."""


class Settings(FrozenModel):
    """What a session was opened with, beside its portrait and motion (:class:`df_infer.Session`)."""

    rate: int
    seed: int
    rollout: RolloutConfig
    gain_db: float = Field(allow_inf_nan=False)
    keep: int = Field(ge=0)


class MakingFacts(FrozenModel):
    """How many latent frames are made."""

    latent: int = Field(ge=0)


class SoundFacts(FrozenModel):
    """Of :class:`df_infer.live.sound.SoundState`."""

    first: int = Field(ge=0)
    resampled_from: int = Field(ge=0)
    ended: bool


class Facts(FrozenModel):
    """All that a state tells beside its tensors.

    Attributes:
        model: as of :func:`fingerprint`.
        fields: that are given of the motion.
        prompt: what the model was told.
    """

    model: str
    settings: Settings
    fields: list[str]
    making: MakingFacts
    sound: SoundFacts
    prompt: str | None


class SessionState(NamedTuple):
    """All that a session is at a moment."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write_state(path: str | Path, state: SessionState) -> None:
    """Write a state to a ``.safetensors`` file."""
    tensors = {name: x.cpu().contiguous() for name, x in state.tensors.items()}
    atomic_write(Path(path), save(tensors, metadata={"session": json.dumps({"version": VERSION, **state.facts})}))


def read_state(path: str | Path) -> SessionState:
    """Read a state.

    Raises:
        UserError: it is not there, damaged, no session, or one of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such saved session: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("session")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(told) if told is not None else None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error})") from error
    if not isinstance(facts, dict) or facts.pop("version", None) != VERSION:
        raise UserError(f"{path} holds no session that this version can take up")
    return SessionState(tensors, facts)


def checked_facts(facts: Mapping[str, Any]) -> Facts:
    """Return the facts of a state, as far as they can be checked alone.

    Raises:
        UserError: something is missing, unknown or of another kind.
    """
    return validate_config(Facts, facts, "the saved session")


def check_tensors(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or kinds than wanted, or that hold no numbers.

    Args:
        wanted: tensors of which only shapes and dtypes are looked at.

    Raises:
        UserError: naming the first.
    """
    if odd := sorted(held.keys() ^ wanted.keys()):
        name = odd[0]
        what = f"lacks {name!r}" if name in wanted else f"holds {name!r}, which such a session does not"
        raise UserError(f"the saved session is damaged: it {what}")
    for name, x in held.items():
        like = wanted[name]
        if x.dtype != like.dtype or x.shape != like.shape:
            told = [f"{str(each.dtype).removeprefix('torch.')} {list(each.shape)}" for each in (like, x)]
            raise UserError(f"the saved session is damaged: {name!r} must be {told[0]}, not {told[1]}")
        if not torch.isfinite(x).all():
            raise UserError(f"the saved session is damaged: {name!r} holds values that are no numbers")


@torch.no_grad()
def fingerprint(model: DualForce) -> str:
    """Return what tells a model from another: a hash over its configuration and the first values of each parameter."""
    told = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, parameter in sorted(model.state_dict().items()):
        told.update(name.encode())
        values = parameter if type(parameter) is Tensor else parameter.dequantize()  # of float8
        told.update(values.flatten()[:SAMPLED].float().cpu().numpy().tobytes())
    return told.hexdigest()
