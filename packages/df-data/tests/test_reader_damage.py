from __future__ import annotations

import json
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.format.manifest import read_manifest
from df_data.format.shards import iter_shard
from df_data.reading import Batch, ShardReader
from df_models.errors import UserError

CLIPS = 30
SOME = 4
"""A shard with a few samples."""
TENSORS = [field.name for field in fields(Batch) if field.name not in ("keys", "text")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_split: Callable[..., object]) -> Path:
    root = tmp_path_factory.mktemp("whole")
    make_split(root, CLIPS, num_shards=5, frames=9)
    return root / "train"


@pytest.fixture
def split(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "train"))


def reader(split: Path, **options: Any) -> ShardReader:
    return ShardReader(split, **{"batch_size": 3, "seed": 7, "on_error": "skip", **options})


def keys_of(split: Path, shard: int) -> list[str]:
    return [sample.key for sample in iter_shard(split / read_manifest(split).shards[shard].name)]


def flip(path: Path, offset: int, size: int = 4) -> None:
    data = bytearray(path.read_bytes())
    for at in range(offset, offset + size):
        data[at] ^= 0xFF
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def header(path: Path) -> None:
    flip(path, 0)


def empty(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("damage", [remove, cut, header, empty])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_shard_stops_or_is_left_out(split: Path, damage: Callable[[Path], None], num_workers: int) -> None:
    name, lost = read_manifest(split).shards[2].name, set(keys_of(split, 2))
    damage(split / name)
    with pytest.raises(UserError, match=rf"{name}.*(build|remove)"):
        list(islice(reader(split, on_error="stop", num_workers=num_workers), CLIPS))
    source = reader(split, num_workers=num_workers)
    with pytest.warns(UserWarning, match=rf"{name}.*its {len(lost)} samples are left out") as caught:
        batches = list(islice(source, 3 * CLIPS // 3))
    assert len(caught) == 1, "told once"
    assert source.skipped == {name: len(lost)}
    counts = Counter(key for batch in batches for key in batch.keys)
    assert all(len(batch) == 3 for batch in batches)
    assert not lost & set(counts) and len(counts) == CLIPS - len(lost)
    assert min(counts.values()) >= 3, "every good sample comes at its turn in each of three epochs"


@pytest.mark.filterwarnings("ignore:.*left out")
def test_places_are_filled_evenly_even_where_a_whole_run_of_them_is_damaged(split: Path) -> None:
    lost = keys_of(split, 1)
    (split / read_manifest(split).shards[1].name).unlink()
    source = reader(split, shuffle=False)
    counts = Counter(key for batch in islice(source, 20 * CLIPS // 3) for key in batch.keys)
    extra = {key: count - 20 for key, count in counts.items()}
    assert sum(extra.values()) == 20 * len(lost)
    assert max(extra.values()) < 5 * sum(extra.values()) / len(extra)


def damage_samples(split: Path) -> set[str]:
    """Damage one sample's tensors, one's metadata and the length of one's header."""
    path = split / read_manifest(split).shards[SOME].name
    keys, data = keys_of(split, SOME), path.read_bytes()
    flip(path, data.find(f"{keys[0]}.safetensors".encode()) + 512 + 20)
    flip(path, data.find(f"{keys[1]}.json".encode()) + 512)
    flip(path, data.find(f"{keys[2]}.safetensors".encode()) + 512, 8)
    return set(keys[:3])


def test_damaged_samples_are_left_out_one_by_one(split: Path) -> None:
    lost, name = damage_samples(split), read_manifest(split).shards[SOME].name
    source = reader(split)
    with pytest.warns(UserWarning, match=rf"{name}: sample .* the sample is left out") as caught:
        counts = Counter(key for batch in islice(source, CLIPS) for key in batch.keys)
    assert len(caught) == 1 and source.skipped == {name: 3}
    assert len(counts) == CLIPS - 3 and not lost & set(counts)


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_pass_leaves_the_places_empty_and_steps_stay_equal(split: Path, world_size: int) -> None:
    lost = damage_samples(split) | set(keys_of(split, 1))
    (split / read_manifest(split).shards[1].name).unlink()
    for batch_size in (1, 2, 5):
        options = {"batch_size": batch_size, "loop": False, "shuffle": False, "world_size": world_size}
        ranks = [list(reader(split, rank=rank, **options)) for rank in range(world_size)]
        assert world_size == 1 or len({len(batches) for batches in ranks}) == 1
        counts = Counter(key for batches in ranks for batch in batches for key in batch.keys)
        assert len(counts) == CLIPS - len(lost) and not lost & set(counts)
        assert all(len(batch) for batches in ranks for batch in batches)
        assert world_size > 1 or counts.total() == len(counts)


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("world_size", [1, 3])
def test_resume_is_exact_where_samples_are_left_out(split: Path, world_size: int) -> None:
    damage_samples(split)
    (split / read_manifest(split).shards[3].name).unlink()
    rng = random.Random(world_size)
    for rank in range(world_size):
        options = {"rank": rank, "world_size": world_size}
        undisturbed = list(islice(reader(split, **options), 30))
        for _ in range(10):
            stop = rng.randrange(29)
            before, after = (reader(split, num_workers=rng.randrange(3), **options) for _ in range(2))
            list(islice(before, stop))
            after.load_state_dict(json.loads(json.dumps(before.state_dict())))
            batch = next(iter(after))
            assert batch.keys == undisturbed[stop].keys
            assert all(torch.equal(getattr(batch, name), getattr(undisturbed[stop], name)) for name in TENSORS)


@pytest.mark.parametrize("loop", [True, False])
def test_nothing_left_is_an_error_or_an_empty_pass(split: Path, loop: bool) -> None:
    for entry in read_manifest(split).shards:
        (split / entry.name).unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if loop:
            with pytest.raises(UserError, match="all samples of the split are damaged"):
                next(iter(reader(split)))
        else:
            assert list(reader(split, loop=False)) == []
    assert len(caught) == 5


def test_a_changed_byte_of_a_tensor_is_found_by_its_sha256(split: Path) -> None:
    """Nothing but the hash tells one latent from another."""
    entry = read_manifest(split).shards[4]
    path, key = split / entry.name, keys_of(split, 4)[0]
    flip(path, path.read_bytes().find(f"{key}.safetensors".encode()) + 512 + 3000)
    assert len(list(islice(reader(split, on_error="stop"), CLIPS))) == CLIPS
    with pytest.raises(UserError, match=rf"{entry.name}: its sha256"):
        list(islice(reader(split, on_error="stop", verify=True), CLIPS))
    source = reader(split, verify=True)
    with pytest.warns(UserWarning, match=r"its sha256 .* left out"):
        list(islice(source, CLIPS))
    assert source.skipped == {entry.name: entry.count}


def test_buckets_count_what_cannot_be_read_as_the_shortest(tmp_path: Path, make_sample: Callable[..., Any]) -> None:
    from df_data.format.sample import EncoderRecord
    from df_data.format.shards import SplitWriter, staged_shards

    encoders = {"audio": EncoderRecord(id="a", sha256="a")}
    writer = SplitWriter(tmp_path, "train", num_shards=3, build="b", encoders=encoders)
    staged = [writer.stage(make_sample(index, frames=5 + 8 * (index % 2))) for index in range(24)]
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    split = tmp_path / "train"
    state = reader(split, buckets=(2, 4)).state_dict()
    lost, name = set(keys_of(split, 0)), read_manifest(split).shards[0].name
    (split / name).unlink()
    with pytest.raises(UserError, match=name):
        reader(split, buckets=(2, 4), on_error="stop")
    with pytest.warns(UserWarning, match=f"{name}.*left out"):
        source = reader(split, buckets=(2, 4))
    with pytest.raises(UserError, match="buckets"):
        source.load_state_dict(state)
    counts = Counter(key for batch in islice(source, 40) for key in batch.keys)
    assert set(counts) == {s.key for s in staged} - lost
    assert source.skipped == {name: len(lost)}


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_byte_gets_past_unseen_or_crashes(split: Path, seed: int) -> None:
    """Random damage anywhere: a UserError that names the shard, or batches of the right shape and keys."""
    rng = random.Random(seed)
    entries = read_manifest(split).shards
    names = {key: entry.name for i, entry in enumerate(entries) for key in keys_of(split, i)}
    told = []
    for _ in range(25):
        path = split / rng.choice(entries).name
        data = path.read_bytes()
        flip(path, rng.randrange(0, len(data) - 8), rng.choice([1, 2, 8]))
        try:
            for batch in reader(split, on_error="stop", loop=False):
                assert set(batch.keys) <= set(names) and batch.video.shape[1:] == (3, 16, 2, 2)
        except UserError as error:
            told.append((path.name, str(error)))
        path.write_bytes(data)
    assert told and all(name in message for name, message in told)
