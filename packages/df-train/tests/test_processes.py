"""Runs in processes of their own: killed, interrupted, and several at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from df_infer.run_log import read_log
from df_models.settings import dump_config
from df_train import engine
from df_train.config import TrainConfig
from df_train.run import train

MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]
Launch = Callable[..., Any]

AFTER_A_STEP = """
import os, signal
from df_train import engine
step = engine.Trainer.step
def acting(self):
    step(self)
    if {when}:
        os.kill(os.getpid(), signal.{sent})
engine.Trainer.step = acting
"""
KILLED_ONCE = f"""
import sys, torch
torch.set_num_threads(1)
{AFTER_A_STEP}
from df_train.cli import main
sys.exit(main(["--config", sys.argv[1]]))
""".format(
    when='self.state.step == 5 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"',
    sent="SIGKILL",
)

DAMAGED = """
from df_train.processes import peers
from df_train.objective import Losses, Objective
measure = Objective.__call__
def damaged(self, model, batch, step, banks):
    losses = measure(self, model, batch, step, banks)
    bad = peers.own_rank() == 1 and step + 1 in (2, 4, 5)
    return Losses(losses.total * float("nan"), losses.terms) if bad else losses
Objective.__call__ = damaged
"""


def figures(run: Path) -> list[dict[str, float]]:
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def write(config: TrainConfig, path: Path) -> Path:
    path.write_text(dump_config(config))
    return path


def test_twenty_steps_equal_ten_killed_and_ten_bit_by_bit(make_config: MakeConfig, launch: Launch, tmp_path: Path):
    settings: dict[str, Any] = {"log": {"every": 3}}
    straight = make_config(tmp_path / "straight", **settings)
    killed = make_config(tmp_path / "killed", **settings)
    assert launch(straight).codes == [0]
    at_13 = AFTER_A_STEP.format(when="self.state.step == 13", sent="SIGKILL")
    assert launch(killed, code=at_13).codes == [-signal.SIGKILL]
    assert not (killed.directory / "model").exists()
    assert [line["step"] for line in figures(killed.directory)] == [3, 6, 9, 12]
    codes, (said,) = launch(killed)
    assert codes == [0], said
    assert "resuming" in said and "step 10 of 20" in said
    assert figures(killed.directory) == figures(straight.directory)
    weights = [config.directory / "model" / "model.safetensors" for config in (straight, killed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_a_signal_saves_a_checkpoint_and_the_exit_code_tells_who_sent_it(
    make_config: MakeConfig, launch: Launch, tmp_path: Path, sent: str, code: int
):
    config = make_config(tmp_path / "run", optim={"steps": 100_000}, checkpoint={"every": 100_000}, log={"every": 1})
    codes, (said,) = launch(config, code=AFTER_A_STEP.format(when="self.state.step == 3", sent=sent))
    assert codes == [code], said
    assert "checkpoint saved" in said
    assert "Traceback" not in said
    assert [path.name for path in (config.directory / "checkpoints").iterdir()] == ["step-3"]
    assert figures(config.directory)[-1]["step"] == 3


LAUNCHERS = Path(__file__).parents[3] / "examples" / "launch"
EXACT: dict[str, Any] = {"precision": {"bf16": "off"}, "log": {"every": 1}, "checkpoint": {"every": 2}}


SRUN = """#!{python}
import os, signal, subprocess, sys
command = [word for word in sys.argv[1:] if not word.startswith("--wait")]
if os.environ.get("ENDS_WITH"):
    sys.exit(int(os.environ["ENDS_WITH"]))
place = {{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}}
ranks = [{{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}} for rank in range(2)]
tasks = [subprocess.Popen(command, env={{**os.environ, **place, **rank}}) for rank in ranks]
codes = [task.wait(300) for task in tasks]
sys.exit(max(128 - code if code < 0 else code for code in codes))  # a signal goes before all codes
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$ASKED"; fi
"""
"""Stand-ins for Slurm's commands: two tasks on this machine."""


def slurm(folder: Path) -> dict[str, str]:
    """The environment of a job."""
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_PORT": str(free.getsockname()[1]), "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "localhost"}
    return {**place, "ASKED": str(folder / "asked"), "NPROC": "2"}


def launched(launcher: str, folder: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script of `examples/launch` with two processes."""
    script = LAUNCHERS / launcher
    command = ["bash", str(script)] if launcher.endswith(".sbatch") else [str(script)]
    around = {**environment(), **slurm(folder), **more}
    around["PATH"] = os.pathsep.join([str(folder), str(Path(sys.executable).parent), around["PATH"]])
    return subprocess.run([*command, *options], capture_output=True, text=True, env=around, timeout=420)


def train_by(launcher: str, config: TrainConfig, path: Path, *options: str) -> None:
    """Train in two processes (one by `plain.sh`)."""
    done = launched(launcher, path.parent, "--config", str(write(config, path)), *options)
    assert done.returncode == 0, done.stderr[-3000:]


def losses_agree(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    """Step by step; two processes add in another order, which the steps carry on."""
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for one, other in zip(found, wanted):
        for name in ("loss", "loss/video", "loss/structure", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-3), (name, one["step"])


@pytest.fixture(scope="module")
def alone(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The figures of six steps in one process."""
    config = make_config(
        tmp_path_factory.mktemp("alone") / "run", optim={"steps": 6, "warmup": 1, "floor": 1.0}, **EXACT
    )
    train(config)
    return figures(config.directory)


@pytest.mark.timeout(900)
def test_two_processes_hand_over_to_one_and_it_to_two(
    make_config: MakeConfig, tmp_path: Path, alone: list[dict[str, float]]
):
    def until(step: int) -> TrainConfig:
        return make_config(tmp_path / "run", optim={"steps": step, "warmup": 1, "floor": 1.0}, **EXACT)

    train_by("torchrun.sh", until(2), tmp_path / "first.yaml")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-2"
    assert {"rank-0.json", "rank-1.json", "files-0.json", "files-1.json"} <= {p.name for p in checkpoint.iterdir()}
    train_by("plain.sh", until(4), tmp_path / "next.yaml", "--resume")
    whole = until(6)
    train_by("slurm.sbatch", whole, tmp_path / "last.yaml", "--resume")
    losses_agree(figures(whole.directory), alone)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("code", "before", "again"),
    [(75, "30", True), (76, "9", True), (137, "0", True), (143, "10", False), (2, "0", False)],
)
def test_slurm_queues_a_job_again_that_goes_on(tmp_path: Path, code: int, before: str, again: bool):
    done = launched("slurm.sbatch", tmp_path, ENDS_WITH=str(code), SLURM_RESTART_COUNT=before)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "asked").exists() == again
    if again:
        assert (tmp_path / "asked").read_text() == "requeue 77\n"


def test_a_launch_by_a_python_without_df_train_is_one_sentence(tmp_path: Path):
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = str(LAUNCHERS / "torchrun.sh")
    done = subprocess.run([script, "--config", "x"], env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    told = "this Python has no df-train with PyTorch (No module named 'torch'); in the workspace say"
    assert done.stderr.strip() == f"{script}: {told}: uv run {script} ..."


@pytest.mark.timeout(600)
def test_torchrun_goes_on_by_itself_when_a_process_is_killed(
    make_config: MakeConfig, tmp_path: Path, alone: list[dict[str, float]]
):
    settings = {**EXACT, "checkpoint": {"every": 2, "asynchronous": True}}
    config = make_config(tmp_path / "run", optim={"steps": 6, "warmup": 1, "floor": 1.0}, **settings)
    (tmp_path / "killed.py").write_text(KILLED_ONCE)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [sys.executable, *launcher, str(tmp_path / "killed.py"), str(write(config, tmp_path / "run.yaml"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=420)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming" in done.stdout + done.stderr
    losses_agree(figures(config.directory), alone)


def test_accelerate_launches_two_that_train_as_one(
    make_config: MakeConfig, tmp_path: Path, alone: list[dict[str, float]]
):
    config = make_config(tmp_path / "run", optim={"steps": 2, "warmup": 1, "floor": 1.0}, **EXACT)
    train_by("accelerate.sh", config, tmp_path / "run.yaml")
    losses_agree(figures(config.directory), alone[:2])


def test_a_run_that_is_interrupted_three_times_is_the_straight_one(
    make_config: MakeConfig, tmp_path: Path, interrupted_after: Interrupted
):
    settings: dict[str, Any] = {"log": {"every": 3}, "optim": {"steps": 9}, "checkpoint": {"every": 100}}
    straight = make_config(tmp_path / "straight", **settings)
    settings["checkpoint"] = {"every": 2, "asynchronous": True}
    broken = make_config(tmp_path / "broken", **settings)
    train(straight)
    with interrupted_after(2, 4, 7):
        assert [train(broken).stop for _ in range(3)] == [engine.Stop.INTERRUPTED] * 3
    assert train(broken).stop is engine.Stop.DONE
    assert figures(broken.directory) == figures(straight.directory)
    weights = [config.directory / "model" / "model.safetensors" for config in (straight, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_both_processes_stop_one_step_after_one_of_them_is_told_to(
    make_config: MakeConfig, launch: Launch, tmp_path: Path
):
    rare = {"log": {"every": 100}, "checkpoint": {"every": 100}}
    config = make_config(tmp_path / "run", optim={"steps": 30, "warmup": 1}, **rare)
    second_at_3 = AFTER_A_STEP.format(when='self.state.step == 3 and os.environ["RANK"] == "1"', sent="SIGTERM")
    codes, said = launch(config, ranks=2, code=second_at_3)
    assert codes == [75, 75], said
    assert "told to stop by a scheduler (step 4" in said[0]
    assert [path.name for path in (config.directory / "checkpoints").iterdir()] == ["step-4"]


def test_both_processes_skip_what_one_of_them_cannot_take(make_config: MakeConfig, launch: Launch, tmp_path: Path):
    settings = {**EXACT, "checkpoint": {"every": 100}}
    config = make_config(tmp_path / "run", optim={"steps": 8, "warmup": 1, "max_skips": 1}, **settings)
    codes, said = launch(config, ranks=2, code=DAMAGED)
    assert 0 not in codes
    told = [line for text in said for line in text.splitlines() if line.startswith("df-train: error: ")]
    assert len(told) == 1, said
    assert "2 steps in a row" in told[0] and "step 5, on the clips of process 0: train-" in told[0]
    assert "; process 1: train-" in told[0]
    lines = figures(config.directory)
    assert [line["optim/skipped"] for line in lines] == [0, 1, 1, 2]
    assert ["loss" in line for line in lines] == [True, False, True, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_exit_code_of_a_process_stands_when_its_launcher_ends_it(number: signal.Signals):
    """torchrun and srun signal the others as soon as one process has ended."""
    program = (
        "import os, sys; from df_train import cli; cli._run = lambda main, argv: 75; code = cli.main(); "
        f"os.kill(os.getpid(), {int(number)}); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**environment(), "WORLD_SIZE": "2"}, timeout=120)
    assert done.returncode == 75
