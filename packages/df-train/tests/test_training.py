from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from df_infer.run_dir import Changed, RunDir, RunRecord, read_record
from df_infer.run_log import read_log
from df_models import DualForce
from df_models.errors import UserError
from df_models.settings import load_config
from df_train.begin import refuse_untrained
from df_train.config import TrainConfig
from df_train.engine import NotFinite, Stop
from df_train.run import prepare, train
from df_train.saving.aside import set_aside
from df_train.saving.changes import changed_settings, with_changes
from df_train.saving.start import Wish

MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]


def figures(run: Path) -> list[dict[str, float]]:
    """The metrics without what depends on the clock."""
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


@pytest.fixture(scope="module")
def finished(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of 20 steps without a break; log lines straddle the checkpoints."""
    config = make_config(tmp_path_factory.mktemp("runs") / "straight", log={"every": 3})
    result = train(config)
    assert (result.stop, result.step) == (Stop.DONE, 20)
    return config


def test_a_run_leaves_everything_its_readers_need(finished: TrainConfig):
    run = finished.directory
    assert load_config(TrainConfig, run / "config.yaml") == finished
    assert [line["step"] for line in figures(run)] == [3, 6, 9, 12, 15, 18, 20]
    names = set(figures(run)[0])
    assert {"loss", "loss/video", "loss/mouth", "loss/structure", "loss/flame", "lr", "grad_norm"} <= set(
        figures(run)[0]
    )
    assert any(name.startswith("sigma/structure/") for name in names)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-15", "step-20"]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_exported_model_loads_and_carries_the_statistics(finished: TrainConfig):
    model = DualForce.from_pretrained(finished.directory / "model")
    assert model.structure_mean.mean().item() == pytest.approx(3.0, abs=0.5)
    assert model.structure_std.mean().item() == pytest.approx(2.0, abs=0.5)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_training_lowers_the_loss(make_config: MakeConfig, tmp_path: Path):
    settings = {"steps": 40, "lr": 2e-2, "warmup": 2}
    config = make_config(tmp_path / "run", optim=settings, log={"every": 10}, objective={"drop_audio": 0.0})
    train(config)
    lines = figures(config.directory)
    assert lines[-1]["loss/video"] < 0.85 * lines[0]["loss/video"]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": {"bf16": "on"}},
        {"objective": {"history": {"mode": "error_recycling", "error_bank": 8}}},
        {"data": {"accumulate": 2, "num_workers": 2}, "sharding": {"group": "block"}},
    ],
    ids=["bf16", "error_recycling", "accumulate"],
)
def test_a_run_interrupted_and_resumed_equals_one_without_a_break(
    make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any], interrupted_after: Interrupted
):
    settings = {"log": {"every": 4}, "optim": {"steps": 10, "warmup": 2}, **changes}
    straight = make_config(tmp_path / "straight", **settings)
    train(straight)
    broken = make_config(tmp_path / "broken", **settings)
    with interrupted_after(7):
        result = train(broken)
    assert (result.stop, result.step) == (Stop.INTERRUPTED, 7)
    assert not (broken.directory / "model").exists()
    assert train(broken).step == 10
    assert figures(broken.directory) == figures(straight.directory)
    weights = [config.directory / "model" / "model.safetensors" for config in (straight, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_finished_run_is_not_touched_unless_told_to(finished: TrainConfig):
    before = figures(finished.directory)
    with pytest.raises(UserError, match="--fresh"):
        train(finished)
    assert figures(finished.directory) == before


def test_a_finished_run_can_be_trained_further(make_config: MakeConfig, tmp_path: Path):
    train(make_config(tmp_path / "run", optim={"steps": 5, "warmup": 2}))
    assert train(make_config(tmp_path / "run", optim={"steps": 8, "warmup": 2}), "resume").step == 8
    assert [line["step"] for line in figures(tmp_path / "run")] == [5, 8]


def test_fresh_starts_over_and_keeps_what_is_not_the_runs_own(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run", optim={"steps": 5, "warmup": 2})
    train(config)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = figures(tmp_path / "run")
    assert train(config, "fresh").step == 5
    assert figures(tmp_path / "run") == before
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_fresh_with_too_little_time_puts_back_what_was_there(make_config: MakeConfig, tmp_path: Path):
    """A budget is known to be too short only when the first steps were measured."""
    train(make_config(tmp_path / "run", optim={"steps": 5, "warmup": 2}))
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    short = make_config(tmp_path / "run", optim={"steps": 12, "warmup": 2}, budget={"minutes": 0.001})
    with pytest.raises(UserError, match=r"budget.minutes=0.001 is too short"):
        train(short, "fresh")
    after = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    enough = short.model_copy(update={"budget": short.budget.model_copy(update={"minutes": 60.0})})
    assert train(enough, "fresh").step == 12
    assert not (tmp_path / "run" / ".before-fresh").exists() and (tmp_path / "run" / "notes.txt").is_file()


def test_what_a_kill_left_aside_is_settled(make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = make_config(tmp_path / "run", optim={"steps": 5, "warmup": 2})
    train(config)
    run = RunDir(config.directory)
    set_aside(run)
    run.write_record(RunRecord())
    run.metrics.write_text('{"step": 1}\n')  # the new run was killed here
    with pytest.raises(UserError, match="holds a finished run"):
        train(config)
    assert "what was there before is put back" in capsys.readouterr().out
    assert run.finished and [line["step"] for line in figures(run.root)] == [5]


@pytest.mark.parametrize(
    ("changes", "wish", "message"),
    [
        ({}, "default", "holds a finished run"),
        ({"optim": {"steps": 4, "warmup": 2}}, "resume", "is at step 20, beyond optim.steps=4; ask for more steps"),
        ({"seed": 7}, "resume", "trains with seed=0, the config now says 7; take another name="),
    ],
)
def test_what_a_run_in_its_place_forbids_is_told_before_any_work(
    make_config: MakeConfig, finished: TrainConfig, tmp_path: Path, changes: dict[str, Any], wish: Wish, message: str
):
    """`--check` takes this way, and so does a run."""
    shutil.copytree(finished.directory, tmp_path / "run")
    config = make_config(tmp_path / "run", **{"log": {"every": 3}, **changes})
    assert prepare(config, "fresh").seed == config.seed, "another run may take its place"
    with pytest.raises(UserError, match=message):
        prepare(config, wish)


def test_a_run_without_a_checkpoint_is_never_silently_restarted(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run")
    RunDir(config.directory).write_record(RunRecord())
    (config.directory / "metrics.jsonl").write_text('{"step": 4, "loss": 1.0}\n')
    with pytest.raises(UserError, match=r"step 4 .* --fresh"):
        train(config)
    with pytest.raises(UserError, match="nothing to resume"):
        train(config, "resume")


def test_resume_never_refuses_a_run_that_is_there(make_config: MakeConfig, tmp_path: Path, finished: TrainConfig):
    config = make_config(tmp_path / "run", checkpoint={"resume": "never"})
    RunDir(config.directory).write_record(RunRecord())
    (config.directory / "config.yaml").write_text((finished.directory / "config.yaml").read_text())
    with pytest.raises(UserError, match="never"):
        train(config)


def test_another_model_is_not_resumed_into(make_config: MakeConfig, finished: TrainConfig, tiny_model: dict[str, int]):
    changed = {"model": {"overrides": {**tiny_model, "ffn_dim": 64}}}
    with pytest.raises(UserError, match="another name="):
        train(make_config(finished.directory, **changed), "resume")


def test_the_time_limit_ends_a_run_cleanly_with_a_model(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run", max_minutes=1e-6)
    result = train(config)
    assert (result.stop, result.step) == (Stop.TIME, 1)
    assert (config.directory / "model" / "model.safetensors").is_file()


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run", optim={"lr": 1e30, "clip": 1e30, "steps": 20}, log={"every": 1})
    with pytest.raises(NotFinite, match=r"optim\.lr"):
        train(config)
    assert not (config.directory / "model").exists()


def test_a_run_can_start_from_a_saved_model(make_config: MakeConfig, finished: TrainConfig, tmp_path: Path):
    source = str(finished.directory / "model")
    model = {"start_from": source, "overrides": {"sigma_structure_max": 0.5}}
    config = make_config(tmp_path / "on", optim={"lr": 1e-12})
    config = config.model_copy(update={"model": config.model.model_copy(update=model)})
    train(config)
    start, now = DualForce.from_pretrained(source), DualForce.from_pretrained(config.directory / "model")
    assert now.config.sigma_structure_max == 0.5
    assert torch.equal(start.structure_std, now.structure_std)
    now_weights = now.state_dict()
    for name, weight in start.state_dict().items():
        torch.testing.assert_close(now_weights[name], weight, rtol=0, atol=1e-6, msg=name)


def test_a_run_goes_on_without_the_model_that_it_started_from(
    make_config: MakeConfig, finished: TrainConfig, tmp_path: Path, interrupted_after: Interrupted
):
    def made(name: str, source: Path) -> TrainConfig:
        config = make_config(tmp_path / name, optim={"steps": 6, "warmup": 1}, log={"every": 2})
        model = {"start_from": str(source), "overrides": {"sigma_structure_max": 0.5}}
        return config.model_copy(update={"model": config.model.model_copy(update=model)})

    base = Path(shutil.copytree(finished.directory / "model", tmp_path / "base"))
    straight, stopped = made("straight", base), made("stopped", base)
    train(straight)
    with interrupted_after(3):
        train(stopped)
    shutil.rmtree(base)
    assert train(stopped).step == 6
    assert figures(stopped.directory) == figures(straight.directory)
    files = [c.directory / "model" / "model.safetensors" for c in (straight, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert DualForce.from_pretrained(stopped.directory / "model").config.sigma_structure_max == 0.5
    given = {"objective": stopped.objective.model_copy(update={"give_structure": 0.5})}
    longer = {"optim": stopped.optim.model_copy(update={"steps": 7})}
    train(stopped.model_copy(update=given | longer), "resume")
    assert DualForce.from_pretrained(stopped.directory / "model").config.structure_given == "sometimes"
    with pytest.raises(UserError, match="there is no model directory"):
        train(stopped, "fresh")


def test_a_run_that_goes_on_otherwise_says_so_and_keeps_it(
    make_config: MakeConfig, tmp_path: Path, interrupted_after: Interrupted, capsys: pytest.CaptureFixture[str]
):
    def config(rate: float) -> TrainConfig:
        return make_config(tmp_path / "run", optim={"steps": 4, "warmup": 1, "lr": rate})

    with interrupted_after(2, 3):
        train(config(2e-3))
        train(config(1e-5))
        told = capsys.readouterr().out
        train(config(1e-5))
    assert told.count("changed since it stopped: optim.lr 0.002 -> 1e-05 (run.json keeps it)") == 1
    assert "changed since" not in capsys.readouterr().out
    record = read_record(tmp_path / "run" / "run.json")
    assert record is not None and record.changes == (Changed(2, {"optim.lr": (2e-3, 1e-5)}),)


def test_a_section_that_came_is_told_setting_by_setting(make_config: MakeConfig, tmp_path: Path):
    before = make_config(tmp_path / "run")
    now = make_config(tmp_path / "run", profile={"start": 2, "steps": 1})
    found = changed_settings(before, now)
    assert found == {"profile.start": (None, 2), "profile.steps": (None, 1)}


def test_a_directory_of_models_is_no_unfinished_run(tmp_path: Path):
    (tmp_path / "models").mkdir()
    refuse_untrained(str(tmp_path / "models" / "model"))
    RunDir(tmp_path / "models").write_record(RunRecord())
    with pytest.raises(UserError, match="is not finished; let df-train finish it first"):
        refuse_untrained(str(tmp_path / "models" / "model"))


def test_what_is_changed_again_before_a_step_is_one_change():
    past = (Changed(5, {"seed": (0, 1)}), Changed(9, {"optim.lr": (1, 2), "log.every": (5, 6)}))
    again = with_changes(past, 7, {"optim.lr": (2, 3), "log.every": (6, 5)})
    assert again == (past[0], Changed(7, {"optim.lr": (1, 3)}))
    assert with_changes(past, 10, {}) == past


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"audio_width": 32}, "do not fit"),
        ({"flame_dim": 0}, "has weights for"),
        ({"num_layer": 1}, "did you mean 'num_layers'"),
    ],
)
def test_a_start_that_does_not_fit_is_told(
    make_config: MakeConfig, finished: TrainConfig, tmp_path: Path, overrides: dict[str, Any], said: str
):
    config = make_config(tmp_path / "run")
    section = config.model.model_copy(update={"start_from": str(finished.directory / "model"), "overrides": overrides})
    with pytest.raises(UserError, match=said):
        train(config.model_copy(update={"model": section}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"root": "nowhere"}}, "df-data synth"),
        ({"data": {"root": "nowhere"}, "model": {"start_from": "runs/first/model"}}, "no run runs/first"),
        (
            {"model": {"start_from": "runs/first/model"}},
            r"no run runs/first; train the configuration of that name \(first\)",
        ),
        ({"model": {"start_from": "no/model/here"}}, "there is no model directory no/model/here"),
        ({"model": {"preset": "quickstrat"}}, "quickstart"),
        ({"model": {"overrides": {"audio_encoder": "hubert-large"}}}, "audio encoder is logmel"),
        ({"model": {"overrides": {"audio_dim": 100}}}, "audio_dim"),
        ({"sample": {"clips": 1}, "model": {"overrides": {"video_vae": "no-such-vae"}}}, "no-such-vae"),
        ({"data": {"num_frames": 99}}, "99"),
    ],
)
def test_what_cannot_work_is_told(make_config: MakeConfig, tmp_path: Path, changes: dict[str, Any], said: str):
    config = make_config(tmp_path / "run", **changes)
    with pytest.raises(UserError, match=said):
        train(config)


def test_a_full_disk_is_seen_before_any_work(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("df_train.preflight.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="GB are free"):
        train(make_config(tmp_path / "run"))


def test_what_is_computed_anew_changes_no_number(make_config: MakeConfig, tmp_path: Path, finished: TrainConfig):
    """Losses and weights (and so all gradients) bit for bit, in float32 on the CPU."""
    recomputed: list[int] = []
    for wish in ("every", 2):
        config = make_config(tmp_path / str(wish), log={"every": 3}, sharding={"checkpointing": wish})
        recomputed.append(config.sharding.recomputed)
        train(config)
        assert figures(config.directory) == figures(finished.directory)
        files = [c.directory / "model" / "model.safetensors" for c in (config, finished)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert recomputed == [1, 2]
