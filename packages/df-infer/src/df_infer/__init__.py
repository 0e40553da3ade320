"""The autoregressive DualForce runtime: generate, stream, decode, write video with sound."""

__version__ = "0.1.0"
