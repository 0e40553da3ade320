"""kill -9 of a whole study at random moments, with and without its commands: in the end it says what it would have."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from killed_study import PROGRAMS, start

from df_eval.study.config import StudyConfig
from df_eval.study.run import run_study
from df_models.settings import validate_config

CLAIM = {"name": "c", "claim": "c", "metric": "lip_sync", "arms": ["b", "a"], "margin": 0.05, "criterion": "c"}
TREE = {
    "name": "s",
    "question": "?",
    "base": "base.json",
    "arms": {"a": {"effect": 0}, "b": {"effect": 0.2}, "on-b": {"start_from": "${arm:b}/model", "effect": 0.1}},
    "slots": {"count": 2},
    "hypotheses": [CLAIM],
}


def commands_of(process: int) -> list[int]:
    """The commands that a study runs just now."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(text) for text in listed.stdout.split()]


def calls() -> list[str]:
    """Commands that really ran."""
    path = Path("calls.txt")
    return path.read_text().splitlines() if path.is_file() else []


def wait_for_a_command(study: BaseProcess) -> None:
    """Until one more has begun to train or to measure, or the study has ended."""
    before = len(calls())
    while len(calls()) == before and study.is_alive():
        time.sleep(0.01)


def killed_at_random(config: StudyConfig, kills: int, seed: int) -> tuple[int, int]:
    """Start a study, kill it, and so on; returns how many kills hit a study at work, and how many commands."""
    chance, hit, commands = random.Random(seed), 0, 0
    for number in range(kills):
        child = start(config, Path.cwd())
        if number % 4 < 2:  # else it may be still planning
            wait_for_a_command(child)
        time.sleep(chance.uniform(0, 0.2))
        hit += child.is_alive()
        commands += kill(child, with_commands=number % 2 == 1)
        child.join()
    return hit, commands


def kill(study: BaseProcess, with_commands: bool) -> int:
    """Kill a study's process group, and its commands, too (a power cut); returns how many commands there were."""
    assert study.pid is not None
    commands = commands_of(study.pid) if with_commands else []
    with contextlib.suppress(ProcessLookupError):  # it has not made itself a group yet
        os.killpg(study.pid, signal.SIGKILL)
    study.kill()
    for command in commands:
        with contextlib.suppress(ProcessLookupError):
            os.kill(command, signal.SIGKILL)
    return len(commands)


def found(config: StudyConfig) -> tuple[dict[str, Any], list[str]]:
    """What a study says when it is done, and the commands that really ran."""
    assert run_study(config, lambda line: None, programs=PROGRAMS) == 0
    document = json.loads((config.directory / "study.json").read_text())
    return {key: document[key] for key in ("tables", "verdicts")}, calls()


@pytest.mark.parametrize(
    ("kills", "seeds", "sleep"), [(8, 2, 0.2), pytest.param(20, 6, 0.4, marks=pytest.mark.slow, id="20 kills")]
)
def test_a_study_killed_at_random_moments_says_what_an_unkilled_one_does(
    kills: int, seeds: int, sleep: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("killed", "twin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "killed")
    tree = TREE | {"seeds": [*range(seeds)]}
    config = validate_config(StudyConfig, tree | {"set": {"sleep": sleep}})
    hit, doubled = killed_at_random(config, kills, seed=0)
    print(
        f"{hit} of {kills} kills hit a study at work, and {doubled} commands; {len(calls())} had begun before the end"
    )
    assert hit >= kills - 2, "it was done long before: make it longer"
    killed, ran = found(config)
    assert doubled and len(ran) - len({*ran}) <= doubled, "only what was killed itself is done again"
    assert len({*ran}) == 2 * seeds * len(TREE["arms"])
    monkeypatch.chdir(tmp_path / "twin")
    assert killed == found(validate_config(StudyConfig, tree | {"set": {"sleep": 0}}))[0]
