"""Raw or synthetic video to WebDataset shards to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from df_data.reading import Batch, ReaderOptions, ShardReader

__version__ = "0.1.0"
__all__ = ["Batch", "ReaderOptions", "ShardReader", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the reader when it is asked for, so that commands that need no torch start fast."""
    if name in ("Batch", "ReaderOptions", "ShardReader"):
        from df_data import reading

        return getattr(reading, name)
    raise AttributeError(f"module 'df_data' has no attribute {name!r}")
