"""Where a split comes from: a directory, or a URL or pipe as webdataset opens them.

A remote split is named by the place of its files: a base (`https://host/data/train`), to which `/manifest.json` and
`/shard-00000.tar` are added, or a template with `{}` where the file's name belongs
(`pipe:aws s3 cp s3://bucket/train/{} -`, `https://host/data/train/{}?token=abc`). The manifest lists the shards, so no
brace expansion is needed.

Remote shards are opened with `webdataset.gopen`: `http:`, `https:`, `ftps:`, `sftp:`, `gs:`, `hf:`, `ais:` call the
programs that fetch them, `pipe:` runs the command after it in a shell (so S3 is read, as above). The command is the
user's; the names put into it come from the manifest and must be plain (:func:`file_url`). What arrives is checked
against the manifest's sha256 and is either kept in a cache directory (:mod:`df_data.reading.cache`) or read through
into memory.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from df_data.format.manifest import MANIFEST_NAME, Manifest, ShardEntry, parse_manifest, read_manifest
from df_data.reading.cache import ShardCache
from df_data.reading.shard import ShardBytes
from df_data.reading.tensors import Buffer
from df_models.errors import UserError
from df_models.files import sha256_file

ATTEMPTS = 3
"""A dropped connection is tried again; a server that refuses three times is told to the user."""
CURL_CODES = {6: "unknown host", 7: "no connection", 22: "not found or no access", 28: "took too long"}
"""What curl's exit codes mean (its manual, EXIT CODES)."""
SHELL_CODES = {126: "a program in it cannot be run", 127: "a program in it is not installed"}
"""What a shell's own exit codes mean (POSIX, Shell Command Language, 2.8.2)."""
_PAUSE = 0.5
"""Seconds before the second attempt, twice as many before the third: enough for a dropped connection."""
_PIECE = 1 << 20
"""Bytes read at a time."""
_LARGEST_MANIFEST = 1 << 30
"""Bytes: some 200 per shard; beyond this it is no manifest, and must not fill the memory."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_REMOTE = re.compile(r"pipe:|[A-Za-z][A-Za-z0-9+.-]*://")

T = TypeVar("T")


class Source(Protocol):
    """One split of a dataset, wherever it is.

    Attributes:
        where: its name for messages.
    """

    where: str

    def manifest(self) -> Manifest:
        """Read the manifest. Raises UserError if there is none, or a damaged one."""
        ...

    def open(self, entry: ShardEntry) -> ShardBytes:
        """Open a shard. Raises UserError if it is missing or not the one the manifest names."""
        ...


def is_remote(location: Path | str) -> bool:
    """Whether a location is a URL or a pipe rather than a directory."""
    return isinstance(location, str) and not location.startswith("file://") and bool(_REMOTE.match(location))


def open_source(location: Path | str, *, cache: ShardCache | None = None, verify: bool = False) -> Source:
    """The split at a location; `cache` and the checks of what is fetched are for remote ones.

    Args:
        verify: check the sha256 of a directory's shards when they are opened (what is fetched always is checked).

    Raises:
        UserError: a pipe without `{}`, or a cache for a directory.
    """
    if is_remote(location):
        return RemoteSource(str(location), cache)
    if cache is not None:
        raise UserError(f"{location} is a directory: cache_dir is for URLs and pipes; leave it out")
    return DirectorySource(Path(str(location).removeprefix("file://")), verify)


# -------------------- a directory


class DirectorySource:
    """A split in a directory."""

    def __init__(self, directory: Path, verify: bool = False) -> None:
        self.directory, self.where, self._verify = directory, str(directory), verify

    def manifest(self) -> Manifest:
        """Read the manifest."""
        return read_manifest(self.directory)

    def open(self, entry: ShardEntry) -> ShardBytes:
        """Open a shard's file."""
        path = self.directory / entry.name
        if not path.is_file():
            raise UserError(f"{path}: the shard is missing; build the dataset again or correct its manifest")
        data = FileBytes(path, str(path))
        _check_size(data, entry)
        if self._verify and sha256_file(path) != entry.sha256:
            raise UserError(
                f"{path}: its sha256 is not the manifest's: it is damaged; df-data build --retry damaged makes it again"
            )
        return data


class FileBytes:
    """A file that stays open as long as anyone reads it (even if its name is removed meanwhile)."""

    held = 0

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> Buffer:
        """Return ``size`` bytes from ``offset``, fewer at the end of the file."""
        data = np.empty(min(size, max(0, self.size - offset)), dtype=np.uint8).data  # not filled with zeros
        done = 0
        while done < len(data):
            got = os.preadv(self._descriptor, [data[done:]], offset + done)
            if got == 0:
                break
            done += got
        return data[:done]

    def expect(self, offset: int, size: int) -> None:
        """Have the system fetch a part from the disk meanwhile, where it takes such advice."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_WILLNEED)


def _check_size(data: ShardBytes, entry: ShardEntry) -> None:
    if data.size != entry.bytes:
        raise UserError(
            f"{data.where}: {data.size} bytes, its manifest says {entry.bytes}; the shard is damaged, build it again"
        )


# -------------------- a URL or a pipe


class RemoteSource:
    """A split behind a URL or a pipe; shards are fetched when their turn comes."""

    def __init__(self, location: str, cache: ShardCache | None = None) -> None:
        self.where, self._cache = location, cache
        file_url(location, MANIFEST_NAME)

    def manifest(self) -> Manifest:
        """Fetch the manifest."""
        where = file_url(self.where, MANIFEST_NAME)
        return parse_manifest(_attempts(lambda: _read_small(where)), where)

    def open(self, entry: ShardEntry) -> ShardBytes:
        """Fetch a shard, or find it in the cache."""
        where = file_url(self.where, entry.name)
        if self._cache is None:
            return MemoryBytes(_attempts(lambda: _read_through(where, entry)), where)
        while True:
            path = self._cache.path(entry, lambda file: _attempts(lambda: _download(where, entry, file)))
            try:
                return FileBytes(path, where)
            except FileNotFoundError:  # another process made room just now
                continue


class MemoryBytes:
    """A shard that was read through into memory. What is read of it is copied, so that no sample keeps a shard."""

    def __init__(self, data: bytearray, where: str) -> None:
        self.where, self.size, self.held = where, len(data), len(data)
        self._view = memoryview(data)

    def read(self, offset: int, size: int) -> Buffer:
        """Return ``size`` bytes from ``offset``, fewer at the end."""
        return memoryview(bytearray(self._view[offset : offset + size]))

    def expect(self, offset: int, size: int) -> None:
        """Nothing to do: it is all here."""


def file_url(location: str, name: str) -> str:
    """The URL or command that gives a file of a split.

    Raises:
        UserError: a name that is not plain (it may come to stand in a shell's command), or a pipe without `{}`.
    """
    if not _PLAIN.fullmatch(name):
        raise UserError(f"{location}: its manifest names a file {name!r}; only letters, digits, _, . and - are taken")
    if "{}" in location:
        return location.replace("{}", name)
    if location.startswith("pipe:"):
        raise UserError(f"{location!r} does not say where a file's name belongs: write {{}} there")
    return f"{location.rstrip('/')}/{name}"


def open_pieces(url: str) -> Iterator[bytes]:
    """What a URL or pipe gives, piece by piece.

    Raises:
        UserError: nothing could be fetched, the program that fetches failed or is not installed, or there is none for
            such URLs.
    """
    from webdataset.gopen import gopen, gopen_schemes

    stream = None
    try:
        with closing(gopen(url)) as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except (OSError, ValueError) as error:
        scheme = url.partition(":")[0]
        if stream is None and scheme not in gopen_schemes:
            raise UserError(
                f"{url}: nothing here fetches {scheme}:// addresses; name a command that does, with {{}} for the file's"
                " name: 'pipe:aws s3 cp s3://bucket/train/{} -'"
            ) from error
        why = _why(error, getattr(stream, "proc", None))
        raise UserError(f"{url}: cannot be fetched ({why}); check the address and the files there") from error


def _why(error: Exception, fetching: subprocess.Popen[bytes] | None) -> str:
    """Why nothing could be fetched, in words: webdataset's errors quote the program's whole command line."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"the program {error.filename} is not installed"
    if fetching is None or not fetching.returncode:
        return str(error)
    command, code = fetching.args, fetching.returncode
    name = Path(str(command[0])).name if isinstance(command, list) else "the command"
    meanings = {"the command": SHELL_CODES, "curl": CURL_CODES}
    meaning = meanings.get(name, {}).get(code)
    return f"{name} ended with code {code}" + (f": {meaning}" if meaning else "")


def _read_small(url: str) -> bytes:
    data = bytearray()
    for piece in open_pieces(url):
        data += piece
        if len(data) > _LARGEST_MANIFEST:
            raise UserError(f"{url}: larger than {_LARGEST_MANIFEST} bytes; this is no manifest")
    return bytes(data)


def _checked_pieces(url: str, entry: ShardEntry) -> Iterator[bytes]:
    """The pieces of a shard; a UserError as soon as they are known not to be the manifest's."""
    digest, size = hashlib.sha256(), 0
    for piece in open_pieces(url):
        size += len(piece)
        if size > entry.bytes:
            break
        digest.update(piece)
        yield piece
    if size != entry.bytes or digest.hexdigest() != entry.sha256:
        raise UserError(
            f"{url}: what was fetched is not the shard that its manifest names (sha256 or size differ); "
            "upload shard and manifest again"
        )


def _read_through(url: str, entry: ShardEntry) -> bytearray:
    data = bytearray()
    for piece in _checked_pieces(url, entry):
        data += piece
    return data


def _download(url: str, entry: ShardEntry, file: io.BufferedIOBase) -> None:
    file.seek(0)
    file.truncate()
    for piece in _checked_pieces(url, entry):
        file.write(piece)


def _attempts(fetch: Callable[[], T]) -> T:
    """Fetch, and try again after a failure: networks fail for a moment."""
    for attempt in range(1, ATTEMPTS):
        try:
            return fetch()
        except UserError:
            time.sleep(_PAUSE * attempt)
    return fetch()
