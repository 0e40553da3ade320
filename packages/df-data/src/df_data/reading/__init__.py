"""Shards to batches: which samples come when, how their bytes are read, and what a batch is."""

from df_data.reading.batch import Batch
from df_data.reading.options import ReaderOptions
from df_data.reading.reader import ShardReader

__all__ = ["Batch", "ReaderOptions", "ShardReader"]
