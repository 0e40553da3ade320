"""Samples that wait for their shard: one small file each, whole under its name or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from df_data.format.ledger import StagedSample


class Staging:
    """A directory of staged samples, made when the first is put there.

    Nothing here is fsynced: the ledger keeps the hash of what was put, and what does not match it is made again.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, key: str, piece: bytes, shard: int) -> StagedSample:
        """Write a sample's piece of its tar file; what is returned belongs into the ledger."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(piece)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return StagedSample(key=key, shard=shard, bytes=len(piece), sha256=hashlib.sha256(piece).hexdigest())

    def get(self, staged: StagedSample) -> bytes | None:
        """Return a sample's piece, or None if it is not there as it was put."""
        path = self._path(staged.key)
        return intact(path.read_bytes(), staged) if path.is_file() else None

    def drop(self, key: str) -> None:
        """Remove a sample."""
        self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the directory with whatever is left in it, and the one above when it is empty."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.parent.is_dir() and not any(self.directory.parent.iterdir()):
            self.directory.parent.rmdir()

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.piece"


def intact(piece: bytes, staged: StagedSample) -> bytes | None:
    """Return the piece if it has the sample's hash, else None."""
    return piece if hashlib.sha256(piece).hexdigest() == staged.sha256 else None
