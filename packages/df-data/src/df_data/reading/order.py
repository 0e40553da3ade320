"""Which sample stands where: pure functions of (manifest, seed, place).

Every *bucket* (clips that are cut to one length; a reader without buckets has a single one) has its own endless
sequence: epoch after epoch, each epoch a permutation of the bucket's samples that depends on (seed, epoch) alone. The
state of a reader is how many places of each sequence have been given: one integer per bucket. A step takes the next
``batch_size * world_size`` places of one bucket, and which bucket's turn it is follows from those integers
(:func:`next_bucket`), so a run with another number of ranks or workers goes on from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from df_data.common.hashing import hash_int

SHARDS_MIXED = 16
"""Shards whose samples are shuffled among each other: enough to mix, few enough to read a disk in long runs."""
EPOCHS_KEPT = 4
"""Orders of epochs that stay in memory: with buckets and reading ahead, neighbours are asked for in turns."""


class Place(NamedTuple):
    """A sample's turn: in which epoch of its bucket, its shard (number in the manifest) and its number in that."""

    epoch: int
    shard: int
    index: int


class Step(NamedTuple):
    """What all ranks together read at once: places of a bucket from `position`, before `end` (None: no end)."""

    bucket: int
    position: int
    end: int | None


class Order:
    """The endless sequences of all buckets.

    Args:
        counts: samples of each shard.
        seed, shuffle: of the permutations; without shuffling every epoch has the order of the manifest.
        bucket_of: per shard the bucket of each of its samples, int ``[count]``; None puts all into one.
        num_buckets: how many buckets there are; some may be empty.
    """

    def __init__(
        self,
        counts: Sequence[int],
        *,
        seed: int,
        shuffle: bool,
        bucket_of: Sequence[np.ndarray] | None = None,
        num_buckets: int = 1,
    ) -> None:
        self._counts, self._seed, self._shuffle = tuple(counts), seed, shuffle
        self._bucket_of = bucket_of
        self.sizes = _sizes(counts, bucket_of, num_buckets)
        self._epoch = lru_cache(maxsize=EPOCHS_KEPT)(self._buckets_of_epoch)

    def at(self, bucket: int, place: int) -> Place:
        """The sample at a place of a bucket's sequence."""
        epoch, within = divmod(place, self.sizes[bucket])
        shard, index = self._epoch(epoch)[bucket][within]
        return Place(epoch, int(shard), int(index))

    def samples(self, bucket: int, start: int, stop: int) -> np.ndarray:
        """(shard, index) of the places from ``start`` to ``stop`` of a bucket's sequence, int64 ``[N, 2]``."""
        parts = []
        while start < stop:
            epoch, within = divmod(start, self.sizes[bucket])
            parts.append(self._epoch(epoch)[bucket][within : within + stop - start])
            start += len(parts[-1])
        return np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.int64)

    def _buckets_of_epoch(self, epoch: int) -> list[np.ndarray]:
        order = epoch_order(self._counts, self._seed, epoch) if self._shuffle else manifest_order(self._counts)
        if self._bucket_of is None:
            return [order]
        starts = np.cumsum([0, *self._counts[:-1]])
        buckets = np.concatenate(self._bucket_of)[starts[order[:, 0]] + order[:, 1]]
        return [order[buckets == bucket] for bucket in range(len(self.sizes))]


def manifest_order(counts: Sequence[int]) -> np.ndarray:
    """Every (shard, index) in the order of the manifest, int64 ``[N, 2]``."""
    return _listed(range(len(counts)), counts)


def epoch_order(counts: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """Every (shard, index) once, int64 ``[N, 2]``: shards permuted, then samples among ``SHARDS_MIXED`` shards."""
    shards = list(range(len(counts)))
    rng = np.random.Generator(np.random.PCG64(hash_int("order", seed, epoch)))
    rng.shuffle(shards)
    parts = [_listed(shards[start : start + SHARDS_MIXED], counts) for start in range(0, len(shards), SHARDS_MIXED)]
    return np.concatenate([part[rng.permutation(len(part))] for part in parts])


def _listed(shards: Sequence[int], counts: Sequence[int]) -> np.ndarray:
    sizes = [counts[shard] for shard in shards]
    return np.column_stack([np.repeat(shards, sizes), np.concatenate([np.arange(size) for size in sizes])])


def _sizes(counts: Sequence[int], bucket_of: Sequence[np.ndarray] | None, num_buckets: int) -> tuple[int, ...]:
    if bucket_of is None:
        return (sum(counts),)
    return tuple(np.bincount(np.concatenate(bucket_of), minlength=num_buckets).tolist())


def next_bucket(given: Sequence[int], sizes: Sequence[int], ends: Sequence[int | None]) -> int | None:
    """The bucket that the next step is of, or None if all have come to their ends.

    It is the one of which the smallest share has been given (the first of equal ones), so that all buckets run
    through their epochs together and their steps are spread evenly, whatever the sizes of buckets and steps are.

    Args:
        given: places of each bucket that were given.
        sizes: samples of each bucket.
        ends: place before which each bucket's sequence ends, None for endless ones.
    """
    going = [b for b, (size, end) in enumerate(zip(sizes, ends)) if size and (end is None or given[b] < end)]
    return min(going, key=lambda b: (Fraction(given[b], sizes[b]), b), default=None)


def rank_places(position: int, end: int | None, batch_size: int, rank: int, world_size: int) -> range:
    """The places of a sequence that a rank takes in the step beginning at ``position``.

    Before ``end`` (None: no end) a step holds ``batch_size`` places for each rank. A shorter last step is shared out
    evenly; if it has fewer places than there are ranks, it is widened backwards over places already given.
    """
    if end is None or position + batch_size * world_size <= end:
        first = position + rank * batch_size
        return range(first, first + batch_size)
    start = max(0, min(position, end - world_size))
    left = end - start
    if left < world_size:  # the whole epoch is smaller than the number of ranks
        return range(start + rank % left, start + rank % left + 1)
    return range(start + rank * left // world_size, start + (rank + 1) * left // world_size)


def others(size: int, *name: object) -> Iterator[int]:
    """All places of an epoch of ``size`` samples in an order drawn by name: where to look instead of a damaged one.

    The places are taken in equal strides, so that neighbours of a damaged run are not preferred.
    """
    start, stride = hash_int("fill", *name), 1 + hash_int("stride", *name) % size
    while math.gcd(stride, size) != 1:
        stride += 1
    return ((start + i * stride) % size for i in range(size))


def buckets_of(lengths: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """The bucket of each clip: the longest that its latent frames fill; -1 for clips shorter than all.

    Args:
        lengths: latent frames of each clip, int ``[N]``.
        buckets: latent frames of the buckets, rising.
    """
    return np.searchsorted(np.asarray(buckets), lengths, side="right") - 1
