"""TalkVid's metadata: a JSON array of clips, or one JSON record a line.

Source of the format: the README ("Data Format") of FreedomIntelligence/TalkVid. A record has ``id``, ``start-time`` and
``end-time`` (seconds of the video), ``height``, ``width``, ``fps`` and ``info`` with ``Video Link``, ``Person ID`` and
``Language``. There is no crop: the whole image is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from df_data.sources.catalogue.clip import Catalogue
from df_data.sources.catalogue.collector import Collector, read_json, read_text
from df_models.errors import UserError

NAME = "talkvid"
LICENCE = "CC-BY-NC-4.0 (the metadata; each video stays under its owner's terms)"


def read(path: Path) -> Catalogue:
    """Read a metadata file, or all ``.json`` and ``.jsonl`` files of a folder.

    Raises:
        UserError: no such file, or one that holds no records.
    """
    files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .json or .jsonl file; download TalkVid's metadata there")
    collector = Collector(NAME, LICENCE)
    for file in files:
        for place, record in _records(file, collector):
            collector.add(file.name, place, lambda record=record: _fields(record))
    return collector.catalogue()


def _records(file: Path, collector: Collector) -> Iterator[tuple[str, Any]]:
    if file.suffix != ".jsonl":
        document = read_json(file)
        if not isinstance(document, list):
            raise UserError(f"{file} is not TalkVid's metadata: a JSON array of clips was expected")
        for number, record in enumerate(document, start=1):
            yield f"record {number}", record
        return
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            collector.refuse(file.name, f"line {number}", f"no JSON ({error})")


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    info = record["info"]
    person = info.get("Person ID")
    return {
        "clip": str(record["id"]),
        "url": str(info["Video Link"]),
        "start_s": record["start-time"],
        "end_s": record["end-time"],
        "person": None if person in (None, "") else f"person_{person}",
        "provenance": {
            "language": str(info.get("Language", "")),
            "listed_height": int(record.get("height") or 0),
            "listed_fps": float(record.get("fps") or 0.0),
        },
    }
