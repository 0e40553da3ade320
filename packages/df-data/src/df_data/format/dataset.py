"""A dataset's directory: its splits and what lies beside them."""

from __future__ import annotations

from pathlib import Path

from df_data.build.config import BuildConfig
from df_data.format.manifest import MANIFEST_NAME
from df_models.errors import UserError
from df_models.settings import load_config

CONFIG_NAME = "config.yaml"


def split_directories(directory: Path) -> list[Path]:
    """Return the directories of a dataset's splits by name, or the directory itself if it is one split.

    Raises:
        UserError: there is no manifest in it or in a folder of it.
    """
    if (directory / MANIFEST_NAME).is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise UserError(f"{directory} is no dataset: there is no {MANIFEST_NAME} in it or in a folder of it")
    return found


def refuse_other_part(directory: Path, part: str) -> None:
    """Do nothing if a build of ``part`` may write to a directory.

    Raises:
        UserError: it holds another part of the dataset, or the whole of it.
    """
    file = directory / CONFIG_NAME
    held = load_config(BuildConfig, file).part if file.is_file() else part
    if held != part:
        raise UserError(
            f"{directory} was made with part={held}, not part={part}; give each part a directory of its own (out=...)"
        )
