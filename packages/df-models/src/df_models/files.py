"""Files that are whole or absent, places to write to, hashes, and names from outside that must not become paths."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from df_models.errors import UserError

LONGEST_NAME = 255
_TEMPORARY = re.compile(r"\.[a-z0-9_]{8}\.tmp(\..+)?")
LONGEST_SUFFIX = 16
"""Longer ones name no format; without them a temporary name is at most 29 bytes, which every file system allows."""


@contextlib.contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; on success fsync it and rename it to ``final``.

    On an exception the temporary file is removed and ``final`` is left as it was, so no half-written file ever
    stands under a final name. The temporary name keeps the suffix of ``final``, because writers of media choose
    their format by it.

    Raises:
        UserError: the directory of ``final`` does not exist or cannot be written, or the name is too long.
    """
    final = Path(final)
    directory = final.parent
    if not directory.is_dir():
        raise UserError(f"cannot write {final}: the directory {directory} does not exist; create it first")
    _check_name(final)
    suffix = final.suffix if len(os.fsencode(final.suffix)) <= LONGEST_SUFFIX else ""
    try:
        handle, name = tempfile.mkstemp(dir=directory, prefix=".", suffix=f".tmp{suffix}")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(f"cannot write {final}: {_why(error)} in {directory}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)
        sync(directory)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path`` by way of :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def remove_leftovers(directory: Path) -> None:
    """Remove what :func:`atomic_path` left in a directory whose writer was killed; the caller is its only writer."""
    for path in directory.glob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def require_file(path: str | os.PathLike[str]) -> None:
    """Raise a UserError where there is no such file."""
    if not Path(path).is_file():
        raise UserError(f"{path} is a directory, not a file" if Path(path).is_dir() else f"no such file: {path}")


def check_output(path: str | os.PathLike[str], *, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuse, before any work, a file that could not be written at its end, or whose writing would destroy an input.

    Args:
        inputs: what the command reads; under whatever name, by way of links of either kind too.

    Raises:
        UserError: it is an input, a directory or a device, its name is too long, or its directory is missing or cannot
            be written.
    """
    final = Path(path)
    _check_name(final)
    if final.is_dir():
        raise UserError(f"cannot write {final}: it is a directory")
    if final.exists() and not final.is_file():
        raise UserError(f"cannot write {final}: it is no ordinary file; give the name of one")
    if not final.parent.is_dir():
        raise UserError(f"cannot write {final}: the directory {final.parent} does not exist; create it first")
    for name in inputs:
        if final.exists() and os.path.exists(name) and os.path.samefile(final, name):
            raise UserError(f"{final} is read as an input ({name}); write to another file")
    _try_writing(final.parent, final)


def check_output_directory(path: str | os.PathLike[str], *, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """The same for a directory, which may be there or is still to be made.

    Raises:
        UserError: it is an input or a file, a name is too long, or it cannot be written.
    """
    final = Path(path)
    there = final.absolute()
    for path in (there, *there.parents):
        _check_name(path, named=final)
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise UserError(f"cannot write to {final}: {there} is not a directory")
    for name in inputs:
        if final.exists() and os.path.exists(name) and os.path.samefile(final, name):
            raise UserError(f"{final} is read as an input ({name}); write to another directory")
    _try_writing(there, final)


def check_owned(directory: Path, program: str, names: Iterable[str]) -> None:
    """Refuse a directory that holds something under a name that a program replaces, and that it did not write.

    Args:
        names: what the program removes or overwrites in its directories.

    Raises:
        UserError: naming what is there.
    """
    there = [f"{name}/" if (directory / name).is_dir() else name for name in names if (directory / name).exists()]
    if there and not (directory / f".{program}").is_file():
        raise UserError(
            f"{directory} holds {', '.join(there)}, which {program} did not write; move them away, or choose another "
            "directory"
        )


def mark_owned(directory: Path, program: str) -> Path:
    """Leave the mark by which :func:`check_owned` knows the program's own directories; return this file's path."""
    directory.mkdir(parents=True, exist_ok=True)
    mark = directory / f".{program}"
    mark.touch()
    return mark


def _try_writing(directory: Path, wanted: Path) -> None:
    """The one sure sign is to do it: permissions, read-only mounts and full disks each have their own rules."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b".")
    except OSError as error:
        raise UserError(f"cannot write {wanted}: {_why(error)} in {directory}") from error


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space is left"
    if error.errno == errno.EROFS:
        return "the file system is read-only"
    return "no permission to write" if error.errno in (errno.EACCES, errno.EPERM) else "no file can be made"


def _check_name(path: Path, named: Path | None = None) -> None:
    """Raise if a name is longer than file systems allow (255 bytes on all in use)."""
    length = len(os.fsencode(path.name))
    if length > LONGEST_NAME:
        raise UserError(f"cannot write {named or path}: a name of {length} bytes; at most {LONGEST_NAME} are allowed")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_join(root: str | os.PathLike[str], name: str) -> Path:
    """Return ``root / name`` for a relative name from outside.

    Raises:
        UserError: ``name`` is absolute, climbs out of ``root``, or holds a NUL or a backslash.
    """
    parts = Path(name).parts
    if not name or Path(name).is_absolute() or ".." in parts or "\0" in name or "\\" in name:
        raise UserError(f"unsafe name {name!r}: give a plain relative one, without '..'")
    return Path(root) / name


def sync(path: Path) -> None:
    """Bring a file's bytes, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
