"""A loss of my own: punish motion whose predicted clean structure jumps from one slot to the next.

    uv run python examples/own_loss.py run_dir=runs/jitter

Trains the quickstart with it. What follows the script's name is df-train's: settings, --fresh, --check.
docs/how-to/loss.md says what a loss is given and returns.
"""

import sys
from pathlib import Path

from df_models.flow import clean_from_velocity
from df_train.cli import main
from df_train.figures.meter import LossTerm
from df_train.objective import LOSSES, Answer, LossSpec

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train" / "quickstart.yaml"


def jitter(answer: Answer) -> LossTerm:
    shown = answer.shown
    clean_BTSD = clean_from_velocity(shown.noisy.structure, answer.velocity.structure.float(), shown.sigma.structure)
    jump_BT = clean_BTSD.diff(dim=2).square().mean(dim=(2, 3))
    return LossTerm(jump_BT, shown.learnt.structure.float(), shown.sigma.structure)


LOSSES["jitter"] = LossSpec("mean squared step between neighbouring slots of the predicted clean structure", jitter)


if __name__ == "__main__":
    raise SystemExit(main(["--config", str(CONFIG), "objective.extra.jitter=0.1", *sys.argv[1:]]))
