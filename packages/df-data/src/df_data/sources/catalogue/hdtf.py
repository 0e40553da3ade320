"""HDTF's lists: talking heads of YouTube videos in three parts, RD, WDA and WRA.

Source of the format: the README of MRzzm/HDTF and the lists themselves (``PART`` is RD, WDA or WRA; the folder may also
hold them under ``HDTF_PART_*.txt``). Fields are separated by spaces:

- ``PART_video_url.txt``: video name, address
- ``PART_annotion_time.txt``: video name ``.mp4``, then one ``MM:SS-MM:SS`` per clip
- ``PART_resolution.txt``: video name ``.mp4``, height in pixels of the video that the crops were measured in
- ``PART_crop_wh.txt``: video name ``_`` clip index ``.mp4``, left, width, top, height (not width, height, left, top)

A clip without a crop was left out by its authors (moving hands, a changing background), so it is left out here.
In WDA and WRA a video is named after the speaker, with a number where there are several; RD numbers its videos and
does not name who is heard.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from df_data.sources.catalogue.clip import Catalogue
from df_data.sources.catalogue.collector import Collector, read_text
from df_models.errors import UserError

NAME = "hdtf"
LICENCE = "CC-BY-4.0 (the lists; each video stays under its owner's terms)"
PARTS = ("RD", "WDA", "WRA")
_SPAN = re.compile(r"((?:\d+:)?\d+:\d+)-((?:\d+:)?\d+:\d+)")

Rows = dict[str, tuple[str, str, list[str]]]
"""Key -> (file, place, the other fields)."""


def read(folder: Path) -> Catalogue:
    """Read the lists of the parts that lie in a folder.

    Raises:
        UserError: the folder holds none of the three, or a part whose other lists are missing.
    """
    found = [part for part in PARTS if _list(folder, part, "video_url").is_file()]
    if not found:
        raise UserError(
            f"{folder} holds no HDTF list (RD_video_url.txt or HDTF_RD_video_url.txt, or WDA, WRA); clone it first: "
            "git clone https://github.com/MRzzm/HDTF data/HDTF (docs/datasets.md)"
        )
    collector = Collector(NAME, LICENCE)
    for part in found:
        _read_part(folder, part, collector)
    return collector.catalogue()


def seconds(text: str) -> float:
    """Return ``MM:SS`` or ``HH:MM:SS`` in seconds.

    Raises:
        ValueError: minutes or seconds of 60 and more after the first number, or no time.
    """
    numbers = [int(number) for number in text.split(":")]
    if not 2 <= len(numbers) <= 3 or min(numbers) < 0 or max(numbers[1:]) >= 60:
        raise ValueError(f"{text!r} is no time (MM:SS)")
    total = 0
    for number in numbers:
        total = 60 * total + number
    return float(total)


def _list(folder: Path, part: str, kind: str) -> Path:
    prefixed = folder / f"HDTF_{part}_{kind}.txt"
    return prefixed if prefixed.is_file() else folder / f"{part}_{kind}.txt"


def _read_part(folder: Path, part: str, collector: Collector) -> None:
    urls = _rows(_list(folder, part, "video_url"), collector, fields=1)
    times = _rows(_list(folder, part, "annotion_time"), collector)
    crops = _rows(_list(folder, part, "crop_wh"), collector, fields=4)
    heights = _rows(_list(folder, part, "resolution"), collector, fields=1)
    used: set[str] = set()
    for name, (file, place, (url,)) in urls.items():
        if name not in times:
            collector.refuse(file, place, f"{name} has no time stamps")
            continue
        time_file, time_place, spans = times[name]
        for index, span in enumerate(spans):
            clip = f"{name}_{index}"
            used.add(clip)
            if clip not in crops:
                collector.refuse(time_file, time_place, f"clip {index} of {name} has no crop")
                continue
            crop_file, crop_place, crop = crops[clip]
            fields = _Fields(part, name, clip, url, span, crop, heights.get(name, ("", "", ["0"]))[2][0])
            collector.add(crop_file, crop_place, fields.clip)
    for clip, (file, place, _) in crops.items():
        if clip not in used:
            collector.refuse(file, place, f"{clip} has a crop but no time stamps")


class _Fields:
    """The fields of one clip, put together from four lists."""

    def __init__(self, part: str, name: str, clip: str, url: str, span: str, crop: list[str], height: str) -> None:
        self.part, self.name, self.id, self.url, self.span = part, name, clip, url, span
        self.crop, self.height = crop, height

    def clip(self) -> dict[str, Any]:
        """Return them as those of a CatalogueClip."""
        match = _SPAN.fullmatch(self.span)
        if match is None:
            raise ValueError(f"{self.span!r} is no span of time (MM:SS-MM:SS)")
        left, width, top, height = (int(number) for number in self.crop)
        if int(self.height) <= 0:
            raise ValueError(f"{self.name} has no usable resolution ({self.height}), so its crop has no scale")
        return {
            "clip": f"{self.part}_{self.id}",
            "url": self.url,
            "start_s": seconds(match[1]),
            "end_s": seconds(match[2]),
            "crop": {
                "left": left,
                "top": top,
                "right": left + width,
                "bottom": top + height,
                "reference_height": int(self.height),
            },
            "person": None if self.part == "RD" else self.name.rstrip("0123456789"),
            "provenance": {"part": self.part, "name": self.id},
        }


def _rows(path: Path, collector: Collector, fields: int | None = None) -> Rows:
    """The lines of a list by their first field, its ``.mp4`` dropped; lines of another number of fields are noted."""
    rows: Rows = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        key, place = words[0].removesuffix(".mp4"), f"line {number}"
        if len(words) < 2 or (fields is not None and len(words) != 1 + fields):
            wanted = "one or more" if fields is None else str(fields)
            collector.refuse(path.name, place, f"{len(words) - 1} fields after the name, {wanted} wanted")
        elif key in rows:
            collector.refuse(path.name, place, f"{key} is a duplicate")
        else:
            rows[key] = (path.name, place, words[1:])
    return rows
