"""A dataset's directory: its splits and what lies beside them."""

from __future__ import annotations

from pathlib import Path

from df_data.format.manifest import MANIFEST_NAME
from df_models.errors import UserError

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
