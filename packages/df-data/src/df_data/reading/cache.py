"""A directory of fetched shards: whole or absent, named by their sha256, never more than a bound.

Processes of one machine share it: each shard is fetched by one of them while the others wait for it. The shards that
were not used for the longest time make room for new ones.
"""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from df_data.format.manifest import ShardEntry
from df_models.errors import UserError
from df_models.files import atomic_path, sha256_file

_LEFTOVER_SECONDS = 24 * 3600


class ShardCache:
    """Shards on this machine's disk.

    Args:
        directory: made if it is not there.
        limit_bytes: of all shards in it (a shard that is being read stays on the disk until it is closed).
        verify: check the sha256 of a shard whenever it is opened, not only when it is fetched.

    Raises:
        UserError: the directory cannot be made.
    """

    def __init__(self, directory: Path | str, limit_bytes: int, *, verify: bool = False) -> None:
        self.directory, self.limit_bytes, self._verify = Path(directory), limit_bytes, verify
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cache_dir={directory}: cannot be made ({error}); choose another directory") from error

    def path(self, entry: ShardEntry, fetch: Callable[[io.BufferedIOBase], object]) -> Path:
        """The file of a shard; ``fetch`` writes it (checked) if it is not there.

        Raises:
            UserError: the shard is larger than the bound; whatever ``fetch`` raises.
        """
        path = self.directory / f"{entry.sha256}.tar"
        if not self._use(path, entry):
            with self._alone(entry):
                if not self._use(path, entry):  # another process may have fetched it meanwhile
                    self._make_room(entry)
                    with atomic_path(path) as temporary, open(temporary, "wb") as file:
                        fetch(file)
        return path

    def _use(self, path: Path, entry: ShardEntry) -> bool:
        """Mark a shard as used just now; False if it is not there whole."""
        try:
            if path.stat().st_size != entry.bytes or (self._verify and sha256_file(path) != entry.sha256):
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self, entry: ShardEntry) -> None:
        if entry.bytes > self.limit_bytes:
            raise UserError(
                f"{entry.name} has {entry.bytes} bytes, the cache may hold {self.limit_bytes}; raise cache_dir_bytes"
            )
        shards = sorted(self._shards())
        total = sum(size for _, size, _ in shards) + entry.bytes
        for _, size, path in shards:
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._remove_leftovers()

    def _shards(self) -> Iterator[tuple[int, int, Path]]:
        """(time of last use, bytes, path) of each shard; another process may remove one meanwhile."""
        for path in self.directory.glob("[!.]*.tar"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                yield stat.st_mtime_ns, stat.st_size, path

    def _remove_leftovers(self) -> None:
        """Temporary files of processes that were killed long ago."""
        for path in self.directory.glob(".*.tmp*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                    path.unlink()

    @contextmanager
    def _alone(self, entry: ShardEntry) -> Iterator[None]:
        """Hold the right to fetch a shard; others wait (the lock ends with its process, however that ends)."""
        with open(self.directory / f".{entry.sha256}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
