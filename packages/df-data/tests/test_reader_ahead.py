"""Shards are opened before their turn, where that costs no shard in use its place."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from df_data.format.manifest import ShardEntry, read_manifest
from df_data.reading import ShardReader, source
from df_data.reading.options import places_ahead
from df_data.reading.order import SHARDS_MIXED, epoch_order
from df_data.reading.shard import ShardBytes

SHARDS = 3 * SHARDS_MIXED


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, make_split: Any) -> Path:
    root = tmp_path_factory.mktemp("ahead")
    make_split(root, 6 * SHARDS, num_shards=SHARDS)
    return root / "train"


@pytest.fixture
def openers(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name of the thread that opened each shard first."""
    found: dict[str, str] = {}
    opened = source.DirectorySource.open

    def noted(self: source.DirectorySource, entry: ShardEntry) -> ShardBytes:
        found.setdefault(entry.name, threading.current_thread().name)
        return opened(self, entry)

    monkeypatch.setattr(source.DirectorySource, "open", noted)
    return found


def test_the_next_shards_are_open_before_their_turn(split: Path, openers: dict[str, str]) -> None:
    entries = read_manifest(split).shards
    order = epoch_order([entry.count for entry in entries], seed=3, epoch=0)[:, 0].tolist()
    mixed = list(dict.fromkeys(order))[:SHARDS_MIXED]
    before = sum(entries[shard].count for shard in mixed)
    assert set(order[:before]) == set(mixed), "the first shards are read before any other"
    reader = iter(ShardReader(split, batch_size=2, seed=3, num_workers=1, loop=False, cache_bytes=0))
    assert len(list(islice(reader, before // 2 - 4))) == before // 2 - 4
    later = set(openers) - {entries[shard].name for shard in mixed}
    assert len(later) > SHARDS_MIXED // 2
    assert all(openers[name].startswith("shard-opener") for name in later)
    assert sum(len(batch) for batch in reader) == len(order) - 2 * (before // 2 - 4)


def test_nothing_is_opened_ahead_without_threads(split: Path, openers: dict[str, str]) -> None:
    for _ in ShardReader(split, batch_size=4, seed=3, loop=False):
        pass
    assert len(openers) == len(read_manifest(split).shards)
    assert set(openers.values()) == {threading.main_thread().name}


def test_a_small_cache_is_left_to_the_shards_in_use(split: Path) -> None:
    manifest = read_manifest(split)
    mixed = sum(sorted(entry.bytes for entry in manifest.shards)[-SHARDS_MIXED:])
    assert places_ahead(manifest, True, None) == SHARDS_MIXED * manifest.count // len(manifest.shards) // 2
    assert places_ahead(manifest, True, 2 * mixed) == places_ahead(manifest, True, None)
    assert places_ahead(manifest, True, 2 * mixed - 1) == 0
    assert places_ahead(manifest, False, 2 * mixed - 1) > 0


def test_what_is_ahead_but_damaged_is_told_when_its_turn_comes(tmp_path: Path, make_split: Any) -> None:
    manifest = make_split(tmp_path, 6 * SHARDS, num_shards=SHARDS)
    order = epoch_order([entry.count for entry in manifest.shards], seed=0, epoch=0)[:, 0].tolist()
    last = manifest.shards[order[-1]]
    (tmp_path / "train" / last.name).unlink()
    reader = ShardReader(tmp_path / "train", batch_size=1, seed=0, num_workers=2, loop=False, on_error="skip")
    with pytest.warns(UserWarning, match=last.name):
        given = sum(len(batch) for batch in reader)
    assert reader.skipped == {last.name: last.count} and given == manifest.count - last.count
