"""What the reader is made of: order, where shards come from, and a sample's way from a tar's bytes to tensors."""
