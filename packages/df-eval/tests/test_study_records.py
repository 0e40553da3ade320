"""What is known of a step that was killed, broke, waits or is made again; what a log says. Commands are stubs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from df_eval.study import execute
from df_eval.study.config import StudyConfig
from df_eval.study.cost import cost_line, seconds_of
from df_eval.study.perform import Stopping, last_line, perform
from df_eval.study.plan import Plan, Step, make_plan, read_plan
from df_eval.study.programs import Programs
from df_eval.study.records import HELD, Record, begin, state_of, write_record
from df_eval.study.run import run_study
from df_models.settings import validate_config

STUBS = Path(__file__).with_name("study_stubs.py")
PROGRAMS = Programs(*((sys.executable, "-S", str(STUBS), name) for name in ("train", "eval", "corpus")))
STUDY = Path("studies/s")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyConfig:
    monkeypatch.chdir(tmp_path)
    Path("base.json").write_text("{}")
    arms = {"a": {"effect": 0}, "b": {"effect": 0.2}}
    return validate_config(StudyConfig, {"name": "s", "question": "?", "base": "base.json", "arms": arms, "seeds": [0]})


def run(config: StudyConfig) -> tuple[int, list[str]]:
    said: list[str] = []
    return run_study(config, said.append, programs=PROGRAMS), said


def test_an_attempt_that_nobody_saw_end_has_no_time_of_its_own() -> None:
    place = STUDY / "runs/a/seed-0-0"
    step = Step("a/seed-0-0", str(place), {"train": ["df-train"], "evaluate": ["df-eval"]}, str(place), (), "a")
    record = Record(step.key)
    begin(record, "train", place / "train.log").seconds = 7.0
    begin(record, "evaluate", place / "evaluate.log")
    write_record(record, step, STUDY)
    assert seconds_of(step, STUDY) == {"train": 7.0}, "the evaluation outlived its study: no 0 s"


def test_an_expert_whose_study_was_killed_is_done_by_its_last_checkpoint() -> None:
    place = STUDY / "runs/expert/seed-0-0"
    step = Step("expert/seed-0-0", str(place), {"train": ["df-train"]}, str(place), (), "expert")
    record = Record(step.key)
    begin(record, "train", place / "train.log")
    write_record(record, step, STUDY)
    (place / "expert").mkdir()
    (place / "expert/model.safetensors").touch()
    (place / "config.yaml").write_text("optim: {steps: 4}")
    for saved, state in ((2, "interrupted"), (4, "done")):
        (place / f"checkpoints/step-{saved}").mkdir(parents=True)
        assert state_of(step, STUDY) == "interrupted", "a checkpoint without its trainer.json is not whole"
        (place / f"checkpoints/step-{saved}/trainer.json").touch()
        assert state_of(step, STUDY) == state
    told = cost_line(Plan(str(STUDY), (step,), {}, {}, {}))
    assert told.startswith("spent: not known, without 1 command that outlived a killed df-study; left: nothing")


def test_what_was_measured_of_an_earlier_training_is_measured_again(config: StudyConfig) -> None:
    assert run(config)[0] == 0
    first = read_plan(STUDY).runs[0]
    (Path(first.place) / "model/model.safetensors").unlink()
    assert run(config)[0] == 0
    assert Path("calls.txt").read_text().splitlines()[-2:] == [f"train {first.place}", f"eval {first.place}"]


def test_ctrl_c_does_not_wait_for_a_command_of_a_killed_study(config: StudyConfig) -> None:
    plan, stopping, said = make_plan(config, PROGRAMS), Stopping(), list[str]()
    held = Path(plan.runs[0].place) / HELD
    held.parent.mkdir(parents=True)
    holder = subprocess.Popen(["flock", str(held), "sh", "-c", "echo held; exec sleep 30"], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    threading.Timer(0.5, stopping.stop).start()
    began = time.monotonic()
    assert perform(plan.runs[0], plan, stopping=stopping, say=said.append) == "waiting"
    holder.kill()
    holder.wait()
    assert time.monotonic() - began < 10
    assert said == [f"{plan.runs[0].key}: waits for a command of a study that was killed"]


def test_a_broken_step_is_a_row_and_the_others_go_on(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(step: Step, *told: Any) -> str:
        if step.arm == "a":
            raise OSError("no space left")
        return perform(step, *told)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "perform", broken)
        code, said = run(config)
    assert code == 1 and any("a/seed-0" in line and "OSError: no space left" in line for line in said)
    runs = json.loads((STUDY / "study.json").read_text())["runs"]
    assert [(row["state"], row["why"]) for row in runs] == [("failed", "OSError: no space left"), ("done", "")]
    assert run(config)[0] == 0, "the machine broke, not the run: the next call tries it"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n\n", "b"),
        ("df-train: error: no data\n 40%|####  | 4/10\r 50%|##### | 5/10", "df-train: error: no data"),
        ("loss is not finite\n 40%|####  | 4/10", "loss is not finite"),
        ("ValueError: x\nleaked semaphores", "ValueError: x"),
        (" 40%|####  | 4/10", "40%|####  | 4/10"),
        ("", ""),
    ],
)
def test_a_log_says_its_error_rather_than_its_progress(text: str, line: str) -> None:
    log = Path("x.log")
    log.write_text("error: of an earlier attempt\n" + text)
    assert last_line(log, since=len("error: of an earlier attempt\n")) == line
