"""Videos to shards: the inputs, the encoders, the worker pool, the writing and the merging of parts."""
