from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.format.shards import iter_samples
from df_data.reading.batch import mouth_mask
from df_data.reading.reader import Batch, ShardReader, rank_places
from df_models.errors import UserError
from df_models.time import pool_audio, to_slots

CLIPS = 23


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, make_split: Callable[..., object]) -> Path:
    root = tmp_path_factory.mktemp("reader")
    make_split(root, CLIPS, num_shards=4)
    return root / "train"


def reader(split: Path, **options: Any) -> ShardReader:
    return ShardReader(split, **{"batch_size": 3, "seed": 7, **options})


def take(source: ShardReader, count: int) -> list[Batch]:
    return list(islice(source, count))


def keys(batches: list[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_sample_once_per_epoch_over_all_ranks(split: Path, world_size: int, num_workers: int) -> None:
    steps = -(-3 * CLIPS // (3 * world_size))
    ranks = [
        take(reader(split, rank=rank, world_size=world_size, num_workers=num_workers), steps)
        for rank in range(world_size)
    ]
    sequence = [key for step in range(steps) for rank in ranks for key in rank[step].keys]
    epochs = [sequence[i * CLIPS : (i + 1) * CLIPS] for i in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == CLIPS
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert all(len(batch) == 3 for rank in ranks for batch in rank)


def assert_equal(a: Batch, b: Batch) -> None:
    assert a.keys == b.keys
    for name in ("sample_ids", "video", "structure", "audio", "reference_latent", "reference_tokens"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.reference_frame, b.reference_frame)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_resume_is_exact_at_random_places_over_three_epochs(split: Path, world_size: int) -> None:
    rng = random.Random(world_size)
    steps = 3 * CLIPS // (3 * world_size) + 4
    for rank in range(world_size):
        undisturbed = take(reader(split, rank=rank, world_size=world_size), steps)
        for _ in range(12):
            stop = rng.randrange(steps - 1)
            before = reader(split, rank=rank, world_size=world_size, num_workers=rng.choice([0, 1, 3]))
            take(before, stop)
            after = reader(split, rank=rank, world_size=world_size, num_workers=rng.choice([0, 2]))
            after.load_state_dict(before.state_dict())
            for expected, batch in zip(undisturbed[stop:], take(after, steps - stop)):
                assert_equal(batch, expected)


def test_resume_with_another_number_of_ranks_loses_nothing(split: Path) -> None:
    first = [take(reader(split, rank=rank, world_size=2), 2) for rank in range(2)]
    one = reader(split, rank=0, world_size=2)
    take(one, 2)
    seen = [key for rank in first for key in keys(rank)]
    later = [reader(split, rank=rank, world_size=3, batch_size=1) for rank in range(3)]
    for rank in later:
        rank.load_state_dict(one.state_dict())
    left = CLIPS - len(seen)
    rest = [key for step in zip(*(take(rank, -(-left // 3)) for rank in later)) for batch in step for key in batch.keys]
    assert sorted(seen + rest[:left]) == sorted({*seen, *rest[:left]})
    assert len(seen + rest[:left]) == CLIPS


def test_state_is_refused_by_another_dataset_or_order(split: Path, tmp_path: Path, make_split: Any) -> None:
    state = reader(split).state_dict()
    for other in (reader(split, seed=8), reader(split, shuffle=False)):
        with pytest.raises(UserError, match="start a new run"):
            other.load_state_dict(state)
    make_split(tmp_path, CLIPS, num_shards=4, frames=9)
    with pytest.raises(UserError, match="dataset"):
        reader(tmp_path / "train").load_state_dict(state)


@pytest.mark.parametrize("place", [None, "x", -5, 1.5, True, [0]])
def test_a_damaged_place_is_refused(split: Path, place: object) -> None:
    for options, name, given in (({}, "position", place), ({"buckets": (1, 2)}, "given", [0, place])):
        source = reader(split, **options)
        state = source.state_dict() | {name: given}
        with pytest.raises(UserError, match=f"{name} is .* instead of a"):
            source.load_state_dict(state)
        del state[name]
        with pytest.raises(UserError, match=f"{name} is None"):
            source.load_state_dict(state)
        assert source.state_dict()["position"] == 0


@pytest.mark.parametrize("name", ["num_workers", "cache_bytes", "cache_dir_bytes", "stream_bytes"])
def test_amounts_below_nothing_are_refused(split: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}=-1: give 0 or more"):
        reader(split, **{name: -1})


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (1, 64), (2, 3), (3, 4), (5, 3), (8, 3), (30, 1)])
def test_one_pass_gives_every_sample_and_equal_steps(split: Path, world_size: int, batch_size: int) -> None:
    ranks = [
        list(reader(split, batch_size=batch_size, rank=rank, world_size=world_size, loop=False, num_workers=rank % 2))
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1, "ranks that wait for each other make equal steps"
    counts = Counter(key for batches in ranks for key in keys(batches))
    assert len(counts) == CLIPS
    assert counts.total() < CLIPS + world_size
    if world_size == 1:
        assert counts.total() == CLIPS


def test_each_pass_without_loop_is_the_next_epoch(split: Path) -> None:
    source = reader(split, loop=False)
    passes = [keys(list(source)) for _ in range(3)]
    assert passes[0] + passes[1] + passes[2] == keys(take(reader(split), 23))
    assert source.epoch == 3
    in_order = reader(split, loop=False, shuffle=False)
    assert keys(list(in_order)) == [sample.key for sample in iter_samples(split)]


def test_rank_places_cover_and_never_leave() -> None:
    for count in range(1, 30):
        for world in (1, 2, 3, 7):
            for batch in (1, 2, 5):
                position, given = 0, set()
                while position < count:
                    parts = [rank_places(position, count, batch, rank, world) for rank in range(world)]
                    assert all(1 <= len(part) <= batch and part.start >= 0 and part.stop <= count for part in parts)
                    given |= {place for part in parts for place in part}
                    position += batch * world
                assert given == set(range(count))


def test_contents_of_a_batch(split: Path) -> None:
    samples = {sample.key: sample for sample in iter_samples(split)}
    first = {0: 0, 1: -1, 4: -1}
    images: Counter[int] = Counter()
    for batch in take(reader(split), 40):
        assert batch.video.dtype == batch.audio.dtype == batch.weight.dtype == torch.float32
        assert batch.sample_ids.dtype == batch.reference_frame.dtype == torch.int64
        for i, key in enumerate(batch.keys):
            tensors = samples[key].tensors
            assert torch.equal(batch.video[i], tensors["video_latent"].float())
            assert torch.equal(batch.structure[i], to_slots(tensors["structure"]))
            assert torch.equal(batch.audio[i], to_slots(pool_audio(tensors["audio"].float(), "concat")))
            assert batch.flame is not None and torch.equal(batch.flame[i], to_slots(tensors["flame"]))
            assert float(batch.weight[i]) == pytest.approx(samples[key].meta.weight)
            match = [torch.equal(batch.reference_latent[i], r.float()) for r in tensors["reference_latents"]]
            pick = match.index(True)
            images[pick] += 1
            assert torch.equal(batch.reference_tokens[i], tensors["reference_features"][pick].float())
            assert int(batch.reference_frame[i]) == first[int(tensors["reference_frames"][pick])]
    assert min(images.values()) > 0.2 * images.total(), "every image is chosen about equally often"


def test_reference_and_ids_change_with_the_epoch_and_not_with_ranks(split: Path) -> None:
    def rows(batches: list[Batch]) -> list[tuple[str, int, tuple[float, ...]]]:
        return [
            (key, int(batch.sample_ids[i]), tuple(batch.reference_latent[i].flatten()[:4].tolist()))
            for batch in batches
            for i, key in enumerate(batch.keys)
        ]

    one = rows(take(reader(split), 2 * CLIPS // 3))
    two = [
        row
        for step in zip(*(take(reader(split, rank=rank, world_size=2), CLIPS // 3) for rank in range(2)))
        for row in rows(list(step))
    ]
    assert one[: len(two)] == two[: len(one)]
    by_key: dict[str, set[int]] = {}
    for key, sample_id, _ in one:
        by_key.setdefault(key, set()).add(sample_id)
    assert max(map(len, by_key.values())) == 2, "a clip has another id in another epoch"


def test_crop_starts_at_the_clip_s_start(split: Path) -> None:
    whole = take(reader(split), 3)
    cut = take(reader(split, num_frames=1), 3)
    for a, b in zip(whole, cut):
        assert b.video.shape[1] == b.structure.shape[1] == b.audio.shape[1] == b.mouth_mask.shape[1] == 1
        assert torch.equal(a.video[:, :1], b.video) and torch.equal(a.audio[:, :1], b.audio)
    with pytest.raises(UserError, match="shortest clip"):
        reader(split, num_frames=3)
    mean = take(reader(split, audio_pool="mean"), 1)[0]
    assert mean.audio.shape[-1] * 2 == whole[0].audio.shape[-1]


def test_mouth_mask_is_the_share_of_each_cell() -> None:
    box = torch.tensor([4.0, 8.0, 20.0, 12.0])
    mask = mouth_mask(box.expand(2, 4, 4), 3, 3)
    assert torch.equal(mask[0], torch.tensor([[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]]))
    outside = mouth_mask(torch.tensor([-50.0, -50.0, 100.0, 100.0]).expand(1, 4, 4), 2, 2)
    assert torch.equal(outside, torch.ones(1, 2, 2))
    moving = torch.stack([box, box + 100, box + 100, box + 100])[None]
    assert torch.equal(mouth_mask(moving, 3, 3)[0], mask[0] / 4)


def test_mixed_lengths_need_num_frames(tmp_path: Path, make_sample: Any) -> None:
    from df_data.format.sample import EncoderRecord
    from df_data.format.shards import SplitWriter

    writer = SplitWriter(
        tmp_path, "train", num_shards=1, build="b", encoders={"audio": EncoderRecord(id="a", sha256="a")}
    )
    staged = [writer.stage(make_sample(index, frames=5 + 4 * (index % 2))) for index in range(6)]
    writer.finish_shard(0, staged)
    with pytest.raises(UserError, match="not complete"):
        reader(tmp_path / "train")
    writer.finish()
    with pytest.raises(UserError, match="set num_frames"):
        take(reader(tmp_path / "train", batch_size=6), 1)
    assert take(reader(tmp_path / "train", batch_size=6, num_frames=2), 1)[0].video.shape[1] == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_shard_is_named(tmp_path: Path, make_split: Any, num_workers: int) -> None:
    make_split(tmp_path, 6, num_shards=1)
    path = tmp_path / "train" / "shard-00000.tar"
    whole = path.read_bytes()
    header = whole.find(b"train-0002.safetensors")
    for damaged in (whole[:-2048], whole[:header] + b"\xff" * 600 + whole[header + 600 :]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"shard-00000\.tar"):
            take(reader(tmp_path / "train", num_workers=num_workers), 2)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        take(reader(tmp_path / "train", num_workers=num_workers), 1)


def test_cache_bounds_memory_and_changes_nothing(split: Path) -> None:
    without = reader(split, cache_bytes=0)
    small = reader(split, cache_bytes=100_000)
    full = reader(split)
    for a, b, c in zip(take(without, 30), take(small, 30), take(full, 30)):
        assert_equal(a, b)
        assert_equal(a, c)
    assert not without._cache
    assert 0 < len(small._cache) < CLIPS
    assert len(full._cache) == CLIPS


def test_a_cached_batch_is_cheap(split: Path) -> None:
    source = reader(split, batch_size=16)
    take(source, 10)
    start = time.thread_time()
    take(source, 50)
    assert (time.thread_time() - start) / 50 < 0.02


def test_the_package_gives_its_reader() -> None:
    import df_data

    assert df_data.ShardReader is ShardReader and df_data.Batch is Batch
    with pytest.raises(AttributeError, match="no attribute 'Reader'"):
        _ = df_data.Reader


def test_bad_arguments(split: Path) -> None:
    for options in ({"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}):
        with pytest.raises(UserError):
            reader(split, **options)
