"""A dataset that was damaged after its build, and inputs that were changed during it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_models import FakeModels, fake_config, shards

from df_data import cli
from df_data.build.build import build
from df_data.build.config import BuildConfig
from df_data.check.validate import check_dataset
from df_data.format.manifest import read_manifest
from df_models.errors import UserError
from df_models.settings import Location

ORDERS = ["ok 1", "ok 3", "reject", "ok 2", "fail", "ok 1", "ok 2", "ok 1"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


@pytest.fixture
def built(tmp_path: Path) -> BuildConfig:
    config = fake_config(tmp_path, ORDERS)
    build(config, make=FakeModels, progress=False)
    return config


def ledger_lines(config: BuildConfig) -> int:
    return len((Path(config.out) / "ledger.jsonl").read_text().splitlines())


@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_shards_that_are_gone_or_cut_are_made_again(built: BuildConfig, damage: Callable[[Path], None]) -> None:
    whole, lines = shards(Path(built.out)), ledger_lines(built)
    name = read_manifest(Path(built.out) / "train").shards[0].name
    damage(Path(built.out) / "train" / name)
    build(built, make=FakeModels, progress=False)
    assert shards(Path(built.out)) == whole and ledger_lines(built) > lines
    assert all(check_dataset(Path(built.out) / split).problems == () for split in ("train", "val"))


def test_changed_bytes_are_found_if_that_is_asked_for(built: BuildConfig) -> None:
    whole = shards(Path(built.out))
    for split in ("train", "val"):
        flip(Path(built.out) / split / read_manifest(Path(built.out) / split).shards[0].name)
    lines = ledger_lines(built)
    build(built, make=FakeModels, progress=False)
    assert shards(Path(built.out)) != whole and ledger_lines(built) == lines, "nothing was read"
    build(built, retry_damaged=True, make=FakeModels, progress=False)
    assert shards(Path(built.out)) == whole


def test_a_repair_that_is_broken_off_goes_on(built: BuildConfig) -> None:
    whole = shards(Path(built.out))
    for entry in read_manifest(Path(built.out) / "train").shards:
        (Path(built.out) / "train" / entry.name).unlink()

    class Broken(FakeModels):
        taken = 0

        def process(self, made):  # type: ignore[no-untyped-def]
            Broken.taken += 1
            if Broken.taken == 3:
                raise KeyboardInterrupt
            yield from super().process(made)

    with pytest.raises(KeyboardInterrupt):
        build(built, make=Broken, progress=False)
    assert not read_manifest(Path(built.out) / "train").complete
    build(built, make=FakeModels, progress=False)
    assert shards(Path(built.out)) == whole


def test_inputs_that_were_changed_are_refused_and_nothing_is_touched(built: BuildConfig, tmp_path: Path) -> None:
    out = Path(built.out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    accepted = next(entry["input"] for entry in entries if entry["status"] == "accepted")
    [path] = tmp_path.rglob(Path(accepted).name)
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match=rf"^{accepted}: the video or its word times were changed"):
        build(built, make=FakeModels, progress=False)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_word_times_are_part_of_an_input(built: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    source = built.sources[0].model_copy(update={"alignments": Location(tmp_path / "words")})
    with_words = built.model_copy(update={"sources": (source,)})
    build(with_words, make=FakeModels, progress=False)  # there are none in it
    for video in (tmp_path / "inputs").iterdir():
        (tmp_path / "words" / f"{video.stem}.align").write_text("0 1 sil\n")
    with pytest.raises(UserError, match="or `alignments`, are others"):
        build(with_words, make=FakeModels, progress=False)
    build(built, make=FakeModels, progress=False)


def test_an_input_that_failed_may_be_mended(built: BuildConfig, tmp_path: Path) -> None:
    entries = [json.loads(line) for line in (Path(built.out) / "ledger.jsonl").read_text().splitlines()]
    failed = next(entry["input"] for entry in entries if entry["status"] == "failed")
    [path] = tmp_path.rglob(Path(failed).name)
    path.write_text("ok 2")
    summary = build(built, retry_failed=True, make=FakeModels, progress=False)
    assert summary.counts["failed"] == 0
    build(built, make=FakeModels, progress=False)


def test_the_command_offers_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["build", "--help"])
    assert "{failed,damaged}" in capsys.readouterr().out
