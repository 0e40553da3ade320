"""Datasets of local files: GRID, VoxCeleb2 and any folder of videos. Nothing is fetched for them.

Sources of the layouts: GRID (Cooke et al. 2006): ``s<number>/.../<sentence>.mpg``, one folder per speaker. VoxCeleb2
(its download page): ``[dev/]mp4/<id of the person>/<YouTube id>/<number>.mp4``, one folder per person.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from df_data.sources.catalogue.clip import Catalogue
from df_data.sources.catalogue.collector import Collector
from df_models.errors import UserError

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".mpg", ".mpeg", ".m4v")
LocalName = Literal["grid", "voxceleb2", "folder"]
_GRID_SPEAKER = re.compile(r"s\d{1,2}")
_VOXCELEB_PERSON = re.compile(r"id\d+")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Layout:
    """How a dataset lies in folders; `df-data plan`, `fetch` and `build` all read it by this.

    Attributes:
        licence: that it is published under; None: the user must say.
        suffixes: of its videos.
        fields: from the folder and a file in it: ``person`` where it says who is seen, ``clip`` where the file's
            own path is no good name, ``provenance``. A ValueError says why the file is none of the dataset's.
    """

    licence: str | None
    suffixes: tuple[str, ...]
    fields: Callable[[Path, Path], dict[str, Any]]


def _of_grid(folder: Path, file: Path) -> dict[str, Any]:
    """A file outside a speaker's folder has no person."""
    inside = file.relative_to(folder).parts[:-1]
    speaker = next((part for part in (*inside, folder.name) if _GRID_SPEAKER.fullmatch(part)), None)
    return {"person": speaker, "provenance": {"sentence": file.stem}}


def _of_voxceleb2(folder: Path, file: Path) -> dict[str, Any]:
    """A file that does not lie in ``person/video/`` is a bad entry."""
    inside = file.relative_to(folder).parts[:-1]
    if len(inside) < 2 or not _VOXCELEB_PERSON.fullmatch(inside[-2]):
        raise ValueError("not <person id>/<video id>/<number>.mp4")
    return {
        "clip": f"{inside[-2]}_{inside[-1]}_{file.stem}",
        "person": inside[-2],
        "provenance": {"youtube": inside[-1]},
    }


LAYOUTS: dict[LocalName, Layout] = {
    "grid": Layout("CC-BY-4.0 (as GRID is published)", (".mpg", ".mp4"), _of_grid),
    "voxceleb2": Layout("CC-BY-4.0 (VoxCeleb2; each video stays under its owner's terms)", (".mp4",), _of_voxceleb2),
    "folder": Layout(None, SUFFIXES, lambda folder, file: {}),
}


def read_layout(name: LocalName, folder: Path) -> Catalogue:
    """Read a dataset's folders.

    Raises:
        UserError: no such folder, or no video in it.
    """
    layout = LAYOUTS[name]
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give the one that holds the videos with --lists")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in layout.suffixes and path.is_file())
    if not files:
        raise UserError(f"{folder} holds no video ({', '.join(layout.suffixes)})")
    collector = Collector(name, layout.licence or "unknown: name it in the build's config")
    for file in files:
        relative = file.relative_to(folder)
        plain = _NOT_PLAIN.sub("_", relative.with_suffix("").as_posix())[:120]
        collector.add(
            relative.as_posix(),
            "file",
            lambda file=file, plain=plain: {"clip": plain, "path": file} | layout.fields(folder, file),
        )
    return collector.catalogue()
