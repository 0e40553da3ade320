"""CelebV-HQ's metadata, ``celebvhq_info.json``.

Source of the format: the README ("JSON File Structure") and ``download_and_process.py`` of CelebV-HQ/CelebV-HQ.
``clips`` maps a clip's name to ``ytb_id``, ``duration`` (``start_sec``, ``end_sec`` of the video), ``bbox`` (``top``,
``bottom``, ``left``, ``right``, as shares of the image) and ``attributes``. Who is seen is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from df_data.sources.catalogue.clip import Catalogue, youtube_url
from df_data.sources.catalogue.collector import Collector, read_json
from df_models.errors import UserError

NAME = "celebvhq"
LICENCE = "CelebV-HQ agreement: non-commercial research only"
FILE = "celebvhq_info.json"


def read(path: Path) -> Catalogue:
    """Read the metadata file, or the one in a folder.

    Raises:
        UserError: no such file, no JSON, or JSON without ``clips``.
    """
    file = path / FILE if path.is_dir() else path
    document = read_json(file)
    clips = document.get("clips") if isinstance(document, dict) else None
    if not isinstance(clips, dict):
        raise UserError(f"{file} is not CelebV-HQ's metadata: it holds no mapping `clips`")
    mappings = document.get("meta_info")
    names = mappings.get("appearance_mapping", []) if isinstance(mappings, dict) else []
    collector = Collector(NAME, LICENCE)
    for name, record in clips.items():
        collector.add(file.name, f"clip {name[:60]!r}", lambda name=name, record=record: _fields(name, record, names))
    return collector.catalogue()


def _fields(name: str, record: Mapping[str, Any], appearance: list[str]) -> dict[str, Any]:
    box = record["bbox"]
    return {
        "clip": name,
        "url": youtube_url(str(record["ytb_id"])),
        "start_s": record["duration"]["start_sec"],
        "end_s": record["duration"]["end_sec"],
        "crop": {side: box[side] for side in ("left", "top", "right", "bottom")}
        | {"reference_width": 1, "reference_height": 1},
        "provenance": {"appearance": _appearance(record, appearance), "version": str(record.get("version", ""))},
    }


def _appearance(record: Mapping[str, Any], names: list[str]) -> str:
    """The clip's appearance attributes that are set, in the words of the file."""
    attributes = record.get("attributes")
    flags = attributes.get("appearance", []) if isinstance(attributes, dict) else []
    return ", ".join(str(name) for name, flag in zip(names, flags) if flag)
