"""What a dataset is on disk: samples, shards, manifest, ledger, statistics."""
