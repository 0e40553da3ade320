"""Random generators that depend on nothing but a purpose and integers."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(purpose: str, *values: int | str) -> int:
    """63-bit integer derived by SHA-256 from a purpose and values: equal on every machine and in every process."""
    text = "\x1f".join([purpose, *(str(v) for v in values)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rng_for(purpose: str, *values: int | str) -> np.random.Generator:
    """Philox generator keyed by SHA-256 of ``(purpose, *values)``; independent purposes give independent streams."""
    text = "\x1f".join(["rng", purpose, *(str(v) for v in values)])
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
