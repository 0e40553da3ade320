"""Scripts to submit by hand: one job array for each level of the plan (what needs nothing, what needs that, ...)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from df_eval.study.config import StudyConfig
from df_eval.study.plan import Plan, Step
from df_eval.study.records import state_of
from df_models.files import atomic_write

FOLDER = "slurm"


def levels(plan: Plan) -> list[list[Step]]:
    """Steps that are not done, so that each needs only those of levels before its own."""
    steps = {step.key: step for step in plan.steps}

    def level(step: Step) -> int:
        return 1 + max((level(steps[needed]) for needed in step.needs), default=-1)

    left = [step for step in plan.steps if state_of(step, Path(plan.directory)) != "done"]
    found: dict[int, list[Step]] = {}
    for step in left:
        found.setdefault(level(step), []).append(step)
    return [found[number] for number in sorted(found)]


def write_scripts(config: StudyConfig, plan: Plan) -> Path | None:
    """Write the list of commands and the sbatch script of each level, and `submit.sh`, which submits them in order.

    Returns:
        The path of `submit.sh`; None if nothing is left to do.
    """
    folder = Path(plan.directory) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("level-*"):
        path.unlink()
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
        commands = folder / f"level-{number}.txt"
        atomic_write(commands, "".join(f"{_command(step, plan)}\n" for step in steps))
        script = folder / f"level-{number}.sbatch"
        atomic_write(script, _script(config, plan, number, len(steps), commands))
        after = "--dependency=afterany:$previous " if number else ""
        submit.append(f"previous=$(sbatch --parsable {after}{shlex.quote(str(script.absolute()))})")
    submit.append('echo "submitted; when all is done, give the df-study command again: it collects"')
    atomic_write(folder / "submit.sh", "\n".join(submit) + "\n")
    return folder / "submit.sh"


def _command(step: Step, plan: Plan) -> str:
    return shlex.join([sys.executable, "-m", "df_eval.study.perform", plan.directory, step.key])


def _script(config: StudyConfig, plan: Plan, number: int, count: int, commands: Path) -> str:
    options: Mapping[str, str] = {
        "job-name": f"{config.name}-{number}",
        "array": f"0-{count - 1}",
        "output": str(commands.absolute().with_name(f"level-{number}-%a.out")),
        "chdir": str(Path.cwd()),
        "cpus-per-task": str(config.slots.threads),
    } | config.slurm.options
    lines = ["#!/usr/bin/env bash", *(f"#SBATCH --{name}={value}" for name, value in options.items())]
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    lines += [f"export {name}={config.slots.threads}" for name in threads]
    lines += [config.slurm.setup] if config.slurm.setup else []
    lines.append(f'eval "$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(commands.absolute()))})"')
    return "\n".join(lines) + "\n"
