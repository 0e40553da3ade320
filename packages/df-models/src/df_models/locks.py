"""Places with one writer at a time, held by ``flock``: the system frees them even when their process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from df_models.errors import UserError
from df_models.files import check_output_directory

LOCK_NAME = ".lock"
_held: set[int] = set()
"""Descriptors of the directories that this process holds."""


@contextlib.contextmanager
def one_writer(directory: Path, program: str) -> Iterator[None]:
    """Hold a directory as its only writer, made if need be; it goes again if nothing was written there.

    Args:
        program: who writes, for the message to others.

    Raises:
        UserError: another process holds it (the message names it, its process id and its machine), or it cannot be
            written.
    """
    check_output_directory(directory)
    made = _make(directory)
    lock = directory / LOCK_NAME
    handle = _lock_in(directory)
    _held.add(handle)
    os.truncate(handle, 0)
    os.pwrite(handle, f"{program} (process {os.getpid()} on {socket.gethostname()})".encode(), 0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the file system became read-only, which is told by whoever wrote
            lock.unlink()
        for path in made:
            with contextlib.suppress(OSError):  # something was written there
                path.rmdir()
        _held.discard(handle)
        os.close(handle)


def _make(directory: Path) -> list[Path]:
    """Make a directory; return those that were missing, the innermost first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _lock_in(directory: Path) -> int:
    lock = directory / LOCK_NAME
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return open_locked(lock, wait=False)
        except FileNotFoundError:  # another process that wrote nothing removed its directory just now
            continue
        except BlockingIOError as error:
            raise UserError(
                f"another process is writing to {directory}{_holder(lock)}; wait for it or choose another directory"
            ) from error


def _holder(lock: Path) -> str:
    try:
        text = lock.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # it was let go just now
        return ""
    return f": {text}" if text else ""


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


def _let_go_in_child() -> None:
    """A forked child shares its parent's locks and would hold them when the parent is killed."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
