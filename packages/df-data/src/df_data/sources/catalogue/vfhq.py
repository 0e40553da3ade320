"""VFHQ's metadata: one text file per clip.

Source of the format: the dataset's own ``extract_cropped_face`` script, as it stands in public copies
(yunyu/vfhq-downloader, NeuralVFX/VFHQ-downloader-win). The name says which frames of which video,
``Clip+YOUTUBE_ID+P<person>+C<clip>+F<first>-<last>.txt``, and lines that begin with these words say the rest, in their
last fields: ``H`` and ``W`` (size of the image that the crop is measured in), ``FPS`` and ``CROP`` (left, top, right,
bottom). The frames used are first + 1 to last - 1, counted from 0; persons are numbered within a video.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from df_data.sources.catalogue.clip import Catalogue, youtube_url
from df_data.sources.catalogue.collector import Collector, read_text
from df_models.errors import UserError

NAME = "vfhq"
LICENCE = "VFHQ terms: non-commercial research only"
WORDS = ("H", "W", "FPS", "CROP")
_FILE = re.compile(r"[^+]+\+(?P<video>[^+]+)\+P(?P<person>\d+)\+C(?P<clip>\d+)\+F(?P<first>\d+)-(?P<last>\d+)")


def read(folder: Path) -> Catalogue:
    """Read all clips' files in a folder and the folders in it.

    Raises:
        UserError: no such folder, or none of its files is one of a clip.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; unpack VFHQ's meta information there")
    collector = Collector(NAME, LICENCE)
    for file in sorted(folder.rglob("*.txt")):
        if "+" in file.name:
            collector.add(file.name, "file", lambda file=file: _fields(file))
    if not collector.clips and not collector.bad:
        raise UserError(f"{folder} holds no file of a VFHQ clip (Clip+ID+P0+C0+F1-9.txt)")
    return collector.catalogue()


def _fields(file: Path) -> dict[str, Any]:
    named = _FILE.fullmatch(file.stem)
    if named is None:
        raise ValueError("the name is not Clip+ID+P<person>+C<clip>+F<first>-<last>")
    lines = _lines(read_text(file))
    fps = float(lines["FPS"][-1])
    left, top, right, bottom = (int(number) for number in lines["CROP"][-4:])
    video, first, last = named["video"], int(named["first"]) + 1, int(named["last"]) - 1
    person = f"{video}_P{named['person']}"
    return {
        "clip": f"{person}_C{named['clip']}_F{named['first']}-{named['last']}",
        "url": youtube_url(video),
        "start_s": first / fps,
        "end_s": (last + 1) / fps,
        "crop": {
            "left": left,
            "top": top,
            "right": right,
            "bottom": bottom,
            "reference_width": int(lines["W"][-1]),
            "reference_height": int(lines["H"][-1]),
        },
        "person": person,
        "provenance": {"name": file.stem, "first_frame": first, "last_frame": last, "listed_fps": fps},
    }


def _lines(text: str) -> dict[str, list[str]]:
    """The fields of the first line that begins with each word of ``WORDS``."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        key = next((word for word in WORDS if line.startswith(word)), None)
        if key and len(words) > 1:
            found.setdefault(key, words[1:])
    return found
