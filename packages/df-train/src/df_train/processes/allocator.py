"""What the C library does with memory that a step has freed."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h; others have no `mallopt`."""
_NEVER = -1
"""Memory at the heap's end is not given back (mallopt(3))."""
_MAPPED = (2**30, 2**25)
"""Bytes from which a block is mapped of its own: more than a step's tensors; the most that glibc before 2.35 takes."""
_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next step, which asks for the same again; True: it took the settings.

    By default it gives blocks of more than 32 MiB back to the system at once, and the system hands them out anew page
    by page, zeroed: gradients and FSDP2's buffers in every step (benchmarks/training_step.py). It holds for the whole
    process, from now on; what other work than steps leaves behind is given back by :func:`give_back_memory`. Nothing
    is done where the user has set malloc by its variables.
    """
    if _set_by_user():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not any(mallopt(_M_MMAP_THRESHOLD, size) for size in _MAPPED):
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back_memory() -> None:
    """Give the system what is free now, where :func:`keep_freed_memory` would keep it: after samples and validation,
    which ask for other shapes than a step, so that they leave no holes behind."""
    trim = None if _set_by_user() else getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_by_user() -> bool:
    return any(name in os.environ for name in _USERS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
