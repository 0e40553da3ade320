"""A study from its configuration to its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from df_eval.study.check import check_metrics
from df_eval.study.config import StudyConfig
from df_eval.study.execute import execute, forget_failures
from df_eval.study.freeze import freeze, hold
from df_eval.study.plan import RESOLVED, Plan, Step, known_answers, make_plan, write_plan
from df_eval.study.programs import Programs
from df_eval.study.records import read_record, record_place, state_of
from df_eval.study.report import write_report
from df_eval.study.slurm import write_scripts
from df_models.files import atomic_write, check_owned, mark_owned, remove_leftovers
from df_models.locks import one_writer

WRITTEN = ("study.yaml", "plan.json", "runs", "report.html", "table.md", "study.json", "slurm", "corpora")


def run_study(
    config: StudyConfig,
    say: Callable[[str], None],
    *,
    retry: bool = False,
    amend: str | None = None,
    programs: Programs | None = None,
) -> int:
    """Run what is left of a study and write its report; returns the exit code of `df-study`.

    Args:
        programs: the commands; tests give stubs.

    Raises:
        UserError: the configuration is wrong, asks otherwise than at its first run, or another process runs the study.
    """
    directory = config.directory
    programs = programs or Programs()
    with one_writer(directory, "df-study"):
        check_owned(directory, "df-study", WRITTEN)
        remove_leftovers(directory)
        known = known_answers(directory)
        check_metrics(config, make_plan(config, programs, known))  # before anything is fixed
        mark_owned(directory, "df-study")
        config = freeze(config, amend)
        plan = make_plan(config, programs, known)
        hold(directory, plan.configs, plan.evaluations)
        atomic_write(directory / RESOLVED, json.dumps(known, indent=1) + "\n")
        write_plan(plan)
        if config.executor == "slurm":
            if retry:
                forget_failures(plan)
            script = write_scripts(config, plan)
            if script is not None:
                say(f"submit the runs with: bash {script}")
        else:
            execute(config, plan, say, retry=retry)
        page = write_report(directory)
    states = {step.key: state_of(step, directory) for step in plan.steps}
    say(f"{_counted(plan, states)}; report: {page}")
    for step in plan.steps:
        if states[step.key] == "failed":
            say(f"{step.key} failed; log: {_log(step, directory)}")
    if "failed" in states.values():
        say("failed runs stay as they are; give the same command with --retry to try them again")
    return 0 if set(states.values()) <= {"done"} else 1


def _counted(plan: Plan, states: Mapping[str, str]) -> str:
    """``runs: 5 done, 1 failed; corpora: 1 done``."""
    parts = []
    for what, keys in (
        ("runs", [step.key for step in plan.steps if step.is_run]),
        ("corpora", [step.key for step in plan.steps if not step.is_run]),
    ):
        found = [states[key] for key in keys]
        if found:
            parts.append(f"{what}: " + ", ".join(f"{found.count(state)} {state}" for state in dict.fromkeys(found)))
    return "; ".join(parts)


def _log(step: Step, study: Path) -> str:
    """Of the stage that failed; of one that could not begin, why."""
    record = read_record(step, study)
    failed = [name for name, stage in record.stages.items() if stage.failed]
    return str(record_place(step, study) / f"{failed[0]}.log") if failed else record.failure
