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

KILLS = 8
CLAIM = {"name": "c", "claim": "c", "metric": "lip_sync", "arms": ["b", "a"], "margin": 0.05, "criterion": "c"}
TREE = {
    "name": "s",
    "question": "?",
    "base": "base.json",
    "set": {"sleep": 0.2},
    "arms": {"a": {"effect": 0}, "b": {"effect": 0.2}, "on-b": {"start_from": "${arm:b}/model", "effect": 0.1}},
    "seeds": [0, 1],
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


def test_a_study_killed_at_random_moments_says_what_an_unkilled_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("killed", "twin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "killed")
    config = validate_config(StudyConfig, TREE)
    chance, doubled = random.Random(0), 0  # commands that were killed themselves
    for number in range(KILLS):
        child = start(config, tmp_path / "killed")
        if number % 4 < 2:  # else it may be still planning
            wait_for_a_command(child)
        time.sleep(chance.uniform(0, 0.2))
        doubled += kill(child, with_commands=number % 2 == 1)
        child.join()
    killed, ran = found(config)
    assert doubled and len(ran) - len({*ran}) <= doubled, "only what was killed itself is done again"
    assert len({*ran}) == 12
    monkeypatch.chdir(tmp_path / "twin")
    assert killed == found(validate_config(StudyConfig, TREE | {"set": {"sleep": 0}}))[0]
