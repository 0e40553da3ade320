"""The plain case of a build: a folder of videos, shards out, nothing else asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from df_data.sources.names import plain
from df_models.errors import UserError

PLAIN: dict[str, Any] = {
    "split": {"by": "identity", "val": None},
    "clips": {"frames": 33, "stride": 32, "val_frames": 129},
}
"""Settings beside the source; ``configs/data/folder.yaml`` says the same, with reasons."""
LONGEST_NAME = 40
"""Letters of the folder's name that go into every sample's key."""


def plain_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that build a folder of videos, each a person of its own, `out` left open.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a file; give the folder that it lies in" if folder.exists() else f"no folder {folder}"
        )
    name = plain(folder.resolve().name)[:LONGEST_NAME].strip("_-")
    source = {"name": name or "videos", "folder": str(folder), "identity": "file", "licence": "unknown"}
    return {"sources": [source], **PLAIN}
