"""A study's steps: planned, hashed, run in order, failed and retried. Commands are stubs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from df_eval.study.config import StudyConfig
from df_eval.study.cost import status_lines
from df_eval.study.paper import protocol
from df_eval.study.perform import Stopping, perform
from df_eval.study.plan import Plan, Step, make_plan, read_plan, write_plan
from df_eval.study.programs import Programs
from df_eval.study.records import RECORD, read_record, state_of
from df_eval.study.run import run_study
from df_models.errors import UserError
from df_models.locks import one_writer
from df_models.settings import validate_config

STUBS = Path(__file__).with_name("study_stubs.py")
PROGRAMS = Programs(*((sys.executable, "-S", str(STUBS), name) for name in ("train", "eval", "corpus")))
CLAIM = {
    "name": "effect",
    "claim": "b is better",
    "metric": "lip_sync",
    "arms": ["b", "a"],
    "margin": 0.05,
    "criterion": "0.05 can be seen",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.json").write_text(json.dumps({"lr": 1}))
    return tmp_path


def study(**changes: Any) -> StudyConfig:
    tree = {
        "name": "s",
        "question": "does it help?",
        "base": "base.json",
        "arms": {"a": {"effect": 0}, "b": {"effect": 0.2}},
        "seeds": [0, 1],
        "hypotheses": [CLAIM],
    }
    return validate_config(StudyConfig, tree | changes)


def run(config: StudyConfig, **options: Any) -> tuple[int, list[str]]:
    said: list[str] = []
    return run_study(config, said.append, programs=PROGRAMS, **options), said


def calls() -> list[str]:
    path = Path("calls.txt")
    return path.read_text().splitlines() if path.is_file() else []


def plan_of(config: StudyConfig) -> Plan:
    return make_plan(config, PROGRAMS)


def test_a_grid_is_the_product_of_its_axes() -> None:
    plan = plan_of(
        study(arms={}, axes={"model.depth": [0, 2], "evaluation.rollout.start": ["noise", "own"]}, hypotheses=[])
    )
    assert [step.arm for step in plan.runs if step.seed == 0] == [
        "depth-0_start-noise",
        "depth-0_start-own",
        "depth-2_start-noise",
        "depth-2_start-own",
    ]
    first, second = plan.runs[:2]
    assert "train" not in second.commands and second.needs == (first.key,), "one training, two ways to generate"
    assert second.commands["evaluate"][len(PROGRAMS.evaluate)] == first.place
    labelled = plan_of(study(arms={}, axes={"clips": {"10": {"data.clips": 10}}}, hypotheses=[]))
    assert labelled.runs[0].arm == "clips-10" and labelled.configs["clips-10"]["data"] == {"clips": 10}


def test_axes_make_names_that_are_directories_and_differ() -> None:
    odd = plan_of(study(arms={}, axes={"../../out of it": {"/up": {"lr": 1}}, "lr": [-1, 1, -0.5]}, hypotheses=[]))
    assert [*dict.fromkeys(step.arm for step in odd.runs)] == [f"out-of-it-up_lr-{n}" for n in ("-1", "1", "-0.5")]
    assert all(Path(step.place).resolve().is_relative_to(Path("studies/s/runs").resolve()) for step in odd.runs)


def test_a_runs_hash_is_of_what_decides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(**changes: Any) -> dict[str, str]:
        return {step.arm: step.key for step in plan_of(study(**changes)).runs}

    first = keys()
    assert keys(out="elsewhere", slots={"count": 2}, question="?") == first, "neither place nor how it is run"
    assert keys(set={"lr": 2}) != first
    changed = keys(arms={"a": {"effect": 0}, "b": {"effect": 0.3}})
    assert changed["a"] == first["a"] and changed["b"] != first["b"]
    assert keys(evaluation={"set": {"clips": 3}})["a"] != first["a"]
    Path("base.json").write_text(json.dumps({"lr": 3}))
    assert keys()["a"] != first["a"], "the base's content, not its name"
    Path("base.json").write_text(json.dumps({"lr": 1}))
    monkeypatch.setattr("df_eval.study.plan.versions", lambda: {"df-train": "9.9"})
    assert keys()["a"] != first["a"]


def test_an_arm_that_needs_another_comes_after_it_and_changes_with_it() -> None:
    arms = {"late": {"start_from": "${arm:early}/model"}, "early": {"effect": 0.1}}
    config = study(arms=arms, hypotheses=[])
    plan = plan_of(config)
    early, late = plan.run("early", 1), plan.run("late", 1)
    assert late.needs == (early.key,) and f'start_from="{early.place}/model"' in late.commands["train"]
    other = plan_of(study(arms=arms | {"early": {"effect": 0.2}}, hypotheses=[])).run("late", 1)
    assert other.key != late.key, "built on another model"
    assert run(config)[0] == 0
    assert state_of(late, Path("studies/s")) == "done"


def test_every_evaluation_may_name_an_arm_whatever_its_path() -> None:
    config = study(
        arms={"from": {}, "b": {"start_from": "${arm:from}"}},
        only_trained=["from"],
        evaluation={"set": {"given": "${arm:from}/model"}},
        out='say "x"',
        hypotheses=[],
    )
    late = plan_of(config).run("b", 0)
    place = json.dumps(plan_of(config).run("from", 0).place)
    assert f"start_from={place}" in late.commands["train"]
    assert f"given={place[:-1]}/model" + '"' in late.commands["evaluate"]


def test_an_arm_is_built_on_the_training_that_another_shares_with_it() -> None:
    arms = {"a": {"effect": 0}, "same": {"effect": 0, "evaluation.bonus": 1}, "b": {"start_from": "${arm:same}/model"}}
    config = study(arms=arms, hypotheses=[], seeds=[0], only_trained=["same"])
    plan = plan_of(config)
    assert plan.run("same", 0).commands == {} and plan.run("same", 0).trained_in == plan.run("a", 0).place
    assert state_of(plan.run("same", 0), Path("studies/s")) == "waiting"
    assert run(config)[0] == 0
    assert sum(line.startswith("train") for line in calls()) == 2


def test_wrong_arms_are_one_line() -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=message):
            plan_of(study(**{"hypotheses": []} | changes))

    refused("circle", arms={"a": {"x": "${arm:b}"}, "b": {"x": "${arm:a}"}})
    refused("which there is not.*did you mean 'first'", arms={"first": {}, "b": {"x": "${arm:frist}"}})
    refused("arm b: .*did you mean 'lr'", arms={"a": {}, "b": {"mistake": 1}})
    refused("run_dir is what the study gives", arms={"a": {"run_dir": "x"}})
    refused("budget.minutes=3", set={"budget.minutes": 3})
    refused(
        "different corpora in data",
        arms={n: {"data.root": "data", "data.synth.clips": c} for n, c in (("a", 1), ("b", 2))},
    )
    refused("which only_trained leaves out", only_trained=["a"], hypotheses=[CLAIM])
    refused("either arms or axes", axes={"lr": [1]})
    refused("name '_x-1'.*another name", arms={}, axes={"_x": {"1": {"lr": 1}}})
    refused("circle: a -> a", arms={"a": {}}, evaluation={"set": {"rollout.from": "${arm:a}"}})
    for change, message in (
        ({"metric": "lipsync"}, "lip_sync"),
        ({"row": "made"}, "no row"),
        ({"frames": 65}, "65 frames"),
    ):
        with pytest.raises(UserError, match=message):
            run(study(hypotheses=[CLAIM | change]))
    assert not Path("studies").exists(), "nothing is fixed by a study that was refused"


def test_done_runs_are_skipped_and_seeds_can_be_added() -> None:
    code, said = run(study())
    assert code == 0 and "4 done" in said[-1]
    before = calls()
    assert len(before) == 8
    assert run(study())[0] == 0 and calls() == before
    assert run(study(seeds=[2]))[0] == 0
    assert len(calls()) == 12 and len(read_plan(Path("studies/s")).runs) == 6, "those of before stay"


def test_what_was_asked_is_fixed() -> None:
    run(study(seeds=[0]))
    for changes, message in (
        ({"arms": {"a": {"effect": 0.1}, "b": {"effect": 0.2}}}, r"arms\.a .*effect"),
        ({"hypotheses": [CLAIM | {"margin": 0.01}]}, r"hypotheses\.effect\.margin \(then 0.05\) is now 0.01"),
        ({"arms": {"b": {"effect": 0.2}, "c": {}}, "hypotheses": []}, "not there any more"),
        ({"set": {"lr": 9}}, "set "),
        ({"arms": {"a": {"effect": 0}, "b": {"effect": 0.2}, "c": {}}}, "the arm c stood not in"),
    ):
        with pytest.raises(UserError, match=message):
            run(study(**{"seeds": [0]} | changes))
    more = study(seeds=[0], arms={"a": {"effect": 0}, "b": {"effect": 0.2}, "c": {}})
    assert run(more, amend="c was forgotten")[0] == 0
    noted = json.loads(Path("studies/s/amendments.json").read_text())
    assert [(entry["text"], entry["added"]) for entry in noted] == [("c was forgotten", ["the arm c"])]
    with pytest.raises(UserError, match="no arm or hypothesis is new"):
        run(more, amend="again")


def test_a_failure_is_a_row_with_its_reason_and_is_retried_only_when_told() -> None:
    arms = {"a": {"effect": 0}, "bad": {"fails": True}, "on-bad": {"start_from": "${arm:bad}/model"}}
    config = study(arms=arms, hypotheses=[], seeds=[0])
    code, said = run(config)
    assert code == 1
    assert any("bad/seed-0" in line and "failed: train: loss is not finite (exit code 1)" in line for line in said)
    assert any(re.search(r"bad/seed-0\S*: train begins, log .*train\.log", line) for line in said)
    assert any(line.startswith("runs: 1 done, 2 failed; report: ") for line in said), "this study has no corpora"
    assert any(re.search(r"bad/seed-0\S* failed; log: .*train\.log", line) for line in said) and "--retry" in said[-1]
    plan = read_plan(Path("studies/s"))
    assert [state_of(step, Path("studies/s")) for step in plan.runs] == ["done", "failed", "failed"]
    assert "needs bad/seed-0" in json.loads((Path(plan.runs[2].place) / RECORD).read_text())["blocked"]
    before = calls()
    assert run(config)[0] == 1 and calls() == before, "not retried silently"
    Path("mended").touch()
    assert run(config)[0] == 1 and calls() == before
    assert run(config, retry=True)[0] == 0
    told = "1 failure before: train: loss is not finite (exit code 1)"
    document = json.loads(Path("studies/s/study.json").read_text())
    assert document["runs"][1]["state"] == "done" and document["runs"][1]["before"] == told
    texts = [Path("studies/s", name).read_text() for name in ("table.md", "report.html")]
    assert all(told in text for text in (*texts, protocol(document), "".join(status_lines(plan))))


def test_shared_corpora_are_made_once_and_first() -> None:
    config = study(set={"data.root": "data", "data.synth.clips": 3}, slots={"count": 2})
    code, said = run(config)
    assert code == 0 and re.match(r"runs: \d+ done; corpora: 1 done; ", said[-1])
    assert calls()[0] == "corpus data" and sum(line.startswith("corpus") for line in calls()) == 1


def test_a_command_that_outlives_its_study_is_waited_for() -> None:
    config = study(seeds=[0], hypotheses=[])
    plan = plan_of(config)
    write_plan_into(plan)
    step = plan.runs[0]
    held = Path(step.place) / ".study-lock"
    held.parent.mkdir(parents=True)
    holder = subprocess.Popen(["flock", str(held), "sleep", "0.5"])
    while not held.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    began = time.monotonic()
    assert perform(step, plan) == "done" and time.monotonic() - began > 0.2
    holder.wait()


def write_plan_into(plan: Plan) -> None:
    Path(plan.directory).mkdir(parents=True)
    write_plan(plan)


def test_told_to_stop_is_no_failure_and_an_empty_success_is_one() -> None:
    config = study(seeds=[0], hypotheses=[], arms={"slow": {"sleep": 30}, "b": {}})
    plan = plan_of(config)
    write_plan_into(plan)
    stopping = Stopping()
    threading.Timer(0.5, stopping.stop).start()
    assert perform(plan.runs[0], plan, stopping=stopping) == "interrupted"
    place = "studies/s/runs/x"
    nothing = Step("x/seed-0-0", place, {"train": [sys.executable, "-S", "-c", ""]}, place, (), "x")
    assert perform(nothing, plan) == "failed"
    assert "is not there" in read_record(nothing, Path("studies/s")).failure
    place = "studies/s/runs/y"
    absent = Step("y/seed-0-0", place, {"train": ["no-such-program"]}, place, (), "y")
    assert perform(absent, plan) == "failed" and "no-such-program" in read_record(absent, Path("studies/s")).failure


def test_two_studies_in_one_place_refuse_each_other() -> None:
    with one_writer(Path("studies/s"), "df-study"), pytest.raises(UserError, match="another process is writing"):
        run(study())


def test_a_directory_of_somebody_else_is_refused() -> None:
    Path("studies/s/runs").mkdir(parents=True)
    with pytest.raises(UserError, match="which df-study did not write"):
        run(study())


def test_slurm_gets_scripts_and_the_next_call_collects() -> None:
    arms = {"a": {"effect": 0}, "b": {"start_from": "${arm:a}/model"}}
    config = study(arms=arms, executor="slurm", hypotheses=[], slurm={"options": {"partition": "gpu"}})
    code, said = run(config)
    assert code == 1 and any("submit.sh" in line for line in said) and calls() == []
    folder = Path("studies/s/slurm")
    first, second = (next(folder.glob(f"level-{level}-*.sbatch")) for level in (0, 1))
    assert "--array=0-1" in first.read_text() and "--partition=gpu" in first.read_text()
    assert "--dependency=afterany:$previous" in (folder / "submit.sh").read_text()
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "0"}
    for script in (first, second):
        subprocess.run(["bash", str(script)], check=True, env=environment)
    assert len(calls()) == 4, "task 0 of each level: its training and its evaluation"
    queued = {path: path.read_text() for path in folder.glob("level-*")}
    assert run(config)[0] == 1
    assert {path: path.read_text() for path in queued} == queued, "what queued arrays will read when they start"
    anew = [path for path in folder.glob("level-0-*.txt") if path not in queued]
    assert [len(path.read_text().splitlines()) for path in anew] == [1], "what is left"
    ended = subprocess.run(["bash", str(first)], check=False, env=os.environ | {"SLURM_ARRAY_TASK_ID": "7"})
    assert ended.returncode != 0, "a task that there is not does not end well"


def test_slurm_lists_what_failed_only_with_retry() -> None:
    config = study(arms={"bad": {"fails": True}, "b": {}}, hypotheses=[], seeds=[0])
    assert run(config)[0] == 1
    slurm, submit = (
        study(arms=dict(config.arms), hypotheses=[], seeds=[0], executor="slurm"),
        "studies/s/slurm/submit.sh",
    )
    assert run(slurm)[0] == 1 and not Path(submit).exists()
    assert run(slurm, retry=True)[0] == 1 and Path(submit).is_file()


@pytest.mark.slow
def test_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (package extra df-eval[ray])")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert run(study(executor="ray", seeds=[0]))[0] == 0
    assert len(calls()) == 4
