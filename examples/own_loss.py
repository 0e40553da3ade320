"""A loss of my own: punish motion whose predicted clean structure jumps from one slot to the next.

    uv run python examples/own_loss.py run_dir=runs/jitter

Trains the quickstart with it. Settings after the script's name are those of df-train. docs/how-to/loss.md says what a
loss is given and returns.
"""

import sys
from pathlib import Path

from df_models.cli_support import run_cli
from df_models.flow import clean_from_velocity
from df_models.settings import load_config
from df_train.config import TrainConfig
from df_train.figures.meter import LossTerm
from df_train.objective import LOSSES, Answer, LossSpec
from df_train.run import train

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train" / "quickstart.yaml"


def jitter(answer: Answer) -> LossTerm:
    shown = answer.shown
    clean_BTSD = clean_from_velocity(shown.noisy.structure, answer.velocity.structure.float(), shown.sigma.structure)
    jump_BT = clean_BTSD.diff(dim=2).square().mean(dim=(2, 3))
    return LossTerm(jump_BT, shown.learnt.structure.float(), shown.sigma.structure)


LOSSES["jitter"] = LossSpec("mean squared step between neighbouring slots of the predicted clean structure", jitter)


def main(settings: list[str]) -> int:
    train(load_config(TrainConfig, CONFIG, ["objective.extra.jitter=0.1", *settings]))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, Path(sys.argv[0]).name))
