"""Several processes of one launch: what the first does alone, and one line for a mistake that all of them meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_models.errors import UserError
from df_train.config import TrainConfig
from df_train.figures.metrics import check_trackers
from df_train.processes import peers

PROCESSES = """
import json, os, sys, time
import torch.distributed as dist
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_train.processes import peers

def main(_):
    case, rank = sys.argv[2], peers.own_rank()
    if case == "slow":
        def work():
            time.sleep(2.0)
            return {"clips": 7}
        print(peers.first_alone(work), peers.first_alone(lambda: rank), dist.is_initialized(), flush=True)
    if case == "all" or (case, rank) in (("second", 1), ("first", 0)):
        raise UserError("a mistake")
    if case == "first":
        peers.first_alone(lambda: None)
    if case == "fault" and rank == 1:
        raise ZeroDivisionError("a fault of the program")
    if case in ("second", "fault"):
        time.sleep(0.5)
        raise RuntimeError("Connection closed by peer")  # what a collective says
    return 0

def process(rank, port, folder):
    launch = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in launch.items()} | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    out = os.open(os.path.join(folder, f"{sys.argv[2]}-{rank}"), os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1), os.dup2(out, 2)
    code = 1
    try:
        code = run_cli(lambda arguments: peers.heard_once(main, arguments), "worker", [])
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        peers.tell_code(code)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)

for sys.argv[2] in sys.argv[2].split(","):
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            process(rank, server.port, sys.argv[1])
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    said = [open(os.path.join(sys.argv[1], f"{sys.argv[2]}-{rank}")).read() for rank in range(2)]
    print(json.dumps([sys.argv[2], codes, said]), flush=True)
"""
"""Two processes for each case, forked so that torch is loaded once, around a store like a launcher's."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[int], list[str]]]:
    """Exit codes and what was said, by case."""
    folder = tmp_path_factory.mktemp("peers")
    command = [sys.executable, "-c", PROCESSES, str(folder), "slow,all,first,second,fault"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return {case: (codes, said) for case, codes, said in map(json.loads, done.stdout.splitlines())}


def test_the_others_wait_for_the_first_without_a_collective(cases: dict[str, tuple[list[int], list[str]]]):
    codes, said = cases["slow"]
    assert codes == [0, 0] and said == ["{'clips': 7} 0 False\n"] * 2


@pytest.mark.parametrize(
    ("case", "line", "code"),
    [
        ("all", "worker: error: a mistake", 2),
        ("first", "worker: error: a mistake", 2),
        ("second", "worker: error: a mistake", 2),
        ("fault", "ZeroDivisionError: a fault of the program", 1),
    ],
)
def test_only_the_first_to_fail_is_heard(
    cases: dict[str, tuple[list[int], list[str]]], case: str, line: str, code: int
):
    codes, said = cases[case]
    assert codes == [code, code]
    assert sorted(text.strip().split("\n")[-1] for text in said) == ["", line]
    assert sum(text.count("Traceback") for text in said) == (1 if case == "fault" else 0)


def test_a_group_that_is_described_in_part_is_refused(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert peers.count() == 1 and peers.own_rank() == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE=2 is set without RANK, MASTER_ADDR, MASTER_PORT; .* torchrun"):
        peers.count()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert peers.count() == 1


def test_the_command_refuses_it_in_one_line(
    make_config: Callable[..., TrainConfig], launch: Callable[..., Any], tmp_path: Path
):
    alone = 'import os; os.environ["WORLD_SIZE"] = "2"'
    codes, (said,) = launch(make_config(tmp_path / "run"), code=alone)
    assert codes == [2]
    assert said.count("\n") == 1 and "WORLD_SIZE=2 is set without RANK" in said


# -------------------- services that figures are sent to


def test_a_service_that_is_not_installed_is_told_before_work(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import importlib.util

    from df_train import run

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("wandb", "tensorboard") else find(name)
    )
    for log in ({"wandb": "offline"}, {"tensorboard": True}):
        config = make_config(tmp_path / "run", log=log)
        with pytest.raises(ModuleNotFoundError) as caught:
            run.train(config)
        assert caught.value.name == ("wandb" if "wandb" in log else "tensorboard")
    assert not (tmp_path / "run").exists()
    check_trackers(make_config(tmp_path / "run").log)


def test_wandb_without_a_key_is_told_before_work(
    make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="there is no key for Weights & Biases; run `wandb login`"):
        check_trackers(make_config(tmp_path / "run", log={"wandb": "online"}).log)
    check_trackers(make_config(tmp_path / "run", log={"wandb": "offline"}).log)
