from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_models.settings import dump_config
from df_train.cli import main, summary, task_of
from df_train.config import TrainConfig
from df_train.engine import Stop
from df_train.run import Result
from df_train.sync import train as sync
from df_train.tokenizer import train as tokenizer

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def written(make_config: MakeConfig, tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(make_config(tmp_path / "run", optim={"steps": 3, "warmup": 1}, log={"every": 1})))
    return path


def test_a_run_ends_by_saying_where_things_are_and_what_comes_next(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["--config", str(written)]) == 0
    told = capsys.readouterr().out
    assert f"loss plot       {tmp_path / 'run' / 'loss.png'}" in told
    assert f"uv run df-eval {tmp_path / 'run'}" in told
    assert main(["--config", str(written)]) == 2
    assert "--fresh" in capsys.readouterr().err


def test_check_does_no_work(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--config", str(written), "--check"]) == 0
    assert "ready" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_check_tells_what_comes_first_and_what_will_not_be(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    corpus = tmp_path / "corpus"
    settings = [f"data.root={corpus}", "data.synth={clips: 5, val_clips: 2, frames: 17, size: 32}"]
    assert main(["--config", str(written), "--check", *settings, "checkpoint.milestones=[99999]"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"{corpus}: the corpus is made first, 5 clips" in told
    assert any(line.startswith("checkpoint.milestones: the run ends at step") for line in told)
    assert not corpus.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optim.lrr=1"], "optim.lr"),
        (["optim.lr"], "key=value"),
        (["task=modell"], "'model'"),
        (["device=cuda"], "CUDA"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(
    written: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--config", str(written), *arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.count("\n") == 0
    assert errors.startswith("df-train: error: ")
    assert said in errors


def test_a_missing_config_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--config", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "df-train" in capsys.readouterr().out


def test_the_task_is_found_in_the_file_what_it_extends_and_the_overrides(tmp_path: Path):
    base, child, plain = tmp_path / "base.yaml", tmp_path / "child.yaml", tmp_path / "plain.yaml"
    base.write_text("task: tokenizer\n")
    child.write_text("extends: base.yaml\n")
    plain.write_text("name: x\n")
    assert task_of(base, []) == "tokenizer"
    assert task_of(child, []) == "tokenizer"
    assert task_of(plain, []) == "model"
    assert task_of(plain, ["optim.lr=1", "task=tokenizer"]) == "tokenizer"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_s_signal_before_training_is_answered_alike(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sent: signal.Signals
):
    def preparing(config: TrainConfig, *_: object) -> TrainConfig:
        os.kill(os.getpid(), sent)
        return config

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    monkeypatch.setattr("df_train.run.prepare", preparing)
    assert main(["--config", str(written)]) == 75
    assert f"ended by {sent.name}; the same command goes on" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_run_that_is_told_to_stop_while_it_makes_samples_is_not_finished(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr("df_train.run.Sampler.write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["--config", str(written)]) == 75
    assert not (tmp_path / "run" / "model").exists()
    assert main(["--config", str(written)]) == 0, "the same command goes on"
    assert (tmp_path / "run" / "model").exists()


def test_what_follows_a_run_from_a_pipe_names_a_directory(tmp_path: Path):
    """df-eval reads held-out clips from directories alone."""
    near, far = (summary(Result(Stop.DONE, 3, 1.0, far=there), tmp_path) for there in (False, True))
    assert f"df-eval {tmp_path} --data DIR" in far and "--data" not in near


@pytest.mark.parametrize(
    ("recipe", "task", "told"),
    [
        (sync, "sync", "objective.sync.expert=runs/x objective.sync.weight=0.3"),
        (tokenizer, "tokenizer", "df-data build --config FILE video_vae=runs/x"),
    ],
)
def test_a_recipe_says_what_follows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: Any,
    task: str,
    told: str,
):
    monkeypatch.setattr(recipe, "train", lambda config, wish: Path("runs/x"))
    (tmp_path / "c.yaml").write_text(f"task: {task}\n")
    assert main(["--config", str(tmp_path / "c.yaml")]) == 0
    assert told in capsys.readouterr().out


def test_the_exit_codes_are_told(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "75 told to stop by a scheduler (SIGTERM, SIGUSR1)" in capsys.readouterr().out


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom df_train.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
