"""A run and its dataset may be moved: nothing in a run depends on where it lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_infer.run_dir import RunDir, open_run, read_record
from df_infer.run_log import read_log
from df_models.errors import UserError
from df_models.locks import one_writer
from df_train.cli import main
from df_train.config import TrainConfig
from df_train.run import train

Tree = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


@pytest.fixture
def workplace(config_tree: Tree, dataset_at: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `data/random` and a run of 5 steps of 10 on it, named by relative paths."""
    old = tmp_path / "old"
    dataset_at(old / "data" / "random")
    monkeypatch.chdir(old)
    optim = {"steps": 5, "warmup": 2}
    tree = config_tree(Path("runs/a"), data={"root": "data/random"}, optim=optim)
    Path("my.yaml").write_text(json.dumps(tree))
    assert main(["--config", "my.yaml"]) == 0
    return old


def test_a_run_moved_with_its_dataset_goes_on_from_any_directory(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.move(workplace, tmp_path / "new")
    moved = RunDir(tmp_path / "new" / "runs" / "a")
    assert open_run(moved.root).model == moved.model
    assert main(["--config", str(moved.config), "--resume", "optim.steps=8"]) == 0
    assert [line["step"] for line in read_log(moved.metrics)] == [5, 8]
    assert "dataset is found at" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()


def test_a_run_copied_without_its_dataset_finds_it_where_it_was(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = RunDir(tmp_path / "copy" / "a")
    shutil.copytree(workplace / "runs" / "a", copy.root)
    monkeypatch.chdir(tmp_path)
    assert main(["--config", str(copy.config), "--resume", "optim.steps=6"]) == 0
    assert read_log(copy.metrics)[-1]["step"] == 6
    assert read_log(workplace / "runs" / "a" / "metrics.jsonl")[-1]["step"] == 5


def test_another_dataset_in_its_place_is_refused_and_nothing_is_lost(
    workplace: Path, dataset_at: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move("data/random", tmp_path / "set-aside")
    dataset_at(Path("data/random"), train=8)
    before = Path("runs/a/model/model.safetensors").read_bytes()
    assert main(["--config", "my.yaml", "--resume", "optim.steps=8"]) == 2
    error = capsys.readouterr().err.strip()
    assert "another dataset: data/random/train holds 8 other clips" in error and "\n" not in error
    assert Path("runs/a/model/model.safetensors").read_bytes() == before
    assert main(["--config", "my.yaml", "--resume", "optim.steps=8", "--data", str(tmp_path / "set-aside")]) == 0


def test_the_record_knows_what_both_splits_hold(
    make_config: Callable[..., TrainConfig], tmp_path: Path, dataset: Path
) -> None:
    config = make_config(tmp_path / "run", optim={"steps": 3, "warmup": 2})
    train(config)
    record = read_record(RunDir(config.directory).record)
    assert record is not None and record.data_root == str(dataset.resolve()) and set(record.splits) == {"train", "val"}
    assert record.splits["train"] != record.splits["val"]


def test_going_on_compares_the_validation_split_and_remembers_one_that_is_gone(
    workplace: Path, dataset_at: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunDir(Path("runs/a")).record
    before = read_record(record)
    dataset_at(tmp_path / "other", train=8)
    shutil.move("data/random/val", tmp_path / "val")
    shutil.copytree(tmp_path / "other" / "train", "data/random/val")
    go_on = ["--config", "my.yaml", "--resume", "sample.clips=0"]
    assert main([*go_on, "optim.steps=8"]) == 2
    assert "another dataset: data/random/val holds 8 other clips" in capsys.readouterr().err
    assert read_record(record) == before
    shutil.rmtree("data/random/val")
    assert main([*go_on, "optim.steps=6"]) == 0
    after = read_record(record)
    assert before is not None and after is not None and after.splits == before.splits
    assert [change.settings for change in after.changes] == [{"optim.steps": (5, 6)}]


def test_a_mistyped_place_of_the_dataset_is_refused_before_any_work(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typo = tmp_path / "typo"
    assert main(["--config", "my.yaml", "--resume", "optim.steps=8", "--data", str(typo)]) == 2
    error = capsys.readouterr().err.strip()
    assert f"--data {typo}: there is no train/ in it" in error and "\n" not in error
    assert not typo.exists()


def test_fresh_waits_for_an_evaluation_that_is_writing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(Path("runs/a"))
    with one_writer(run.eval, "df-eval"):
        assert main(["--config", "my.yaml", "--fresh"]) == 2
        assert "df-eval" in capsys.readouterr().err
    assert run.finished


def test_going_on_without_a_dataset_says_what_to_do(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move("data/random", tmp_path / "set-aside")
    assert main(["--config", "my.yaml", "--resume", "optim.steps=8"]) == 2
    assert "data.root" in capsys.readouterr().err
    with pytest.raises(UserError):
        open_run("runs/none")
