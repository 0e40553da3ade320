"""The dual model: two towers, the bridge, conditioning, the KV cache, and its saved form."""
