from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from df_data.format.shards import iter_samples
from df_data.reading import source as sources
from df_data.reading.cache import ShardCache
from df_data.reading.peek import first_samples, manifest_of, split_location
from df_models.errors import UserError


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PAUSE", 0.0)


@pytest.fixture
def root(tmp_path: Path, make_split: Callable[..., object]) -> Path:
    make_split(tmp_path / "data", 7, num_shards=3, video=b"mp4" * 100)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("root", "split"),
    [
        ("data/grid", "data/grid/train"),
        ("data/grid/", "data/grid/train"),
        (Path("/data"), "/data/train"),
        ("file:///data", "/data/train"),
        ("https://host/data/", "https://host/data/train"),
        ("https://host/data/{}?token=a", "https://host/data/train/{}?token=a"),
        ("pipe:aws s3 cp s3://bucket/{} -", "pipe:aws s3 cp s3://bucket/train/{} -"),
    ],
)
def test_a_split_is_found_under_any_root(root: Path | str, split: str) -> None:
    assert split_location(root, "train") == split


@pytest.mark.parametrize("where", ["directory", "pipe", "cache"])
def test_the_first_samples_are_those_of_the_manifest_in_its_order(root: Path, tmp_path: Path, where: str) -> None:
    location = split_location(root if where == "directory" else f"pipe:cat {root}/{{}}", "train")
    cache = ShardCache(tmp_path / "cache", 1 << 30) if where == "cache" else None
    found = list(first_samples(location, cache=cache))
    truth = list(iter_samples(root / "train", video=False))
    assert [sample.key for sample in found] == [sample.key for sample in truth]
    for one, two in zip(found, truth):
        for name in ("audio", "flame", "structure"):
            assert np.array_equal(np.asarray(one.tensors[name]), two.tensors[name].numpy())
    assert manifest_of(location) == manifest_of(root / "train")
    assert len(list((tmp_path / "cache").glob("*.tar"))) == (3 if where == "cache" else 0)


def test_only_shards_that_are_asked_for_are_fetched(root: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 1 << 30)
    next(first_samples(f"pipe:cat {root}/train/{{}}", cache=cache))
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1


def test_damaged_shards_end_it_or_are_passed_over(root: Path) -> None:
    first = manifest_of(root / "train").shards[0]
    (root / "train" / first.name).unlink()
    with pytest.raises(UserError, match="the shard is missing"):
        list(first_samples(root / "train"))
    assert len(list(first_samples(root / "train", skip_damaged=True))) == 7 - first.count


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such dataset directory"):
        manifest_of(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be fetched"):
        manifest_of(f"pipe:cat {tmp_path}/none/{{}}")
