"""Models that are exported on the way: where they are, that they are whole, and that they are written once."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from df_infer.run_dir import RunDir, open_run
from df_models import DualForce
from df_models.errors import UserError
from df_models.locks import one_writer
from df_models.settings import validate_config
from df_models.text import PROMPT_FILE, Prompt, read_prompt
from df_train.begin import build_model
from df_train.config import CheckpointConfig, TrainConfig
from df_train.figures import planned
from df_train.preflight import check_disk
from df_train.run import train
from df_train.saving import export

MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]
WEIGHTS = "model.safetensors"


def made(make_config: MakeConfig, run: Path, milestones: list[int], **optim: Any) -> TrainConfig:
    settings = {"steps": 7, "warmup": 2, **optim}
    return make_config(run, optim=settings, checkpoint={"every": 100, "milestones": milestones})


def weights(config: TrainConfig, step: int) -> bytes:
    return (RunDir(config.directory).milestone(step) / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def straight(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Seven steps with milestones at 3, at the last step, and beyond it."""
    config = made(make_config, tmp_path_factory.mktemp("runs") / "run", [3, 7, 9])
    train(config)
    return config


def test_a_milestone_is_the_averaged_model_of_its_step(make_config: MakeConfig, tmp_path: Path, straight: TrainConfig):
    run = RunDir(straight.directory)
    assert run.milestone_steps == [3, 7]
    assert not list(run.milestones.glob("*.tmp"))
    assert weights(straight, 7) == (run.model / WEIGHTS).read_bytes() != weights(straight, 3)
    assert DualForce.from_pretrained(run.milestone(3)).has_structure_statistics
    stopped = made(make_config, tmp_path / "short", [], steps=7).model_copy(update={"max_minutes": 1e-9})
    train(stopped)
    first = made(make_config, tmp_path / "first", [1])
    train(first)
    assert weights(first, 1) == (stopped.directory / "model" / WEIGHTS).read_bytes(), "that of a run that ends there"


def test_what_is_not_reached_is_said(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], straight: TrainConfig
):
    profile = {"start": 8, "steps": 1}
    config = make_config(
        tmp_path / "run",
        optim={"steps": 9, "warmup": 2},
        checkpoint={"milestones": [2, 7, 12]},
        profile=profile,
    )
    assert planned.at_the_start(config, 0) == [
        "checkpoint.milestones: the run ends at step 9, so nothing is written at step 12"
    ]
    assert planned.at_the_start(config, 8) == [
        "checkpoint.milestones: the run goes on from step 8, so nothing is written at steps 2, 7",
        "checkpoint.milestones: the run ends at step 9, so nothing is written at step 12",
        "profile.start: the run goes on from step 8, so nothing is written at step 8",
    ]
    assert planned.at_the_end(config, 9) == []
    assert planned.at_the_end(config, 5) == [
        "checkpoint.milestones: the run ended at step 5, before step 7",
        "profile.start: the run ended at step 5, before step 8",
    ]
    assert planned.at_the_start(straight, 7) == [
        "checkpoint.milestones: the run ends at step 7, so nothing is written at step 9"
    ], "those that are there were written"
    stopped = made(make_config, tmp_path / "stopped", [4]).model_copy(update={"max_minutes": 1e-9})
    train(stopped)
    assert "before step 4" in capsys.readouterr().out


def test_a_batch_that_holds_a_clip_twice_is_said(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run")
    size = config.data.batch_size
    assert planned.of_every_step(config, size) == []
    assert planned.of_every_step(config, size - 1) == [
        f"data.batch_size: a step takes {size} clips of {size - 1}, so some come more than once in it"
    ]


def test_a_checkpoint_goes_with_it(straight: TrainConfig):
    assert sorted(path.name for path in RunDir(straight.directory).checkpoints.iterdir()) == ["step-3", "step-7"]


def test_it_can_be_opened_in_place_of_the_final_model(straight: TrainConfig):
    root = straight.directory
    assert open_run(root, 3).model == root / "models" / "step-3"
    assert open_run(root, 3).rollout == open_run(root).rollout
    with pytest.raises(UserError, match=r"no milestone of step 4; there are those of steps 3, 7; without"):
        open_run(root, 4)
    with pytest.raises(UserError, match="only runs have milestones"):
        open_run(root / "model", 3)


def test_what_is_there_is_not_written_again(
    make_config: MakeConfig, tmp_path: Path, interrupted_after: Interrupted, straight: TrainConfig
):
    config = made(make_config, tmp_path / "run", [3])
    with interrupted_after(3, 5):
        train(config)
    file = RunDir(config.directory).milestone(3) / WEIGHTS
    assert file.read_bytes() == weights(straight, 3)
    before = file.stat()
    other = made(make_config, tmp_path / "run", [3], lr=1e-2)
    train(other)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_step_that_is_taken_again_has_its_milestone_written_again(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = made(make_config, tmp_path / "run", [2, 4], steps=4)
    train(config)
    run = RunDir(config.directory)
    first, before = weights(config, 2), weights(config, 4)
    for step in (2, 4):
        run.evaluation(step).mkdir(parents=True)
    (run.checkpoints / "step-4" / "trainer.json").unlink()  # damaged: the run goes back to step 2
    lower = made(make_config, tmp_path / "run", [2, 4], steps=4, lr=1e-2)
    with one_writer(run.evaluation(4), "df-eval"), pytest.raises(UserError, match="another process is writing"):
        train(lower, "resume")
    assert run.milestone_steps == [2, 4], "nothing is removed while one of them is measured"
    train(lower, "resume")
    assert "since it goes on from step 2, are removed: of steps 4" in capsys.readouterr().out
    assert weights(config, 4) != before and weights(config, 2) == first
    assert run.evaluation(2).exists() and not run.evaluation(4).exists(), "what was measured of it went with it"


def test_one_that_a_kill_left_out_is_written_by_the_next_start(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: TrainConfig
):
    config = made(make_config, tmp_path / "run", [3])
    run = RunDir(config.directory)
    rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if Path(target) == run.milestone(3):
            raise SystemExit("killed")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(export.os, "rename", killed)
        with pytest.raises(SystemExit):
            train(config)
    assert run.milestone_steps == [] and not run.milestone(3).exists()
    train(config)
    assert run.milestone_steps == [3] and weights(config, 3) == weights(straight, 3)
    assert [path.name for path in run.milestones.iterdir()] == ["step-3"]


def test_fresh_clears_them(make_config: MakeConfig, tmp_path: Path):
    train(made(make_config, tmp_path / "run", [3]))
    train(made(make_config, tmp_path / "run", []), "fresh")
    assert not (tmp_path / "run" / "models").exists()


def test_fresh_waits_for_nobody_who_measures_one(make_config: MakeConfig, tmp_path: Path):
    config = made(make_config, tmp_path / "run", [3])
    train(config)
    with (
        one_writer(RunDir(config.directory).evaluation(3), "df-eval"),
        pytest.raises(UserError, match="another process is writing"),
    ):
        train(config, "fresh")
    assert RunDir(config.directory).milestone_steps == [3]


def test_the_prompt_goes_beside_it(tmp_path: Path, make_config: MakeConfig):
    model = build_model(make_config(tmp_path / "run"))
    export.write_model(tmp_path / "model", model, Prompt("words", torch.ones(2, 3)))
    assert read_prompt(tmp_path / "model" / PROMPT_FILE).words == "words"
    assert DualForce.from_pretrained(tmp_path / "model").config == model.config


def test_the_disk_has_room_for_those_that_are_missing(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: TrainConfig
):
    model = build_model(straight)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    plain, more = made(make_config, tmp_path / "run", []), made(make_config, tmp_path / "run", [1, 2, 9])
    spare = 200_000_000
    monkeypatch.setattr("df_train.preflight._SPARE_BYTES", spare)
    need = spare + size * (4 * 3 + 1)
    for free, config, fits in ((need, plain, True), (need, more, False), (need + 2 * size, more, True)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("df_train.preflight.shutil.disk_usage", lambda path, usage=usage: usage)
        if fits:
            check_disk(config, model)
        else:
            with pytest.raises(UserError, match=r"checkpoint\.milestones"):
                check_disk(config, model)
    assert export.milestones_to_write(RunDir(straight.directory), (3, 5, 7, 9), 7) == 1


@pytest.mark.parametrize("milestones", [[5, 1], [1, 1], [0, 2]])
def test_steps_must_rise(milestones: list[int]):
    with pytest.raises(UserError, match="rising steps"):
        validate_config(CheckpointConfig, {"milestones": milestones})
