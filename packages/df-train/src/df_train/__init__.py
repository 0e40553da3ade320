"""Training DualForce: objectives, engine, sharding, checkpoints, exact resume."""

__version__ = "0.1.0"
