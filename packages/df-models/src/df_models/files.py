"""Files that are whole or absent, hashes, and names from outside that must not become paths."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from df_models.errors import UserError


@contextlib.contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; on success fsync it and rename it to ``final``.

    On an exception the temporary file is removed and ``final`` is left as it was, so no half-written file ever
    stands under a final name. The temporary name keeps the suffix of ``final``, because writers of media choose
    their format by it.

    Raises:
        UserError: the directory of ``final`` does not exist or cannot be written.
    """
    final = Path(final)
    directory = final.parent
    if not directory.is_dir():
        raise UserError(f"cannot write {final}: the directory {directory} does not exist; create it first")
    try:
        handle, name = tempfile.mkstemp(dir=directory, prefix=f".{final.stem}.", suffix=f".tmp{final.suffix}")
    except PermissionError as error:
        raise UserError(f"cannot write {final}: no permission to write in {directory}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _fsync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)
        _fsync(directory)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path`` by way of :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


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
        raise UserError(f"unsafe name {name!r}: only plain relative names are accepted")
    return Path(root) / name


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
