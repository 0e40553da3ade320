"""All stages of a model, one after the other: each begins with what the one before has trained.

    uv run python examples/stages.py configs/train/quickstart
    uv run python examples/stages.py configs/train/quickstart optim.steps=100

Runs every stage*.yaml of the directory in the order of their names. Settings after it are those of df-train and count
for all stages. A stage that is finished is left as it is, and one that was stopped goes on, so the same command
continues after an interruption. docs/training.md says what the stages are.
"""

import argparse
import sys
from pathlib import Path

from df_infer.run_dir import RunDir, is_model
from df_models.cli_support import EXIT_AGAIN, EXIT_INTERRUPTED, run_cli
from df_models.errors import UserError
from df_models.settings import load_config
from df_train.config import TrainConfig
from df_train.engine import NotFinite, Stop
from df_train.run import train


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="such as configs/train/quickstart")
    parser.add_argument("overrides", nargs="*", help="such as optim.steps=100")
    args = parser.parse_args(argv)
    stages = sorted(args.directory.glob("stage*.yaml"))
    if not stages:
        raise UserError(f"{args.directory} holds no stage*.yaml; give a directory such as configs/train/quickstart")
    for path in stages:
        config = load_config(TrainConfig, path, args.overrides)
        if is_model(RunDir(config.directory).model):
            print(f"{path.name}: {config.directory} is finished")
            continue
        print(f"{path.name}: {config.directory}")
        try:
            stop = train(config).stop
        except NotFinite as error:
            print(f"stages: {error}", file=sys.stderr)
            return 1
        if stop.goes_on:
            return EXIT_INTERRUPTED if stop is Stop.INTERRUPTED else EXIT_AGAIN
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "stages"))
