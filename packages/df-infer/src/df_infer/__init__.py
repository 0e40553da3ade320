"""The autoregressive DualForce runtime: generate, stream, decode, write video with audio."""

__version__ = "0.1.0"
