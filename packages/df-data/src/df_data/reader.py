"""Reading shards for training: shuffled, split among ranks, resumable to the very next sample.

The samples of a split form one endless sequence: epoch after epoch, each epoch a permutation that depends on (seed,
epoch) alone. Step i of a run on W ranks with batches of B takes places ``i W B .. (i+1) W B`` of it, rank r the r-th B
of them (a batch may hold the end of one epoch and the start of the next). So every sample comes exactly once per epoch,
every rank has the same number of batches, and the whole state is one integer, which a run with another number of ranks
or workers can go on from.

With ``loop=False`` each iteration is the rest of one epoch. One rank then gives every sample once, the last batch being
shorter if it must; several ranks share the last step as evenly as they can, and the last few samples are given twice
if there would otherwise be a rank without any (ranks that wait for each other must make the same number of steps).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from df_data.batch import Batch, Clip, clip_of, collate, hash_int
from df_data.manifest import Manifest, ShardEntry, read_manifest
from df_data.sample import from_members
from df_data.shards import iter_groups, read_exactly
from df_models.errors import UserError
from df_models.time import latent_length

__all__ = ["Batch", "Clip", "ShardReader"]

SHARDS_MIXED = 16
"""Shards whose samples are shuffled among each other: enough to mix, few enough to read a disk in long runs."""


@dataclass(frozen=True)
class _Place:
    """Where a sample lies: its shard's path, its key, and offset and size of its members by suffix."""

    path: Path
    key: str
    members: dict[str, tuple[int, int]]


class ShardReader:
    """Iterates over the batches of one split, endlessly or once.

    Args:
        directory: a split's directory, with ``manifest.json``.
        batch_size: clips per batch and rank.
        seed: of the order and of the choice of references.
        num_frames: latent frames per clip, from the clip's start; None takes clips whole (all must be equal then).
        shuffle: permute each epoch; otherwise the order of the manifest.
        rank, world_size: this process's part.
        audio_pool: how two audio features become one slot.
        loop: go on with the next epoch; otherwise an iteration ends with the epoch, and the next one is the next epoch.
        num_workers: threads that read ahead (0: read when asked).
        cache_bytes: decoded clips kept in memory, the oldest forgotten first.

    Raises:
        UserError: no such split, one that is not complete, or damaged shards (when their turn comes).
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        batch_size: int,
        seed: int,
        num_frames: int | None = None,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        audio_pool: Literal["mean", "concat"] = "concat",
        loop: bool = True,
        num_workers: int = 0,
        cache_bytes: int = 2 << 30,
    ) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(self.directory)
        if not self.manifest.complete:
            raise UserError(f"{self.directory} is not complete: its build was interrupted; run the build again")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise UserError(f"batch_size={batch_size}, rank={rank}, world_size={world_size} do not fit together")
        self.batch_size, self.seed, self.num_frames, self.shuffle = batch_size, seed, num_frames, shuffle
        self.rank, self.world_size, self.loop = rank, world_size, loop
        self.audio_pool: Literal["mean", "concat"] = audio_pool
        self.num_workers = num_workers
        self._count = self.manifest.count
        if not self._count:
            raise UserError(f"{self.directory} holds no samples")
        if num_frames is not None:
            _check_length(self.directory, self.manifest, num_frames)
        self._fingerprint = hash_int(*(entry.sha256 for entry in self.manifest.shards))
        self._indices: dict[int, list[_Place]] = {}
        self._position = 0
        self._cache: OrderedDict[_CacheKey, Clip] = OrderedDict()
        self._cache_left = cache_bytes
        self._lock = threading.Lock()
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __len__(self) -> int:
        """Number of samples in the split."""
        return self._count

    @property
    def epoch(self) -> int:
        """The epoch that the next batch begins in."""
        return self._position // self._count

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch begins, in samples of all ranks together; equal on all ranks."""
        return {
            "position": self._position,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "count": self._count,
            "dataset": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a saved place, whatever the number of ranks and workers was.

        Raises:
            UserError: the state is of another dataset or another order.
        """
        mine = self.state_dict()
        for name in ("seed", "shuffle", "count", "dataset"):
            if state.get(name) != mine[name]:
                raise UserError(
                    f"the saved place is of a reader with {name}={state.get(name)}, this one has {mine[name]}: "
                    "the dataset or the seed was changed; start a new run"
                )
        self._position = state["position"]

    def __iter__(self) -> Iterator[Batch]:
        end = None if self.loop else (self.epoch + 1) * self._count
        if self.num_workers > 0:
            yield from self._read_ahead(end)
            return
        while end is None or self._position < end:
            batch = self._batch(self._position, end)
            self._position = self._after(self._position, end)
            yield batch

    def _after(self, position: int, end: int | None) -> int:
        """Where the step after the one at ``position`` begins."""
        following = position + self.batch_size * self.world_size
        return following if end is None else min(following, end)

    def _read_ahead(self, end: int | None) -> Iterator[Batch]:
        """As without threads, since a batch depends on its position alone; the state counts only what was given."""
        waiting: deque[Future[Batch]] = deque()
        ahead = self._position
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="shard-reader") as pool:
            try:
                while end is None or self._position < end:
                    while len(waiting) < 2 * self.num_workers and (end is None or ahead < end):
                        waiting.append(pool.submit(self._batch, ahead, end))
                        ahead = self._after(ahead, end)
                    batch = waiting.popleft().result()
                    self._position = self._after(self._position, end)
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()

    def _batch(self, position: int, end: int | None) -> Batch:
        """This rank's batch of the step that begins at ``position``."""
        places = rank_places(position, end, self.batch_size, self.rank, self.world_size)
        epochs = [place // self._count for place in places]
        clips = [self._clip(*self._order(epoch)[place % self._count]) for place, epoch in zip(places, epochs)]
        return collate(clips, epochs, self.seed)

    def _permutation(self, epoch: int) -> list[tuple[int, int]]:
        """The order of an epoch as (shard, index in it): shards permuted, then samples among a few shards."""
        counts = [entry.count for entry in self.manifest.shards]
        shards = list(range(len(counts)))
        if not self.shuffle:
            return [(shard, index) for shard in shards for index in range(counts[shard])]
        rng = np.random.Generator(np.random.PCG64(hash_int("order", self.seed, epoch)))
        rng.shuffle(shards)
        order: list[tuple[int, int]] = []
        for start in range(0, len(shards), SHARDS_MIXED):
            mixed = shards[start : start + SHARDS_MIXED]
            part = [(shard, index) for shard in mixed for index in range(counts[shard])]
            order += [part[i] for i in rng.permutation(len(part))]
        return order

    def _clip(self, shard: int, index: int) -> Clip:
        key = (shard, index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        clip = self._load(self._index(shard)[index])
        with self._lock:
            if key not in self._cache:
                self._cache[key] = clip
                self._cache_left -= clip.bytes
            while self._cache_left < 0 and self._cache:
                _, oldest = self._cache.popitem(last=False)
                self._cache_left += oldest.bytes
        return clip

    def _index(self, shard: int) -> list[_Place]:
        """Where the samples of a shard lie, read from its headers when it is first met."""
        if shard not in self._indices:
            self._indices[shard] = _read_index(self.directory, self.manifest.shards[shard])
        return self._indices[shard]

    def _load(self, place: _Place) -> Clip:
        with open(place.path, "rb") as file:
            members = {
                suffix: read_exactly(file, offset, size, str(place.path))
                for suffix, (offset, size) in place.members.items()
                if suffix != "mp4"
            }
        return clip_of(from_members(place.key, members, str(place.path)), self.num_frames, self.audio_pool)


_CacheKey = tuple[int, int]


def rank_places(position: int, end: int | None, batch_size: int, rank: int, world_size: int) -> range:
    """The places of the endless sequence that a rank takes in the step beginning at ``position``.

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


def _check_length(directory: Path, manifest: Manifest, num_frames: int) -> None:
    shortest = latent_length(min(entry.shortest for entry in manifest.shards))
    if not 1 <= num_frames <= shortest:
        raise UserError(
            f"num_frames={num_frames} latent frames, but the shortest clip of {directory} has {shortest}: "
            f"use 1 to {shortest}"
        )


def _read_index(directory: Path, entry: ShardEntry) -> list[_Place]:
    path = directory / entry.name
    if not path.is_file():
        raise UserError(f"{path}: the shard is missing; build the dataset again or correct its manifest")
    size = path.stat().st_size
    if size != entry.bytes:
        raise UserError(f"{path}: {size} bytes, its manifest says {entry.bytes}; the shard is damaged, build it again")
    with open(path, "rb") as file:
        places = [_Place(path, key, members) for key, members in iter_groups(file, str(path))]
    if len(places) != entry.count:
        raise UserError(f"{path}: {len(places)} samples, its manifest says {entry.count}; build it again")
    return places
