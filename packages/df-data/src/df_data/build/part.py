"""Which part of a dataset a directory holds (``part: 2/4`` of a build on many machines)."""

from __future__ import annotations

from pathlib import Path

from df_data.build.config import BuildConfig
from df_data.format.dataset import CONFIG_NAME
from df_models.errors import UserError
from df_models.settings import load_config


def refuse_other_part(directory: Path, part: str) -> None:
    """Do nothing if a build of ``part`` may write to a directory.

    Raises:
        UserError: it holds another part of the dataset, or the whole of it.
    """
    file = directory / CONFIG_NAME
    held = load_config(BuildConfig, file, recorded=True).part if file.is_file() else part
    if held != part:
        raise UserError(
            f"{directory} was made with part={held}, not part={part}; give each part a directory of its own (out=...)"
        )
