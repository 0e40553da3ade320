"""The DualForce model: two towers, flow matching, masks, KV cache, frozen encoders."""

__version__ = "0.1.0"
