"""Runs in processes of their own: killed, interrupted, and several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_infer.run_log import read_log
from df_models.settings import dump_config
from df_train.config import TrainConfig

MakeConfig = Callable[..., TrainConfig]

KILLED_AT_13 = """
import os, signal, sys, torch
torch.set_num_threads(1)
from df_train import engine
from df_train.cli import main
step = engine.Trainer.step
def dying(self):
    step(self)
    if self.state.step == 13:
        os.kill(os.getpid(), signal.SIGKILL)
engine.Trainer.step = dying
sys.exit(main(["--config", sys.argv[1]]))
"""


def figures(run: Path) -> list[dict[str, float]]:
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def write(config: TrainConfig, path: Path) -> Path:
    path.write_text(dump_config(config))
    return path


def df_train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "df_train.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=280)


def test_twenty_steps_equal_ten_killed_and_ten_bit_by_bit(make_config: MakeConfig, tmp_path: Path):
    settings: dict[str, Any] = {"log": {"every": 3}}
    straight = make_config(tmp_path / "straight", **settings)
    killed = make_config(tmp_path / "killed", **settings)
    assert df_train("--config", write(straight, tmp_path / "straight.yaml")).returncode == 0
    path = write(killed, tmp_path / "killed.yaml")
    command = [sys.executable, "-c", KILLED_AT_13, str(path)]
    assert subprocess.run(command, capture_output=True, env=environment(), timeout=280).returncode == -signal.SIGKILL
    assert not (killed.directory / "model").exists()
    assert [line["step"] for line in figures(killed.directory)] == [3, 6, 9, 12]
    resumed = df_train("--config", path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stdout + resumed.stderr
    assert "step 10 of 20" in resumed.stdout + resumed.stderr
    assert figures(killed.directory) == figures(straight.directory)
    weights = [config.directory / "model" / "model.safetensors" for config in (straight, killed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_ctrl_c_saves_a_checkpoint_and_exits_130(make_config: MakeConfig, tmp_path: Path):
    config = make_config(tmp_path / "run", optim={"steps": 100_000}, checkpoint={"every": 100_000}, log={"every": 1})
    command = [sys.executable, "-m", "df_train.cli", "--config", str(write(config, tmp_path / "run.yaml"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    deadline = time.monotonic() + 240
    metrics = config.directory / "metrics.jsonl"
    while time.monotonic() < deadline and not (metrics.is_file() and metrics.stat().st_size):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "checkpoint saved" in output
    assert "Traceback" not in errors
    assert [path.name for path in (config.directory / "checkpoints").iterdir()] == [
        f"step-{int(figures(config.directory)[-1]['step'])}"
    ]


ACCELERATE = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"],
    "accelerate": ["-m", "accelerate.commands.launch", *ACCELERATE.split(), "--module"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_two_processes_train_as_one_and_hand_over_to_one(make_config: MakeConfig, tmp_path: Path, launcher: str):
    settings: dict[str, Any] = {"precision": {"bf16": "off"}}
    alone = make_config(tmp_path / "alone", optim={"floor": 1.0}, **settings)
    assert df_train("--config", write(alone, tmp_path / "alone.yaml")).returncode == 0
    half = make_config(tmp_path / "together", optim={"steps": 10, "floor": 1.0}, **settings)
    path = write(half, tmp_path / "half.yaml")
    command = [sys.executable, *LAUNCHERS[launcher], "df_train.cli", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = half.directory / "checkpoints" / "step-10"
    assert {"rank-0.json", "rank-1.json", "files-0.json", "files-1.json"} <= {p.name for p in checkpoint.iterdir()}
    first, other = figures(alone.directory)[0], figures(half.directory)[0]
    assert other["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert other["loss/structure"] == pytest.approx(first["loss/structure"], rel=1e-5)
    assert other["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)
    whole = make_config(tmp_path / "together", optim={"steps": 20, "floor": 1.0}, **settings)
    resumed = df_train("--config", write(whole, tmp_path / "whole.yaml"), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert [line["step"] for line in figures(whole.directory)] == [5, 10, 15, 20]
