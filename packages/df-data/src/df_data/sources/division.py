"""What a build found out about its inputs when it began, kept beside the shards: who is held out, what is a copy.

A start that goes on with a build takes it from there. So a file's side does not change when a file has been mended
since, cannot be read at that moment, or a later program chooses otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from df_data.sources.config import SplitConfig
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import FrozenModel

DIVISION_NAME = "split.json"


class Division(FrozenModel):
    """The inputs of a build, divided.

    Attributes:
        of: what was divided (:func:`fingerprint_of`).
        val: names of the inputs that are held out.
        copies: names of inputs that are an earlier one's copy, and that one's.
    """

    of: str
    val: tuple[str, ...] = ()
    copies: dict[str, str] = Field(default_factory=dict)


def fingerprint_of(inputs: Iterable[tuple[str, str]], split: SplitConfig, least_s: float) -> str:
    """Return a hash of what is divided: names and persons of the inputs, and by which settings."""
    told = json.dumps([sorted(inputs), split.model_dump(mode="json"), least_s], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8")).hexdigest()


def read_division(directory: Path, of: str, names: Container[str]) -> Division | None:
    """Return what a dataset's directory keeps of the same inputs and settings, or None.

    Args:
        of: what is divided (:func:`fingerprint_of`); ``names``: of its inputs.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / DIVISION_NAME
    damaged = f"{path} is damaged; delete it, and the split is made anew by the same rule"
    try:
        found = Division.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, IsADirectoryError) as error:
        raise UserError(damaged) from error
    if found.of != of:
        return None
    if not all(name in names for name in (*found.val, *found.copies, *found.copies.values())):
        raise UserError(damaged)
    return found


def write_division(directory: Path, division: Division) -> None:
    """Keep a division in a dataset's directory."""
    text = json.dumps(division.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False)
    atomic_write(directory / DIVISION_NAME, text + "\n")
