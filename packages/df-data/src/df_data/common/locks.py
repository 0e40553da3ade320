"""Lock files that can be removed again: by ``flock``, which the system frees even when the process is killed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def open_locked(path: Path, *, wait: bool) -> int:
    """Open a lock file, made if need be, and hold it; closing the descriptor lets it go.

    Who holds it may unlink it: those who waited for the old file find that it no longer has its name, and begin again.

    Args:
        wait: until it is free.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
        FileNotFoundError: its directory is not there.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_named(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_named(handle: int, path: Path) -> bool:
    """Whether a path still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
