"""What the C library does with memory that a step has freed."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h; others have no `mallopt`, or ignore it."""
_LARGEST = 2**31 - 1
"""Largest `int`: memory at the heap's end is never given back."""
_MAPPED = 2**30
"""Bytes from which a block is mapped of its own: no tensor of a step on a CPU is as large."""
_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next step, which asks for the same again; True: it will, from now on.

    By default it gives blocks of more than 32 MiB back to the system at once, and the system hands them out anew page
    by page, zeroed: gradients and FSDP2's buffers in every step (benchmarks/training_step.py). The peak of memory is
    what it was; between the steps the process keeps it. Nothing is done where the user has set malloc by its variables.
    """
    if any(variable in os.environ for variable in _USERS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST) and mallopt(_M_MMAP_THRESHOLD, _MAPPED))
