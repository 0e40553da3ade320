"""Datasets of local files: GRID, VoxCeleb2 and any folder of videos. Nothing is fetched for them.

Sources of the layouts: GRID (Cooke et al. 2006): ``s<number>/.../<sentence>.mpg``, one folder per speaker. VoxCeleb2
(its download page): ``[dev/]mp4/<id of the person>/<YouTube id>/<number>.mp4``, one folder per person.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from df_data.sources.catalogue.clip import Catalogue
from df_data.sources.catalogue.collector import Collector
from df_models.errors import UserError

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".mpg", ".mpeg", ".m4v")
GRID_LICENCE = "CC-BY-4.0 (as GRID is published)"
VOXCELEB2_LICENCE = "CC-BY-4.0 (VoxCeleb2; each video stays under its owner's terms)"
FOLDER_LICENCE = "unknown: name it in the build's config"
_GRID_SPEAKER = re.compile(r"s\d{1,2}")
_VOXCELEB_PERSON = re.compile(r"id\d+")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


def read_grid(folder: Path) -> Catalogue:
    """Read GRID's folders; a file outside a speaker's folder has no person.

    Raises:
        UserError: no such folder, or no video in it.
    """

    def fields(file: Path) -> dict[str, Any]:
        inside = file.relative_to(folder).parts[:-1]
        speaker = next((part for part in (*inside, folder.name) if _GRID_SPEAKER.fullmatch(part)), None)
        return {"person": speaker, "provenance": {"sentence": file.stem}}

    return _read(folder, "grid", GRID_LICENCE, (".mpg", ".mp4"), fields)


def read_voxceleb2(folder: Path) -> Catalogue:
    """Read VoxCeleb2's folders; a file that does not lie in ``person/video/`` is a bad entry.

    Raises:
        UserError: no such folder, or no video in it.
    """

    def fields(file: Path) -> dict[str, Any]:
        inside = file.relative_to(folder).parts[:-1]
        if len(inside) < 2 or not _VOXCELEB_PERSON.fullmatch(inside[-2]):
            raise ValueError("not <person id>/<video id>/<number>.mp4")
        return {
            "clip": f"{inside[-2]}_{inside[-1]}_{file.stem}",
            "person": inside[-2],
            "provenance": {"youtube": inside[-1]},
        }

    return _read(folder, "voxceleb2", VOXCELEB2_LICENCE, (".mp4",), fields)


def read_folder(folder: Path) -> Catalogue:
    """Read a plain folder of videos, of which nothing is known but their names.

    Raises:
        UserError: no such folder, or no video in it.
    """
    return _read(folder, "folder", FOLDER_LICENCE, SUFFIXES, lambda file: {})


def _read(
    folder: Path, name: str, licence: str, suffixes: tuple[str, ...], fields: Callable[[Path], dict[str, Any]]
) -> Catalogue:
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; give the one that holds the videos with --lists")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not files:
        raise UserError(f"{folder} holds no video ({', '.join(suffixes)})")
    collector = Collector(name, licence)
    for file in files:
        relative = file.relative_to(folder)
        plain = _NOT_PLAIN.sub("_", relative.with_suffix("").as_posix())[:120]
        collector.add(
            relative.as_posix(), "file", lambda file=file, plain=plain: {"clip": plain, "path": file} | fields(file)
        )
    return collector.catalogue()
