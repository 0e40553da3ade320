"""All stages of a model, one after the other: each begins with what the one before has trained.

    uv run python examples/stages.py configs/train/quickstart
    uv run python examples/stages.py configs/train/quickstart optim.steps=100

Runs every stage*.yaml of the directory in the order of their names. Settings after it are those of df-train and count
for all stages. A stage that is finished is left as it is, and one that was stopped goes on, so the same command
continues after an interruption. docs/training.md says what the stages are.
"""

import argparse
from pathlib import Path
from shlex import quote

from df_infer.run_dir import RunDir
from df_models.cli_support import command, run_cli
from df_models.errors import UserError
from df_models.settings import load_config
from df_train.cli import main as df_train
from df_train.config import TrainConfig
from df_train.saving.start import steps_taken


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="such as configs/train/quickstart")
    parser.add_argument("overrides", nargs="*", help="such as optim.steps=100")
    args = parser.parse_args(argv)
    stages = sorted(args.directory.glob("stage*.yaml"))
    if not stages:
        raise UserError(f"{args.directory} holds no stage*.yaml; give a directory such as configs/train/quickstart")
    runs = {path: RunDir(load_config(TrainConfig, path, args.overrides).directory) for path in stages}
    for path, run in runs.items():
        if run.finished:
            refuse_other_steps(run, load_config(TrainConfig, path, args.overrides))
            print(f"{path.name}: {run.root} is finished")
            continue
        print(f"{path.name}: {run.root}")
        if code := df_train(["--config", str(path), *args.overrides]):
            return code
    print("\nall stages are finished; their models:")
    for path, run in runs.items():
        print(f"  {path.name:20} {run.model}")
    last = list(runs.values())[-1]
    print(f"next: {command(f'df-eval {quote(str(last.root))}')}")
    return 0


def refuse_other_steps(run: RunDir, asked: TrainConfig) -> None:
    """Take no finished run for one of another length, such as a short trial for the real one."""
    planned = load_config(TrainConfig, run.config, recorded=True)
    there = planned.budget.full_steps or planned.optim.steps  # a time budget cuts the steps and keeps what was asked
    if there != asked.optim.steps:
        raise UserError(
            f"{run.root} is finished, at {steps_taken(run)} of {asked.optim.steps} steps; remove {run.root} or give it "
            f"another name (name: in the stage's file), or say optim.steps={there} again"
        )


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "stages"))
