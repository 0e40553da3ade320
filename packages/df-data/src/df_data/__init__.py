"""Raw or synthetic video to WebDataset shards to batches."""

__version__ = "0.1.0"
