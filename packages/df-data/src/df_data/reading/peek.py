"""What a program needs of a dataset before it reads it: where a split is, its manifest, its first samples.

All of it works for a directory, a URL and a pipe (:mod:`df_data.reading.source`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from df_data.format.manifest import Manifest
from df_data.reading.cache import ShardCache
from df_data.reading.shard import RawSample, open_shard
from df_data.reading.source import is_remote, open_source
from df_models.errors import UserError


def split_location(root: Path | str, split: str) -> str:
    """Where a split of a dataset is: ``split/`` in a directory or under a URL, or before the name in a template.

    ``https://host/data`` gives ``https://host/data/train``; ``pipe:aws s3 cp s3://bucket/data/{} -`` gives
    ``pipe:aws s3 cp s3://bucket/data/train/{} -``.
    """
    if not is_remote(root):
        return str(Path(str(root).removeprefix("file://")) / split)
    location = str(root)
    return location.replace("{}", split + "/{}") if "{}" in location else f"{location.rstrip('/')}/{split}"


def manifest_of(location: Path | str) -> Manifest:
    """The manifest of a split, wherever it is.

    Raises:
        UserError: there is none, it is damaged, or it cannot be fetched.
    """
    return open_source(location).manifest()


def first_samples(
    location: Path | str, *, cache: ShardCache | None = None, verify: bool = False, skip_damaged: bool = False
) -> Iterator[RawSample]:
    """The samples of a split in the order of its manifest, one at a time, without their mp4 and truth.

    Shards of a URL are fetched when their first sample is asked for; in a `cache` a reader finds them again.

    Args:
        verify: check the sha256 of shards, as in `ShardReader`.
        skip_damaged: pass over damaged samples and shards.

    Raises:
        UserError: no such split, or (without `skip_damaged`) a damaged shard or sample.
    """
    source = open_source(location, cache=cache, verify=verify)
    for entry in source.manifest().shards:
        try:
            shard = open_shard(source.open(entry), entry)
        except UserError:
            if skip_damaged:
                continue
            raise
        for index in range(entry.count):
            try:
                yield shard.sample(index)
            except UserError:
                if not skip_damaged:
                    raise
