"""Reading shards for training: shuffled, split among ranks, resumable to the very next sample.

The samples of a split form one endless sequence: epoch after epoch, each epoch a permutation that depends on (seed,
epoch) alone. Step i of a run on W ranks with batches of B takes places ``i W B .. (i+1) W B`` of it, rank r the r-th B
of them (a batch may hold the end of one epoch and the start of the next). So every sample comes exactly once per epoch,
every rank has the same number of batches, and the whole state is one integer, which a run with another number of ranks
or workers can go on from.

With `buckets` there is such a sequence for each length of clip, and one integer for each. A step takes all its places
from one bucket, the one of which the smallest share of an epoch has been given; that follows from the integers alone,
so all ranks agree and a saved place fits any number of ranks and workers (:mod:`df_data.reading.order`). Every sample
comes exactly once per epoch of its bucket, and the buckets stay within one step of each other.

With ``loop=False`` each iteration is the rest of one epoch. One rank then gives every sample once, the last batch (of
each bucket) being shorter if it must; several ranks share the last step as evenly as they can, and the last few samples
are given twice if there would otherwise be a rank without any (ranks that wait for each other must make the same number
of steps).

With ``on_error="skip"`` the samples of a missing or damaged shard, and single samples that are damaged, are left out.
Their places in an endless sequence are filled: by the first good sample of the same bucket and epoch in an order drawn
by (seed, place). So batches keep their size and their number on every rank, good samples still come at
their own turn, some come once more, and all of it depends on nothing but the seed and which samples are damaged: a run
that is resumed goes on exactly, as long as all ranks see the same shards in the same state. In a pass that ends, the
places are left empty instead (batches are shorter, but with several ranks never empty).
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from df_data.common.hashing import hash_int
from df_data.reading.batch import Batch, Clip, clip_of, collate
from df_data.reading.cache import ShardCache
from df_data.reading.opened import DamagedShard, OpenShards
from df_data.reading.options import (
    ReaderOptions,
    check_room,
    checked_lengths,
    checked_manifest,
    checked_place,
    places_ahead,
)
from df_data.reading.order import Order, Place, Step, buckets_of, next_bucket, others, rank_places
from df_data.reading.shard import is_fetched_through
from df_data.reading.source import Source, is_remote, open_source
from df_models.errors import UserError
from df_models.time import latent_length

__all__ = ["Batch", "Clip", "ReaderOptions", "ShardReader", "rank_places"]


class ShardReader:
    """Iterates over the batches of one split, endlessly or once.

    Args:
        directory: a split's directory, with ``manifest.json``, or a URL or pipe (:mod:`df_data.reading.source`).
        options: how it is read.
        rank, world_size: this process's part.
        fields: fields of :class:`ReaderOptions` by name, in place of `options` or on top of them.

    Attributes:
        skipped: samples left out so far by the name of their shard.

    Raises:
        UserError: no such split, one that is not complete, clips too short for `num_frames` or `buckets`, options that
            do not fit together, or damaged shards (when their turn comes; with `buckets` those that hold clips of
            several lengths are all opened at once).
    """

    def __init__(
        self,
        directory: Path | str,
        options: ReaderOptions | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        **fields: Any,
    ) -> None:
        self.options = options = ReaderOptions(**fields) if options is None else replace(options, **fields)
        if options.batch_size < 1 or not 0 <= rank < world_size:
            raise UserError(
                f"batch_size={options.batch_size}, rank={rank}, world_size={world_size} do not fit together"
            )
        self.directory, self.rank, self.world_size = directory, rank, world_size
        self.recipe = options.recipe
        source, room = self._open(directory)
        self._opens_ahead = places_ahead(self.manifest, options.shuffle, room)
        self._announces_samples = not all(is_fetched_through(entry) for entry in self.manifest.shards)
        self.lengths = checked_lengths(self.manifest, source.where, options.num_frames, options.buckets)
        self.skipped: dict[str, int] = {}
        self._damaged: set[tuple[int, int]] = set()
        self._lock = threading.Lock()
        self._shards = OpenShards(source, self.manifest.shards, options.stream_bytes)
        self._order = self._make_order()
        self._given = (0,) * len(self.lengths)
        self._fingerprint = hash_int(*(entry.sha256 for entry in self.manifest.shards))
        self._cache: OrderedDict[tuple[int, int], Clip] = OrderedDict()
        self._cache_left = options.cache_bytes

    def _open(self, directory: Path | str) -> tuple[Source, int | None]:
        """Read the manifest; return where its shards come from, and the bytes that there is room for (None: all)."""
        options, cache = self.options, None
        if options.cache_dir is not None:
            cache = ShardCache(options.cache_dir, options.cache_dir_bytes, verify=options.verify)
        source = open_source(directory, cache=cache, verify=options.verify)
        self.manifest = checked_manifest(source.manifest(), source.where)
        if not is_remote(directory):
            return source, None
        limit = "stream_bytes" if cache is None else "cache_dir_bytes"
        room: int = getattr(options, limit)
        check_room(self.manifest, options.shuffle, limit, room)
        return source, room

    def __len__(self) -> int:
        """Number of samples in the split."""
        return self.manifest.count

    @property
    def epoch(self) -> int:
        """The epoch that the next batch begins in (with buckets: of the bucket that is least far)."""
        return min(given // size for given, size in zip(self._given, self._order.sizes) if size)

    # -------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch begins, in samples of all ranks together; equal on all ranks."""
        state = {
            "position": sum(self._given),
            "seed": self.options.seed,
            "shuffle": self.options.shuffle,
            "count": self.manifest.count,
            "dataset": self._fingerprint,
        }
        if self._bucketed:
            state |= {"buckets": self._bucket_sizes(), "given": list(self._given)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a saved place, whatever the number of ranks and workers was.

        Raises:
            UserError: the state is of another dataset, another order or other buckets, or is damaged.
        """
        mine = self.state_dict()
        for name in ("seed", "shuffle", "count", "dataset", "buckets"):
            if state.get(name) != mine.get(name):
                raise UserError(
                    f"the saved place is of a reader with {name}={state.get(name)}, this one has {mine.get(name)}: "
                    "the dataset, the seed or the buckets were changed; start a new run"
                )
        self._given = checked_place(state, len(self.lengths))

    @property
    def _bucketed(self) -> bool:
        return len(self.lengths) > 1

    def _bucket_sizes(self) -> dict[str, int]:
        return {str(length): size for length, size in zip(self.lengths, self._order.sizes)}

    # -------------------- steps

    def __iter__(self) -> Iterator[Batch]:
        ends = [None if self.options.loop else (self.epoch + 1) * size for size in self._order.sizes]
        made = self._read_ahead(ends) if self.options.num_workers > 0 else self._read_now(ends)
        for batch in made:
            if batch is not None:
                yield batch

    def _next_step(self, given: Sequence[int], ends: Sequence[int | None]) -> Step | None:
        """The step that comes after ``given`` places of each bucket."""
        bucket = next_bucket(given, self._order.sizes, ends)
        return None if bucket is None else Step(bucket, given[bucket], ends[bucket])

    def _after(self, given: tuple[int, ...], step: Step) -> tuple[int, ...]:
        """How many places of each bucket have been given after a step."""
        following = step.position + self.options.batch_size * self.world_size
        following = following if step.end is None else min(following, step.end)
        return (*given[: step.bucket], following, *given[step.bucket + 1 :])

    def _read_now(self, ends: Sequence[int | None]) -> Iterator[Batch | None]:
        while step := self._next_step(self._given, ends):
            batch = self._batch(step)
            self._given = self._after(self._given, step)
            yield batch

    def _read_ahead(self, ends: Sequence[int | None]) -> Iterator[Batch | None]:
        """As without threads, since a batch depends on its step alone; the state counts only what was given."""
        waiting: deque[tuple[Step, Future[Batch | None]]] = deque()
        ahead = self._given
        with (
            ThreadPoolExecutor(self.options.num_workers, thread_name_prefix="shard-reader") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="shard-opener") as opener,
        ):
            try:
                while True:
                    while len(waiting) < 2 * self.options.num_workers and (step := self._next_step(ahead, ends)):
                        self._announce(step, opener)
                        waiting.append((step, pool.submit(self._batch, step)))
                        ahead = self._after(ahead, step)
                    if not waiting:
                        return
                    step, future = waiting.popleft()
                    batch = future.result()
                    self._given = self._after(self._given, step)
                    yield batch
            finally:
                for _, future in waiting:
                    future.cancel()
                opener.shutdown(wait=False, cancel_futures=True)

    def _announce(self, step: Step, opener: ThreadPoolExecutor) -> None:
        """Have what a step reads fetched from the disk, and the shards opened that are met for the first time later."""
        if self._announces_samples:
            places = rank_places(step.position, step.end, self.options.batch_size, self.rank, self.world_size)
            for shard, index in self._order.samples(step.bucket, places.start, places.stop).tolist():
                self._shards.expect(shard, index)
        if self._opens_ahead:
            first = step.position + self._opens_ahead
            last = first + self.options.batch_size * self.world_size
            last = last if step.end is None else min(last, step.end)
            for shard in np.unique(self._order.samples(step.bucket, first, last)[:, 0]).tolist():
                if not self._shards.is_open(shard):
                    opener.submit(self._shards.open_ahead, shard)

    def _batch(self, step: Step) -> Batch | None:
        """This rank's batch of a step; None if all of it was damaged in a pass that ends, read by one rank."""
        places = rank_places(step.position, step.end, self.options.batch_size, self.rank, self.world_size)
        found = [self._at(step.bucket, place, fill=step.end is None) for place in places]
        if not any(found) and self.world_size > 1:  # other ranks wait for this one
            found = [self._at(step.bucket, places[0], fill=True)]
        good = [item for item in found if item is not None]
        if not good:
            return None
        clips, epochs = zip(*good)
        return collate(clips, epochs, self.lengths[step.bucket], self.recipe)

    # -------------------- samples

    def _at(self, bucket: int, place: int, *, fill: bool) -> tuple[Clip, int] | None:
        """The clip at a place and its epoch; if it is damaged another one, or None unless the place is to be filled."""
        own = self._order.at(bucket, place)
        clip = self._clip(bucket, own)
        if clip is not None or not fill:
            return None if clip is None else (clip, own.epoch)
        size = self._order.sizes[bucket]
        for other in others(size, self.options.seed, bucket, place):
            clip = self._clip(bucket, self._order.at(bucket, own.epoch * size + other))
            if clip is not None:
                return clip, own.epoch
        raise UserError(f"{self.directory}: all samples of {self._bucket_name(bucket)} are damaged; build it again")

    def _bucket_name(self, bucket: int) -> str:
        return f"{self.lengths[bucket]} latent frames" if self._bucketed else "the split"

    def _clip(self, bucket: int, place: Place) -> Clip | None:
        """A clip from memory or its shard; None if it is damaged and such are skipped."""
        key = (place.shard, place.index)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            if key in self._damaged:
                return None
        try:
            raw = self._shards.sample(place.shard, place.index)
            clip = clip_of(raw, self.lengths[bucket] if self.recipe.start == "anchored" else None)
        except UserError as error:
            self._skip(place.shard, place.index, error)
            return None
        self._remember(key, clip)
        return clip

    def _remember(self, key: tuple[int, int], clip: Clip) -> None:
        with self._lock:
            if key not in self._cache:
                self._cache[key] = clip
                self._cache_left -= clip.bytes
            while self._cache_left < 0 and self._cache:
                _, oldest = self._cache.popitem(last=False)
                self._cache_left += oldest.bytes

    def _skip(self, shard: int, index: int, error: UserError) -> None:
        """Count a damaged sample, or all samples of its shard; the first of each shard is told."""
        if self.options.on_error == "stop":
            raise error
        entry = self.manifest.shards[shard]
        whole = isinstance(error, DamagedShard)
        with self._lock:
            first = entry.name not in self.skipped
            self._damaged.update((shard, i) for i in (range(entry.count) if whole else [index]))
            self.skipped[entry.name] = sum(1 for number, _ in self._damaged if number == shard)
        if first:
            what = f"its {entry.count} samples are" if whole else "the sample is"
            warnings.warn(f"{error}; {what} left out", stacklevel=2)

    # -------------------- buckets

    def _make_order(self) -> Order:
        counts = [entry.count for entry in self.manifest.shards]
        bucket_of = [self._buckets_of(shard) for shard in range(len(counts))] if self._bucketed else None
        return Order(
            counts,
            seed=self.options.seed,
            shuffle=self.options.shuffle,
            bucket_of=bucket_of,
            num_buckets=len(self.lengths),
        )

    def _buckets_of(self, shard: int) -> np.ndarray:
        """The bucket of each sample of a shard; what cannot be read counts as the shard's shortest clip."""
        entry = self.manifest.shards[shard]
        edges = np.array([latent_length(entry.shortest), latent_length(entry.longest)])
        first, last = buckets_of(edges, self._bucket_lengths)
        if first == last:
            return np.full(entry.count, first)
        lengths = np.array([self._length(shard, index, edges) for index in range(entry.count)])
        return buckets_of(lengths, self._bucket_lengths)

    @property
    def _bucket_lengths(self) -> list[int]:
        return [length for length in self.lengths if length is not None]

    def _length(self, shard: int, index: int, edges: np.ndarray) -> int:
        """Latent frames of a clip."""
        try:
            length = self._shards.shard(shard).length(index)
            if not edges[0] <= length <= edges[1]:
                name = self.manifest.shards[shard].name
                raise UserError(f"{name}: a clip of {length} latent frames, which its manifest denies; build it again")
            return length
        except UserError as error:
            self._skip(shard, index, error)
            return int(edges[0])
