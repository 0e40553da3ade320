"""A study from its configuration to its report."""

from __future__ import annotations

import json
from collections.abc import Callable

from df_eval.study.check import check_metrics
from df_eval.study.config import StudyConfig
from df_eval.study.execute import execute, forget_failures
from df_eval.study.freeze import freeze, hold
from df_eval.study.plan import RESOLVED, known_answers, make_plan, write_plan
from df_eval.study.programs import Programs
from df_eval.study.records import state_of
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
    states = [state_of(step, directory) for step in plan.steps]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(f"{counted}; report: {page}")
    return 0 if set(states) <= {"done"} else 1
