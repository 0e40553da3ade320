"""The bytes of a shard: its tar layout, and its samples one by one, each read on its own so that all faults are named.

A *piece* is the tar blocks of one sample: headers, data and padding of all its members.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from df_data.format.sample import Sample, from_members
from df_data.format.shards import iter_groups, read_exactly, tar_members
from df_models.errors import UserError

BLOCK = 512
END = b"\0" * (2 * BLOCK)


@dataclass(frozen=True)
class StoredSample:
    """A sample of a shard, and its piece's length and hash; ``sample`` is None where it cannot be read."""

    key: str
    sample: Sample | None
    bytes: int
    sha256: str
    problems: tuple[str, ...]


def read_archive(path: Path) -> Iterator[StoredSample | str]:
    """Yield a shard's samples, and a line for every fault of the archive itself."""
    end, before = 0, ""
    with open(path, "rb") as file:
        try:
            for key, places in iter_groups(file, path.name):
                if key <= before:
                    yield f"sample {key} stands after {before}; samples stand in the order of their keys"
                before = max(before, key)
                stored, end = _stored(file, key, places, end)
                yield stored
        except UserError as error:
            yield str(error)
            return
        file.seek(end)
        if file.read(len(END) + 1) != END:
            yield "does not end with two blocks of zeros after the last sample"


def _stored(file: IO[bytes], key: str, places: dict[str, tuple[int, int]], start: int) -> tuple[StoredSample, int]:
    members = {suffix: read_exactly(file, offset, size, "the shard") for suffix, (offset, size) in places.items()}
    last = max(offset + size for offset, size in places.values())
    end = last + -last % BLOCK
    piece = read_exactly(file, start, end - start, "the shard")
    problems, sample = [], None
    if tar_members({f"{key}.{suffix}": data for suffix, data in members.items()}) != piece:
        problems.append("is not laid out as the format says (ustar, members by name, owners and times zero)")
    try:
        sample = from_members(key, members, "shard")
    except UserError as error:
        problems.append(str(error).removeprefix(f"shard: sample {key}: "))
    return StoredSample(key, sample, len(piece), hashlib.sha256(piece).hexdigest(), tuple(problems)), end
