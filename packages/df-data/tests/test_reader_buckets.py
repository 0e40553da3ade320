from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.format.sample import EncoderRecord
from df_data.format.shards import SplitWriter, iter_samples, staged_shards
from df_data.reading import Batch, ShardReader
from df_models.errors import UserError
from df_models.time import latent_length

FRAMES = (5, 9, 13, 17, 25)
BUCKETS = (2, 3, 5)
CLIPS = 41
TENSORS = [field.name for field in fields(Batch) if field.name not in ("keys", "text")]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, make_sample: Callable[..., Any]) -> Path:
    """41 clips of 2, 3, 4, 5 and 7 latent frames in 5 shards."""
    root = tmp_path_factory.mktemp("buckets")
    encoders = {"audio": EncoderRecord(id="a", sha256="a")}
    writer = SplitWriter(root, "train", num_shards=5, build="b", encoders=encoders)
    staged = [
        writer.stage(make_sample(index, frames=FRAMES[(index + index // 7) % len(FRAMES)])) for index in range(CLIPS)
    ]
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    return root / "train"


@pytest.fixture(scope="module")
def lengths(split: Path) -> dict[str, int]:
    """Key -> latent frames of the bucket that the clip belongs to."""
    whole = {sample.key: latent_length(sample.meta.num_frames) for sample in iter_samples(split)}
    return {key: max(bucket for bucket in BUCKETS if bucket <= length) for key, length in whole.items()}


def reader(split: Path, **options: Any) -> ShardReader:
    return ShardReader(split, **{"batch_size": 2, "seed": 7, "buckets": BUCKETS, **options})


def equal(a: Batch, b: Batch) -> bool:
    return a.keys == b.keys and all(torch.equal(getattr(a, name), getattr(b, name)) for name in TENSORS)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_sample_once_per_epoch_of_its_bucket(split: Path, lengths: dict[str, int], world_size: int) -> None:
    ranks = [list(islice(reader(split, rank=r, world_size=world_size), 200)) for r in range(world_size)]
    given: dict[int, list[str]] = {bucket: [] for bucket in BUCKETS}
    for step in zip(*ranks):
        assert len({batch.video.shape for batch in step}) == 1, "all ranks take a step from one bucket"
        length = step[0].video.shape[1]
        assert len(step[0]) == 2 and step[0].structure.shape[1] == step[0].audio.shape[1] == length
        given[length] += [key for batch in step for key in batch.keys]
    for bucket, keys in given.items():
        mine = {key for key, length in lengths.items() if length == bucket}
        epochs = [keys[start : start + len(mine)] for start in range(0, len(keys), len(mine))]
        assert len(epochs) > 4 and all(set(epoch) == mine for epoch in epochs[:-1])
        assert epochs[0] != epochs[1]


def test_clips_are_cut_at_their_start_to_their_bucket(split: Path) -> None:
    samples = {sample.key: sample for sample in iter_samples(split)}
    for batch in islice(reader(split), 40):
        for i, key in enumerate(batch.keys):
            stored = samples[key].tensors["video_latent"].float()
            assert torch.equal(batch.video[i], stored[: batch.video.shape[1]])
        assert batch.anchored.all()


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_one_pass_gives_every_sample_and_equal_steps(split: Path, lengths: dict[str, int], world_size: int) -> None:
    for batch_size in (1, 3, 64):
        options = {"batch_size": batch_size, "world_size": world_size, "loop": False}
        ranks = [list(reader(split, rank=r, num_workers=r % 2, **options)) for r in range(world_size)]
        assert len({tuple(batch.video.shape[1] for batch in batches) for batches in ranks}) == 1
        counts = Counter(key for batches in ranks for batch in batches for key in batch.keys)
        assert set(counts) == set(lengths)
        assert counts.total() < CLIPS + len(BUCKETS) * world_size
        assert world_size > 1 or counts.total() == CLIPS


def test_passes_go_on_with_the_next_epoch(split: Path, lengths: dict[str, int]) -> None:
    source = reader(split, loop=False)
    passes = [[key for batch in source for key in batch.keys] for _ in range(3)]
    assert all(sorted(keys) == sorted(lengths) for keys in passes)
    assert passes[0] != passes[1] != passes[2]
    assert source.epoch == 3


@pytest.mark.parametrize("start", ["anchored", "marked"])
@pytest.mark.parametrize("buckets", [None, BUCKETS])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_resume_is_exact_at_100_random_places_over_three_epochs(
    split: Path, world_size: int, buckets: tuple[int, ...] | None, start: str
) -> None:
    """100 places in all for each kind of reader, every rank, 0 to 4 workers before and after."""
    options: dict[str, Any] = {"world_size": world_size, "buckets": buckets, "start": start}
    options |= {"num_frames": None if buckets else 2, "drop_audio": 0.3, "drop_reference": 0.3}
    rng = random.Random(world_size)
    steps = 3 * CLIPS // (2 * world_size) + len(BUCKETS)
    for rank in range(world_size):
        undisturbed = list(islice(reader(split, rank=rank, **options), steps + 2))
        for _ in range(25 // world_size + 1):
            stop = rng.randrange(steps)
            before = reader(split, rank=rank, num_workers=rng.randrange(5), **options)
            assert len(list(islice(before, stop))) == stop
            state = json.loads(json.dumps(before.state_dict()))
            after = reader(split, rank=rank, num_workers=rng.randrange(5), **options)
            after.load_state_dict(state)
            for expected in undisturbed[stop : stop + 2]:
                assert equal(next(iter(after)), expected)


def test_other_ranks_and_batches_go_on_where_the_first_stopped(split: Path, lengths: dict[str, int]) -> None:
    rng = random.Random(0)
    for _ in range(10):
        given = {bucket: Counter() for bucket in BUCKETS}
        state = None
        for _ in range(6):
            world, batch_size, steps = rng.randrange(1, 5), rng.randrange(1, 4), rng.randrange(1, 12)
            ranks = [reader(split, rank=r, world_size=world, batch_size=batch_size) for r in range(world)]
            for rank in ranks:
                if state is not None:
                    rank.load_state_dict(state)
                for batch in islice(rank, steps):
                    given[batch.video.shape[1]].update(batch.keys)
            assert len({json.dumps(rank.state_dict()) for rank in ranks}) == 1
            state = ranks[0].state_dict()
        assert state is not None and state["position"] == sum(counts.total() for counts in given.values())
        for bucket, counts in given.items():
            mine = [key for key, length in lengths.items() if length == bucket]
            assert max(counts[key] for key in mine) - min(counts[key] for key in mine) <= 1, "none lost, none twice"


def test_state_of_other_buckets_is_refused(split: Path) -> None:
    state = reader(split).state_dict()
    with pytest.raises(UserError, match="buckets"):
        reader(split, buckets=(2, 5)).load_state_dict(state)
    with pytest.raises(UserError, match="buckets"):
        reader(split, buckets=None, num_frames=2).load_state_dict(state)
    with pytest.raises(UserError, match="buckets"):
        reader(split).load_state_dict(reader(split, buckets=None, num_frames=2).state_dict())


def test_empty_and_single_buckets(split: Path) -> None:
    with_empty = list(islice(reader(split, buckets=(2, 4, 5, 100)), 40))
    assert {batch.video.shape[1] for batch in with_empty} == {2, 4, 5}
    single = islice(reader(split, buckets=(2,)), 30)
    for ours, theirs in zip(single, islice(reader(split, buckets=None, num_frames=2), 30), strict=True):
        assert equal(ours, theirs)


def test_bad_buckets(split: Path) -> None:
    with pytest.raises(UserError, match="no clip is lost"):
        reader(split, buckets=(3, 5))
    with pytest.raises(UserError, match="one of them"):
        reader(split, num_frames=2)
    for buckets in ((), (0, 2)):
        with pytest.raises(UserError, match="at least one latent frame"):
            reader(split, buckets=buckets)
