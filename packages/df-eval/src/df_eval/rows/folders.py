"""Opening the folders of other systems' videos: what is wrong with any of them is told before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from df_data.sources.catalogue.layouts import SUFFIXES
from df_eval.clips import EvalClip
from df_eval.config import BaselineConfig
from df_eval.rows.baseline import FolderSystem
from df_models.errors import UserError


def check_folders(baselines: Mapping[str, Path]) -> None:
    """Refuse folders that are not there or hold no video, before a model is loaded.

    Raises:
        UserError: naming all of them.
    """
    bad = []
    for row, directory in baselines.items():
        if not directory.is_dir():
            bad.append(f"--baseline {row}={directory}: there is no such folder of videos")
        elif not _by_name(directory):
            bad.append(f"--baseline {row}={directory}: it holds no video ({', '.join(sorted(SUFFIXES))})")
    if bad:
        raise UserError("; ".join(bad))


def read_folders(
    baselines: Mapping[str, Path], clips: Sequence[EvalClip], frames: Sequence[int], config: BaselineConfig
) -> list[FolderSystem]:
    """Open every folder (:func:`read_folder`).

    Raises:
        UserError: naming all of which no video can be measured, with the reason of the first clip of each.
    """
    found, bad = [], []
    for row, directory in baselines.items():
        try:
            found.append(read_folder(row, directory, clips, frames, config))
        except UserError as error:
            bad.append(str(error))
    if bad:
        raise UserError("; ".join(bad))
    return found


def read_folder(
    row: str, directory: Path, clips: Sequence[EvalClip], frames: Sequence[int], config: BaselineConfig
) -> FolderSystem:
    """Open a folder of a baseline's videos of the clips, and look at them until one can be measured; the others are
    looked at when their turn comes.

    Args:
        frames: lengths that will be measured, rising.

    Raises:
        UserError: there is no such folder, or not one of its videos can be measured.
    """
    if not directory.is_dir():
        raise UserError(f"--baseline {row}={directory}: there is no such folder of videos")
    named = _by_name(directory)
    system = FolderSystem(row, config, frames, named)
    system.others = sorted(path.name for name in named.keys() - {clip.key for clip in clips} for path in named[name])
    for clip in clips:
        frames_THWC = system.look(clip).frames_THWC
        if frames_THWC is not None and len(frames_THWC) >= frames[0]:
            return system
    why = f"{system.told[0].clip}: {system.told[0].text}"
    raise UserError(f"--baseline {row}={directory}: none of the {len(clips)} clips can be measured ({why})")


def _by_name(directory: Path) -> dict[str, list[Path]]:
    """The folder's videos by their names without the ending: a clip's name is looked up here and is never a path."""
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path)
    return found
