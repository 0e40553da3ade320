"""Random choices that depend on names alone: equal on every machine, in every process, in any order."""

from __future__ import annotations

import hashlib


def hash_int(*values: object) -> int:
    """Return a 63-bit integer that depends on the values alone."""
    digest = hashlib.sha256("\x1f".join(map(str, values)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def hash_unit(*values: object) -> float:
    """Return a number in [0, 1) that depends on the values alone."""
    return hash_int(*values) / 2**63
