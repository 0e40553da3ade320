"""A list of clips to make: CSV with a header, or JSONL, of ``image``, ``audio``, ``out`` and, if wished, ``seed``.

``image`` and ``audio`` are paths, relative ones from the list's own folder. ``out`` is the name of an MP4 below the
output directory: what a list says is never written anywhere else.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from df_models.errors import UserError
from df_models.files import require_file, safe_join
from df_models.settings import FrozenModel, validate_config

LARGEST = 64 << 20
"""Bytes of a list: some hundred thousand lines."""


class Item(FrozenModel):
    """One line of a list.

    Attributes:
        image: the portrait; empty for a model without video.
        audio: the speech.
        out: the MP4 to write, below the output directory.
        seed: keys all noise.
    """

    image: str = ""
    audio: str = Field(min_length=1)
    out: str
    seed: int = Field(default=0, ge=0)

    @field_validator("out")
    @classmethod
    def _names_an_mp4(cls, name: str) -> str:
        if not name.lower().endswith(".mp4"):
            raise ValueError("must end in .mp4")
        return name


def read_manifest(path: Path, out: Path) -> list[Item]:
    """Read a list.

    Raises:
        UserError: it is not there or none, a line is wrong, names no place below ``out``, or one that an earlier line
            has.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UserError(f"--manifest {path}: give a .csv with a header or a .jsonl, of image, audio, out")
    require_file(path)
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} has {path.stat().st_size >> 20} MiB, at most {LARGEST >> 20} are read; divide it")
    items, places = [], {}
    for line, told in _lines(path):
        where = f"{path}, line {line}"
        item = validate_config(Item, told, where)
        try:
            place = safe_join(out, item.out)
        except UserError as error:
            raise UserError(f"{where}: out: {error}") from error
        if place in places:
            raise UserError(f"{where}: out={item.out} is also that of line {places[place]}; give each clip its own")
        places[place] = line
        here = {name: _beside(path, getattr(item, name)) for name in ("image", "audio")}
        items.append(item.model_copy(update=here))
    if not items:
        raise UserError(f"{path} lists no clip")
    return items


def _beside(manifest: Path, name: str) -> str:
    return str(manifest.parent / name) if name else ""


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the lines' numbers and what they say."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason}); save it as such") from error
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(io.StringIO(text), restkey="more than the header has")
        try:
            return [(rows.line_num, {key: value for key, value in row.items() if value}) for row in rows]
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num + 1} is no CSV ({error}); is a quote left open?") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is no JSON ({error})") from error
        if not isinstance(told, dict):
            raise UserError(f"{path}, line {number} is no JSON object of image, audio, out")
        found.append((number, told))
    return found
