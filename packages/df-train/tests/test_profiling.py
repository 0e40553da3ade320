"""Traces of the steps that were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from df_infer.run_dir import RunDir
from df_models.errors import UserError
from df_models.settings import validate_config
from df_train.config import TrainConfig
from df_train.engine import NotFinite, Stop, Trainer
from df_train.preflight import preflight
from df_train.run import train

MakeConfig = Callable[..., TrainConfig]
AfterSteps = Callable[..., AbstractContextManager[None]]
Interrupted = Callable[..., AbstractContextManager[None]]


def made(make_config: MakeConfig, run: Path, **profile: int) -> TrainConfig:
    return make_config(run, optim={"steps": 6, "warmup": 1}, **({"profile": profile} if profile else {}))


def steps_in(run: RunDir) -> list[str]:
    """The steps that the trace holds, by the profiler's own marks."""
    events: list[dict[str, Any]] = json.loads((run.profile / "trace-0.json").read_text())["traceEvents"]
    assert any("mm" in event["name"] for event in events if event.get("cat") == "cpu_op")
    marks = (event["name"] for event in events if event.get("cat") == "user_annotation")
    return sorted(name for name in marks if name.startswith("step "))


def test_nothing_is_profiled_by_default(make_config: MakeConfig, tmp_path: Path):
    assert made(make_config, tmp_path / "run").profile is None
    train(made(make_config, tmp_path / "run"))
    assert not (tmp_path / "run" / "profile").exists()


def test_the_steps_asked_for_are_traced_and_change_no_loss(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain, seen = made(make_config, tmp_path / "plain"), made(make_config, tmp_path / "seen", start=3, steps=2)
    train(plain)
    train(seen)
    run = RunDir(seen.directory)
    assert steps_in(run) == ["step 3", "step 4"]
    assert f"the profile is written: {run.profile / 'trace-0.json'}" in capsys.readouterr().out
    assert [path.name for path in run.profile.iterdir()] == ["trace-0.json"]
    files = [config.directory / "model" / "model.safetensors" for config in (plain, seen)]
    assert files[0].read_bytes() == files[1].read_bytes()
    train(made(make_config, tmp_path / "seen"), "fresh")
    assert not run.profile.exists()


def test_a_run_that_ends_within_them_leaves_what_was_seen(
    make_config: MakeConfig, tmp_path: Path, interrupted_after: Interrupted
):
    config = made(make_config, tmp_path / "run", start=4, steps=9)
    with interrupted_after(4):
        assert train(config).stop is Stop.INTERRUPTED
    run = RunDir(config.directory)
    before = (run.profile / "trace-0.json").read_bytes()
    assert steps_in(run) == ["step 4"]
    train(config)
    assert (run.profile / "trace-0.json").read_bytes() == before, "resumed after its start"


def test_steps_after_the_run_are_refused(make_config: MakeConfig, tmp_path: Path):
    with pytest.raises(UserError, match="the profile begins at step 20, after the run's 6 steps"):
        preflight(made(make_config, tmp_path / "run", start=20, steps=3))


@pytest.mark.parametrize("profile", [{"start": 0}, {"steps": 0}, {"strat": 1}])
def test_what_makes_no_sense_is_refused(make_config: MakeConfig, tmp_path: Path, profile: dict[str, int]):
    tree = made(make_config, tmp_path / "run").model_dump(mode="json")
    with pytest.raises(UserError, match="profile"):
        validate_config(TrainConfig, {**tree, "profile": profile})


def test_a_run_that_fails_within_them_stops_the_profiler(
    make_config: MakeConfig, tmp_path: Path, after_steps: AfterSteps
):

    def fail(trainer: Trainer) -> None:
        raise NotFinite("as it happens")

    with after_steps(4, act=fail), pytest.raises(NotFinite):
        train(made(make_config, tmp_path / "failed", start=3, steps=5))
    assert steps_in(RunDir(tmp_path / "failed")) == ["step 3", "step 4"]
    train(made(make_config, tmp_path / "next", start=3, steps=1))
    assert steps_in(RunDir(tmp_path / "next")) == ["step 3"]
