"""What every reader of lists does: gather clips, and count and keep what cannot be used instead of stopping at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from df_data.sources.catalogue.clip import BadEntry, Catalogue, CatalogueClip
from df_models.errors import UserError

LARGEST_LIST = 4 * 1024**3


class Collector:
    """Gathers the clips and the unusable entries of one dataset."""

    def __init__(self, dataset: str, licence: str) -> None:
        self.dataset = dataset
        self.licence = licence
        self.clips: dict[str, CatalogueClip] = {}
        self.bad: list[BadEntry] = []

    def refuse(self, file: str, place: str, problem: str) -> None:
        """Note an entry that cannot be used."""
        self.bad.append(BadEntry(file, place, problem))

    def add(self, file: str, place: str, make: Callable[[], dict[str, Any]]) -> None:
        """Add the clip that ``make`` gives the fields of; what is wrong with it is noted, not raised."""
        try:
            clip = CatalogueClip(dataset=self.dataset, licence=self.licence, **make())
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            self.refuse(file, place, _problem(error))
            return
        if clip.clip in self.clips:
            self.refuse(file, place, f"the clip {clip.clip} is a duplicate")
            return
        self.clips[clip.clip] = clip

    def catalogue(self) -> Catalogue:
        """Return what was gathered."""
        return Catalogue(self.dataset, self.licence, tuple(self.clips.values()), tuple(self.bad))


def read_text(path: Path) -> str:
    """Return a list's text; a byte order mark is dropped and bytes that are no UTF-8 are replaced.

    Raises:
        UserError: no such file, or one larger than 4 GiB.
    """
    if not path.is_file():
        raise UserError(f"no list {path}; give the folder or file of the dataset's own lists with --lists")
    if path.stat().st_size > LARGEST_LIST:
        raise UserError(f"{path} is larger than 4 GiB: that is no list of clips")
    return path.read_text(encoding="utf-8-sig", errors="replace")


def read_json(path: Path) -> Any:
    """Return a JSON document.

    Raises:
        UserError: no such file, or no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); download the dataset's metadata again") from error


def _problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return " ".join(str(error).split())[:200] or type(error).__name__
