"""A dataset keeps a held-out split where its held-out inputs are refused, and the sides it once took."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_models import FakeModels, fake_config, shards

from df_data.build.build import BuildSummary, build
from df_data.build.config import BuildConfig
from df_data.build.pool.inline import InlinePool
from df_data.format.ledger import LEDGER_NAME, Ledger
from df_data.format.manifest import read_manifest
from df_data.format.shards import iter_samples
from df_data.sources import duplicates, holdout
from df_data.sources.division import DIVISION_NAME
from df_data.sources.holdout import in_turn
from df_data.sources.listing import grouped, list_inputs, originals
from df_models.errors import UserError


def make(config: BuildConfig, **options: bool) -> BuildSummary:
    return build(config, progress=False, make=FakeModels, **options)


def orders_of(folder: Path, refused: int, inputs: int = 8) -> list[str]:
    """Orders of which the first ``refused`` to be held out are refused; three are held out."""
    config = fake_config(folder / "turns", ["ok 1"] * inputs)
    names = in_turn(originals(grouped(list_inputs(config.sources, config.split), config.split)), config.split, 0)
    bad = {name.removeprefix("s-") for name in itertools.islice(names, refused)}
    return ["reject" if f"{index:03d}" in bad else "ok 1" for index in range(inputs)]


def sources(root: Path, split: str) -> set[str]:
    return {sample.meta.source for sample in iter_samples(root / split)}


@pytest.mark.parametrize(("refused", "asked"), [(2, 3), (3, 4), (5, 6)])
def test_the_next_in_turn_is_held_out_where_all_are_refused(tmp_path: Path, refused: int, asked: int) -> None:
    orders = orders_of(tmp_path, refused)
    summary = make(fake_config(tmp_path, orders))
    root = tmp_path / "set"
    assert len(sources(root, "val")) == 1 and not sources(root, "val") & sources(root, "train")
    assert summary.stand_ins == (() if refused < 3 else tuple(sources(root, "val"))) and not summary.empty
    held = [entry for entry in Ledger(root / LEDGER_NAME).entries.values() if entry.split == "val"]
    assert len(held) == asked and summary.counts["accepted"] == 8 - refused
    made = shards(root)
    assert make(fake_config(tmp_path, orders)).stand_ins == summary.stand_ins and shards(root) == made


def test_files_are_opened_for_their_length_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass opened all those again that were left."""
    opened: list[Path] = []
    monkeypatch.setattr(holdout, "lasts", lambda path: opened.append(path) or 0.0)
    config = fake_config(tmp_path, ["reject"] * 12)
    make(config.model_copy(update={"clips": config.clips.model_copy(update={"val_frames": 33})}))
    assert len(opened) == 12 + 9, "all to choose three, and the others to stand in for them"


def test_the_last_one_is_trained_on_and_the_empty_split_is_told(tmp_path: Path) -> None:
    summary = make(fake_config(tmp_path, orders_of(tmp_path, 7)))
    assert summary.clips == {"train": 1, "val": 0} and summary.empty == ("val",)
    assert "no input of val was accepted, so that split is empty; training cannot be measured: add" in str(summary)


def test_a_build_that_is_stopped_anywhere_holds_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = orders_of(tmp_path, 5)
    make(fake_config(tmp_path / "whole", orders))
    whole, run = shards(tmp_path / "whole/set"), InlinePool.run
    for stop in range(14):  # 5 refusals, 3 samples and their ends
        left = stop

        def stopped(self: InlinePool, todo: list[Any]) -> Iterator[Any]:
            nonlocal left
            for outcome in run(self, todo):
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
                yield outcome

        config = fake_config(tmp_path / str(stop), orders)
        monkeypatch.setattr(InlinePool, "run", stopped)
        try:
            make(config)
        except KeyboardInterrupt:
            assert stop < 11
        monkeypatch.setattr(InlinePool, "run", run)
        make(config)
        assert shards(tmp_path / str(stop) / "set") == whole


def test_what_is_trained_on_is_never_held_out_later(tmp_path: Path) -> None:
    orders = ["ok 1"] * 8
    make(fake_config(tmp_path, orders))
    ledger = Ledger(tmp_path / "set" / LEDGER_NAME)
    held = [entry for entry in ledger.entries.values() if entry.split == "val"]
    refused = [
        entry.model_copy(update={"status": "rejected", "reason": "old", "samples": ()}) for entry in held
    ]  # as an older program left it, which took the others first
    ledger.record(*refused)
    assert make(fake_config(tmp_path, orders)).stand_ins == ()
    assert read_manifest(tmp_path / "set/train").count == 5


def test_parts_leave_it_as_it_is(tmp_path: Path) -> None:
    orders = orders_of(tmp_path, 3)
    summary = make(fake_config(tmp_path, orders, part="1/2", clips_per_shard=1))
    assert not summary.stand_ins and (tmp_path / "set" / DIVISION_NAME).is_file()


def failing(*_: object) -> Any:
    raise OSError(errno.EIO, "Input/output error")


def test_a_file_that_cannot_be_read_for_a_moment_moves_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fake_config(tmp_path, ["ok 1"] * 8)
    inputs = tmp_path / "inputs"
    (inputs / "003.txt").write_bytes((inputs / "002.txt").read_bytes())
    whole = list_inputs(config.sources, config.split, 33)
    assert [made.same_as for made in whole if made.same_as] == ["s/002.txt"]
    monkeypatch.setattr(duplicates, "_ends", failing)
    with pytest.raises(UserError, match=r"002\.txt cannot be read \(Input/output error\), and who is held out depends"):
        make(config)
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    made = shards(tmp_path / "set") if make(config) else {}
    monkeypatch.setattr(duplicates, "_ends", failing)
    monkeypatch.setattr(holdout, "lasts", failing)
    make(config)  # goes on: what it found out at its beginning is kept
    assert shards(tmp_path / "set") == made
    with pytest.raises(UserError, match="Input/output"):  # other inputs, or other settings, are divided anew
        list_inputs(config.sources, config.split.model_copy(update={"val": 2}), 33, tmp_path / "set")


def test_a_damaged_record_of_the_split_is_told(tmp_path: Path) -> None:
    config = fake_config(tmp_path, ["ok 1"] * 4)
    make(config)
    record = tmp_path / "set" / DIVISION_NAME
    kept = json.loads(record.read_text())
    for damaged in ("{", json.dumps(kept | {"val": ["nobody"]}), json.dumps(kept | {"copies": {kept["val"][0]: "x"}})):
        record.write_text(damaged)
        with pytest.raises(UserError, match=r"split\.json is damaged; delete it"):
            make(config)
    record.unlink()
    record.mkdir()
    with pytest.raises(UserError, match=r"split\.json is damaged; delete it"):
        make(config)
