"""Checkpoints that are written beside training."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from df_infer.run_dir import RunDir, is_model
from df_infer.run_log import read_log
from df_train import cli
from df_train.config import CheckpointConfig, TrainConfig
from df_train.engine import Trainer
from df_train.processes.distributed import open_world
from df_train.run import train
from df_train.saving import checkpoint
from df_train.saving.checkpoint import RankState
from df_train.saving.export import Milestones
from df_train.saving.saves import Saves
from df_train.saving.state import TrainState

MakeConfig = Callable[..., TrainConfig]
AfterSteps = Callable[..., AbstractContextManager[None]]
SLOW = 0.1


def configured(make_config: MakeConfig, run: Path, **saves: Any) -> TrainConfig:
    return make_config(run, optim={"steps": 7, "warmup": 2}, log={"every": 1}, checkpoint={"every": 3, **saves})


@pytest.fixture(scope="module")
def straight(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Seven steps with a checkpoint at 3, 6 and 7, written by the thread that trains."""
    config = configured(make_config, tmp_path_factory.mktemp("runs") / "run", keep=3)
    train(config)
    return config


def digests(config: TrainConfig, step: int) -> dict[str, list[int | str]]:
    """What process 0 wrote of a checkpoint, by the hashes of its files; DCP's index bears a number of its own."""
    path = RunDir(config.directory).checkpoints / f"step-{step}" / "files-0.json"
    return {name: digest for name, digest in json.loads(path.read_text()).items() if not name.endswith(".metadata")}


def test_what_is_written_while_training_goes_on_is_the_step_that_was_saved(
    make_config: MakeConfig,
    tmp_path: Path,
    straight: TrainConfig,
    after_steps: AfterSteps,
    monkeypatch: pytest.MonkeyPatch,
):
    trained_on, write = threading.Event(), checkpoint._save_tensors
    threads: list[str] = []

    def slowly(*given: Any) -> None:
        assert trained_on.wait(60)
        threads.append(threading.current_thread().name)
        write(*given)

    monkeypatch.setattr(checkpoint, "_save_tensors", slowly)
    config = configured(make_config, tmp_path / "run", keep=3, asynchronous=True)

    def whole(trainer: Trainer) -> None:
        assert not (tmp_path / "run" / "checkpoints" / "step-3").exists(), "it cannot have been written yet"
        trained_on.set()

    with after_steps(5, act=whole):
        train(config)
    assert [name.startswith("df-train-saves") for name in threads] == [True] * 3
    for step in (3, 6, 7):
        checkpoint.verify(RunDir(config.directory).checkpoints / f"step-{step}")
        assert digests(config, step) == digests(straight, step), step


def test_the_wait_for_the_last_save_is_counted_and_a_milestone_waits_for_its_own(
    make_config: MakeConfig, tmp_path: Path, straight: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    write, export, finish, whole = checkpoint._save_tensors, Milestones.__call__, Saves.finish, list[bool]()
    waited_for = threading.Event()

    def slowly(*given: Any) -> None:
        assert waited_for.wait(60)
        waited_for.clear()
        time.sleep(SLOW)
        write(*given)

    def waiting(self: Saves) -> None:
        if self._pending is not None:
            waited_for.set()
        finish(self)

    def exported(self: Milestones, training: TrainState) -> None:
        whole.append((tmp_path / "run" / "checkpoints" / f"step-{training.step}" / "trainer.json").exists())
        export(self, training)

    monkeypatch.setattr(checkpoint, "_save_tensors", slowly)
    monkeypatch.setattr(Milestones, "__call__", exported)
    monkeypatch.setattr(Saves, "finish", waiting)
    config = configured(make_config, tmp_path / "run", every=1, asynchronous=True, milestones=[2])
    train(config)
    assert whole == [True]
    lines = read_log(config.directory / "metrics.jsonl")
    waited = {int(line["step"]): line["time/save_seconds"] for line in lines}
    assert waited[3] > 2 * SLOW, "for the save of step 1 and the milestone's own"
    assert waited[6] > SLOW, "the save of step 4 is what that of step 5 waits for"


def test_there_are_never_two_in_the_making_and_an_error_is_told_by_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now, most, go = 0, 0, threading.Event()

    def slowly(root: Path, step: int, **given: Any) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        go.wait(60) if step == 9 else time.sleep(0.02)
        now -= 1
        if step == 9:
            raise OSError("a fault")

    monkeypatch.setattr(checkpoint, "save", slowly)
    settings = CheckpointConfig(asynchronous=True)
    with open_world("cpu") as world, Saves(tmp_path, settings, world) as saves:
        for step in range(10):
            saves.save(step, {"weight": torch.zeros(3)}, RankState({}, {}), {})
        saves.check()  # nothing to tell yet
        go.set()
        while now:
            time.sleep(0.01)
        time.sleep(0.1)
        with pytest.raises(OSError, match="a fault"):
            saves.check()
    assert most == 1


def test_what_ended_training_is_told_before_what_ended_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("a fault")

    monkeypatch.setattr(checkpoint, "save", fails)

    def training(saves: Saves) -> None:
        with saves:
            saves.save(1, {}, RankState({}, {}), {})
            raise ZeroDivisionError

    with open_world("cpu") as world, pytest.raises(ZeroDivisionError):
        training(Saves(tmp_path, CheckpointConfig(asynchronous=True), world))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_signal_during_the_last_save_loses_nothing(
    config_tree: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
):
    """Schedulers send SIGUSR1, then SIGTERM, and do not wait for the first to have had its effect."""
    write = checkpoint._save_tensors

    def told(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SLOW)
        write(*args)

    monkeypatch.setattr(checkpoint, "_save_tensors", told)
    saves = {"every": 100, "asynchronous": asynchronous}
    tree = config_tree(tmp_path / "run", optim={"steps": 3, "warmup": 1}, checkpoint=saves)
    (tmp_path / "c.yaml").write_text(json.dumps(tree))
    assert cli.main(["--config", str(tmp_path / "c.yaml")]) == 0
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-3"]
    assert is_model(tmp_path / "run" / "model")
