"""One shard that is open: where its samples lie, and one of them at a time.

A sample's members stand together (`key.json`, perhaps `key.mp4`, `key.safetensors`), so that it comes with one read
(two if there is an mp4, which is not read).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from df_data.format.manifest import ShardEntry
from df_data.format.sample import SCHEMA_VERSION
from df_data.format.shards import iter_groups, split_member_name
from df_data.reading.tensors import Buffer, tensor_views
from df_models.errors import UserError
from df_models.time import latent_length, pixel_length

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_SUM = slice(148, 156)
_FETCH_THROUGH = 512 << 10
"""Of samples up to this size (as far as the shard's mean tells) the whole shard is fetched from the disk as it is
opened: a disk gives it sooner than it finds the header of each sample, and their turn comes soon."""
_WINDOW = 4096
"""Bytes that are read at once where a header is: often the next header is among them."""
_TOGETHER = 64 << 10
"""Bytes between two members that are read over rather than jumped over."""


class ShardBytes(Protocol):
    """The bytes of a shard, wherever they are.

    Attributes:
        where: name of the shard for messages.
        size: bytes.
        held: bytes of memory that it takes.
    """

    where: str
    size: int
    held: int

    def read(self, offset: int, size: int) -> Buffer:
        """Return ``size`` bytes from ``offset`` (fewer at the end), writable. Safe to call from several threads."""
        ...

    def expect(self, offset: int, size: int) -> None:
        """Say that these bytes will be read soon, so that they may be fetched meanwhile."""
        ...


class Member(NamedTuple):
    """A member of a tar by its data's first byte and size."""

    offset: int
    size: int


class RawSample(NamedTuple):
    """A sample as it stands in a shard: tensors are views of ``bytes`` bytes; ``identity`` names its person."""

    key: str
    weight: float
    tensors: dict[str, np.ndarray]
    bytes: int
    prompt: str | None = None
    identity: str = ""


class _Head(BaseModel):
    """The metadata that reading needs (:class:`df_data.format.sample.SampleMeta` has it all)."""

    key: str
    schema_version: int = SCHEMA_VERSION
    num_frames: int = Field(ge=1)
    weight: float = Field(default=1.0, ge=0.0, le=1.0)
    prompt: str | None = None
    identity: str


@dataclass(frozen=True)
class OpenShard:
    """A shard and where its samples lie: keys, and int64 ``[N, 4]`` (json offset and size, tensors' offset and size).

    Raises (all methods):
        UserError: naming the shard and the sample that is damaged.
    """

    data: ShardBytes
    keys: tuple[str, ...]
    members_N4: np.ndarray

    def sample(self, index: int) -> RawSample:
        """Read a sample."""
        where, key = f"{self.data.where}: sample {self.keys[index]}", self.keys[index]
        json, tensors = self._members(index)
        together = tensors.offset - json.offset + tensors.size
        if json.offset < tensors.offset and together - tensors.size - json.size <= _TOGETHER:
            data = self._read(json.offset, together)
            head, start = _head(data[: json.size], key, where), tensors.offset - json.offset
        else:
            head, start = self._read_head(index), 0
            data = self._read(tensors.offset, tensors.size)
        views = tensor_views(data, start, tensors.size, where)
        if head.num_frames != pixel_length(len(views["video_latent"])):
            raise UserError(f"{where}: its tensors are not of {head.num_frames} pixel frames; build the shard again")
        return RawSample(key, head.weight, views, len(data), head.prompt, head.identity)

    def expect(self, index: int) -> None:
        """Say that a sample will be read soon."""
        json, tensors = self._members(index)
        self.data.expect(json.offset, tensors.offset + tensors.size - json.offset)

    def length(self, index: int) -> int:
        """Latent frames of a sample, from its metadata alone."""
        return latent_length(self._read_head(index).num_frames)

    def _members(self, index: int) -> tuple[Member, Member]:
        values = self.members_N4[index].tolist()
        return Member(*values[:2]), Member(*values[2:])

    def _read_head(self, index: int) -> _Head:
        json, _ = self._members(index)
        return _head(self._read(*json), self.keys[index], f"{self.data.where}: sample {self.keys[index]}")

    def _read(self, offset: int, size: int) -> Buffer:
        data = self.data.read(offset, size)
        if len(data) != size:
            raise UserError(f"{self.data.where}: the file is cut short; build the shard again or remove it")
        return data


def open_shard(data: ShardBytes, entry: ShardEntry) -> OpenShard:
    """Find the samples of a shard.

    Raises:
        UserError: not a whole tar file, members that no sample has, or another number of samples than the manifest's.
    """
    if is_fetched_through(entry):
        data.expect(0, data.size)
    groups = plain_groups(data)
    if groups is None:  # not as df-data writes it: let the standard library read it, or say what is wrong with it
        file = io.BufferedReader(_Raw(data))
        groups = {
            key: {suffix: Member(*place) for suffix, place in members.items()}
            for key, members in iter_groups(file, data.where)
        }
    for key, members in groups.items():
        missing = {"json", "safetensors"} - members.keys()
        if missing:
            raise UserError(f"{data.where}: sample {key}: its .{missing.pop()} is missing; build the shard again")
    if len(groups) != entry.count:
        raise UserError(f"{data.where}: {len(groups)} samples, its manifest says {entry.count}; build it again")
    table = [(*members["json"], *members["safetensors"]) for members in groups.values()]
    return OpenShard(data, tuple(groups), np.array(table, dtype=np.int64).reshape(-1, 4))


def is_fetched_through(entry: ShardEntry) -> bool:
    """Whether all of a shard is fetched from the disk when it is opened, because its samples are small."""
    return entry.bytes <= _FETCH_THROUGH * entry.count


def plain_groups(data: ShardBytes) -> dict[str, dict[str, Member]] | None:
    """Key -> suffix -> place of the samples of a plain ustar file, or None if there is anything else in it.

    Much faster than `tarfile`, which is asked when this returns None. Source: POSIX.1-2024, pax, ustar interchange
    format (name at 0, size at 124, checksum at 148, type at 156, magic at 257, prefix at 345).
    """
    members = _plain_members(data)
    if members is None:
        return None
    groups: dict[str, dict[str, Member]] = {}
    current = ""
    for name, member in members:
        key, suffix = split_member_name(name, data.where)
        if key != current and key in groups:
            raise UserError(f"{data.where}: the members of {key} do not stand together; build the shard again")
        current, known = key, groups.setdefault(key, {})
        if suffix in known:
            raise UserError(f"{data.where}: member {name} is a duplicate; build the shard again")
        known[suffix] = member
    return groups


def _plain_members(data: ShardBytes) -> list[tuple[str, Member]] | None:
    """(name, place) of each member up to the first block of zeros; None if one is not a plain file with a true header.

    The headers are gathered first, each telling where the next one is, and their checksums computed at once.
    """
    headers: list[bytes] = []
    members: list[tuple[str, Member]] = []
    offset, begin, seen = 0, 0, memoryview(b"")
    while True:
        if offset + _BLOCK > begin + len(seen):
            begin, seen = offset, data.read(offset, _WINDOW)
        block = bytes(seen[offset - begin : offset - begin + _BLOCK])
        if block == _ZEROS:
            return members if _checksums_hold(headers) else None
        parsed = _plain_header(block)
        if parsed is None:
            return None
        name, size = parsed
        headers.append(block)
        members.append((name, Member(offset + _BLOCK, size)))
        offset += _BLOCK + size + (-size % _BLOCK)


def _plain_header(block: bytes) -> tuple[str, int] | None:
    """(name, size) of a plain file's header block, or None; its checksum is not looked at."""
    if len(block) != _BLOCK or block[257:263] != b"ustar\0" or block[156] not in b"0\0" or block[345]:
        return None
    try:
        name, size = block[:100].rstrip(b"\0").decode("ascii"), int(block[124:136].rstrip(b" \0"), 8)
    except ValueError:
        return None
    return (name, size) if size >= 0 else None


def _checksums_hold(headers: Sequence[bytes]) -> bool:
    """Whether each header has the sum of its bytes in it, the eight of the sum itself counted as spaces."""
    try:
        told = [int(block[_SUM].rstrip(b" \0"), 8) for block in headers]
    except ValueError:
        return False
    blocks_NB = np.frombuffer(b"".join(headers), dtype=np.uint8).reshape(-1, _BLOCK).astype(np.int64)
    blocks_NB[:, _SUM] = ord(" ")
    return bool((blocks_NB.sum(axis=1) == told).all())


class _Raw(io.RawIOBase):
    """A shard's bytes as a file for `tarfile`."""

    def __init__(self, data: ShardBytes) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._data.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self._data.read(self._at, len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _head(data: Buffer, key: str, where: str) -> _Head:
    try:
        head = _Head.model_validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: bad metadata: {place}: {first['msg']}; build the shard again") from error
    if head.key != key:
        raise UserError(f"{where}: its metadata names another key, {head.key!r}; build the shard again")
    if head.schema_version != SCHEMA_VERSION:
        raise UserError(f"{where}: schema version {head.schema_version}, this program reads {SCHEMA_VERSION}")
    return head
