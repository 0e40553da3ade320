"""Scripts to submit by hand: one job array for each level of the plan (what needs nothing, what needs that, ...)."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from df_eval.study.config import StudyConfig
from df_eval.study.execute import to_do
from df_eval.study.plan import Plan, Step
from df_models.files import atomic_write

FOLDER = "slurm"


def levels(plan: Plan) -> list[list[Step]]:
    """Steps that are to be done, so that each needs only those of levels before its own."""
    steps = {step.key: step for step in plan.steps}

    def level(step: Step) -> int:
        return 1 + max((level(steps[needed]) for needed in step.needs), default=-1)

    found: dict[int, list[Step]] = {}
    for step in to_do(plan):
        found.setdefault(level(step), []).append(step)
    return [found[number] for number in sorted(found)]


def write_scripts(config: StudyConfig, plan: Plan) -> Path | None:
    """Write the list of commands and the sbatch script of each level, and `submit.sh`, which submits them in order.

    Lists and scripts are named by their content and stay: arrays submitted before read theirs when they start.

    Returns:
        The path of `submit.sh`; None if nothing is left to do.
    """
    folder = Path(plan.directory) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    found = levels(plan)
    if not found:
        (folder / "submit.sh").unlink(missing_ok=True)
        return None
    submit = [
        "#!/usr/bin/env bash",
        "# Submit all levels of the study; each waits for the one before.",
        "set -euo pipefail",
    ]
    for number, steps in enumerate(found):
        lines = "".join(f"{_command(step, plan)}\n" for step in steps)
        commands = folder / f"level-{number}-{_digest(lines)}.txt"
        atomic_write(commands, lines)
        text = _script(config, number, len(steps), commands)
        script = folder / f"level-{number}-{_digest(text)}.sbatch"
        atomic_write(script, text)
        after = "--dependency=afterany:$previous " if number else ""
        submit.append(f"previous=$(sbatch --parsable {after}{shlex.quote(str(script.absolute()))})")
    submit.append('echo "submitted; when all is done, give the df-study command again: it collects"')
    atomic_write(folder / "submit.sh", "\n".join(submit) + "\n")
    return folder / "submit.sh"


def _command(step: Step, plan: Plan) -> str:
    return shlex.join([sys.executable, "-m", "df_eval.study.perform", plan.directory, step.key])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _script(config: StudyConfig, number: int, count: int, commands: Path) -> str:
    options: Mapping[str, str] = {
        "job-name": f"{config.name}-{number}",
        "array": f"0-{count - 1}",
        "output": str(commands.absolute().with_name(f"level-{number}-%A-%a.out")),
        "chdir": str(Path.cwd()),
        "cpus-per-task": str(config.slots.threads),
    } | config.slurm.options
    lines = ["#!/usr/bin/env bash", *(f"#SBATCH --{name}={value}" for name, value in options.items())]
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    lines += [f"export {name}={config.slots.threads}" for name in threads]
    lines += [config.slurm.setup] if config.slurm.setup else []
    lines.append(f'line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(commands.absolute()))})')
    lines.append('eval "${line:?no such task}"')
    return "\n".join(lines) + "\n"
