"""Raw or synthetic video to WebDataset shards to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from df_data.reading.batch import Batch
    from df_data.reading.reader import ShardReader

__version__ = "0.1.0"
__all__ = ["Batch", "ShardReader", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the reader when it is asked for, so that commands that need no torch start fast."""
    if name in ("Batch", "ShardReader"):
        from df_data.reading import reader

        return getattr(reader, name)
    raise AttributeError(f"module 'df_data' has no attribute {name!r}")
