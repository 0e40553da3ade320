"""A session that is laid down and taken up again, in this process or another: tensors and plain facts in one file.

A safetensors file; the facts are JSON in its metadata, with a hash over all, which tells damage. Nothing in it is
unpickled. Whoever writes such a file can have a session say anything; names, shapes and lengths are compared with those
of a session, so that what is taken up goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from df_infer.config import RolloutConfig
from df_models import DualForce
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import FrozenModel
from df_models.settings.problems import problems

VERSION = 3
MOST_WINDOW = 100_000
"""Latent frames, four hours: what a file asks for is allocated before it can be compared with what it holds."""
SAMPLED = 4096
"""Values of each parameter that its fingerprint looks at: models that differ anywhere in training differ in these."""


class Settings(FrozenModel):
    """What a session was opened with, beside its portrait and motion (:class:`df_infer.Session`)."""

    rate: int
    seed: int
    rollout: RolloutConfig
    gain_db: float = Field(ge=-200, le=200)
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
    told = {"version": VERSION, "sha256": _digest(tensors, state.facts), **state.facts}
    atomic_write(Path(path), save(tensors, metadata={"session": json.dumps(told)}))


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
    if facts.pop("sha256", None) != _digest(tensors, facts):
        raise UserError(f"{path} is damaged: it is not what was written")
    return SessionState(tensors, facts)


def settings_of(**given: Any) -> Settings:
    """Return the settings of a session.

    Raises:
        UserError: one of them is of another kind, or out of bounds.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise UserError("; ".join(line for _, line in problems(Settings, error))) from error


def checked_facts(facts: object) -> Facts:
    """Return the facts of a state, as far as they can be checked alone.

    Raises:
        UserError: something is missing, unknown, of another kind or out of bounds.
    """
    try:
        checked = Facts.model_validate(facts)
    except ValidationError as error:
        told = "; ".join(line for _, line in problems(Facts, error))
        raise UserError(f"the saved session is damaged: {told}") from error
    if checked.settings.rollout.window + checked.settings.rollout.sinks > MOST_WINDOW:
        raise UserError(f"the saved session is damaged: its window is more than {MOST_WINDOW} latent frames")
    return checked


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Return a hash over all that a file holds."""
    told = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, x in sorted(tensors.items()):
        told.update(json.dumps([name, str(x.dtype), list(x.shape)]).encode())
        if x.numel():
            told.update(x.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


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
