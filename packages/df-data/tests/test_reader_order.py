from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from df_data.common.hashing import hash_int
from df_data.reading import ShardReader
from df_data.reading.order import Order, buckets_of, epoch_order, next_bucket, others, rank_places

counts_of = st.lists(st.integers(1, 12), min_size=1, max_size=40)


@given(counts_of, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_sample_once_and_is_its_own(counts: list[int], seed: int, epoch: int) -> None:
    order = [tuple(item) for item in epoch_order(counts, seed, epoch).tolist()]
    assert Counter(order) == Counter((shard, i) for shard, count in enumerate(counts) for i in range(count))
    assert order == [tuple(item) for item in epoch_order(counts, seed, epoch).tolist()]


def test_only_a_few_shards_are_mixed_at_a_time() -> None:
    order = epoch_order([10] * 64, 0, 0)
    groups = [set(order[start : start + 160, 0].tolist()) for start in range(0, 640, 160)]
    assert all(len(group) == 16 for group in groups) and set.union(*groups) == set(range(64))
    assert groups[0] != set(range(16))


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    steps=st.lists(st.integers(1, 24), min_size=1, max_size=6),
    rounds=st.integers(1, 200),
)
@settings(max_examples=100, deadline=None)
def test_buckets_run_through_their_epochs_together(sizes: list[int], steps: list[int], rounds: int) -> None:
    """Whatever the sizes, and even if the size of a step changes: no bucket is more than one step ahead."""
    given_places = [0] * len(sizes)
    ends: list[int | None] = [None] * len(sizes)
    for turn in range(rounds):
        step = steps[turn % len(steps)]
        bucket = next_bucket(given_places, sizes, ends)
        assert bucket is not None and sizes[bucket]
        given_places[bucket] += step
    shares = [(places, size) for places, size in zip(given_places, sizes) if size]
    slowest = min(places / size for places, size in shares)
    assert all((places - max(steps)) / size <= slowest + 1e-9 for places, size in shares)


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    batch=st.integers(1, 5),
    world=st.integers(1, 5),
    epoch=st.integers(0, 2),
)
@settings(max_examples=100, deadline=None)
def test_a_pass_gives_each_bucket_whole(sizes: list[int], batch: int, world: int, epoch: int) -> None:
    given_places = [epoch * size for size in sizes]
    ends = [(epoch + 1) * size for size in sizes]
    seen: list[Counter[int]] = [Counter() for _ in sizes]
    while (bucket := next_bucket(given_places, sizes, ends)) is not None:
        for rank in range(world):
            places = rank_places(given_places[bucket], ends[bucket], batch, rank, world)
            assert 1 <= len(places) <= batch, "no rank goes without"
            seen[bucket].update(place % sizes[bucket] for place in places)
        given_places[bucket] = min(given_places[bucket] + batch * world, ends[bucket])
    for size, places in zip(sizes, seen):
        assert set(places) == set(range(size))
        assert places.total() < size + world or size == 0


def test_order_of_buckets_is_the_order_of_all_restricted() -> None:
    counts, rng = [7, 9, 4, 11], np.random.default_rng(0)
    bucket_of = [rng.integers(0, 3, count) for count in counts]
    everything = Order(counts, seed=3, shuffle=True)
    split = Order(counts, seed=3, shuffle=True, bucket_of=bucket_of, num_buckets=3)
    assert sum(split.sizes) == sum(counts) == everything.sizes[0]
    for epoch in range(3):
        whole = [everything.at(0, epoch * 31 + i) for i in range(31)]
        for bucket, size in enumerate(split.sizes):
            mine = [split.at(bucket, epoch * size + i) for i in range(size)]
            assert mine == [place for place in whole if bucket_of[place.shard][place.index] == bucket]


def test_clips_go_to_the_longest_bucket_that_they_fill() -> None:
    lengths = np.array([8, 9, 10, 16, 17, 32, 33, 90])
    assert buckets_of(lengths, (9, 17, 33)).tolist() == [-1, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({}, "2f962644840f87e6"),
        ({"num_frames": 1}, "4b615a46b781da7b"),
        ({"audio_pool": "mean"}, "c21d68f35216be88"),
        ({"rank": 1, "world_size": 3}, "06b0b4d94176c02d"),
        ({"shuffle": False}, "3a0faa412f0857a4"),
        ({"loop": False, "batch_size": 4}, "0ed5f0436cc7b06b"),
        ({"loop": False, "rank": 2, "world_size": 3, "num_workers": 2}, "955a16538f1a858c"),
        ({"seed": 8}, "e4053f68e634d3a5"),
    ],
)
def test_order_ids_and_references_are_those_of_earlier_versions(
    pinned_split: Path, options: dict[str, Any], digest: str
) -> None:
    """A run that was begun with an earlier version must go on with the same batches (digests of version 0.1.0)."""
    found = hashlib.sha256()
    for batch in islice(ShardReader(pinned_split, **{"batch_size": 3, "seed": 7, **options}), 30):
        told = (batch.keys, batch.sample_ids.tolist(), batch.reference_frame.tolist())
        found.update(repr((*told, list(batch.video.shape), list(batch.audio.shape))).encode())
    assert found.hexdigest()[:16] == digest


@pytest.fixture(scope="module")
def pinned_split(tmp_path_factory: pytest.TempPathFactory, make_split: Callable[..., object]) -> Path:
    root = tmp_path_factory.mktemp("pinned")
    make_split(root, 23, num_shards=20)
    return root / "train"


@given(st.integers(1, 500), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_others_are_all_places_in_an_order_of_their_own(size: int, name: int) -> None:
    order = list(others(size, name))
    assert sorted(order) == list(range(size)) and order == list(others(size, name))
    assert size < 20 or order != list(others(size, name + 1))


def test_hash_depends_on_every_value() -> None:
    assert hash_int("a", 1) == hash_int("a", 1)
    assert len({hash_int(*values) for values in [("a", 1), ("a", 2), ("b", 1), ("a1",), (1, "a")]}) == 5
    assert 0 <= hash_int("x") < 2**63
