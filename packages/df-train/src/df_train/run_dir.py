"""The run directory as a file contract: what stands where, and whether a run may start in it.

`runs/<name>/`: `config.yaml` (resolved), `metrics.jsonl`, `checkpoints/step-N/`, `model/` (averaged weights, to use),
`samples/`, `loss.png`; evaluation adds `eval/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import dump_config, load_config
from df_train.checkpoint import CheckpointInfo, newest
from df_train.config import TrainConfig
from df_train.metrics import read_metrics

Wish = Literal["default", "resume", "fresh"]

_OURS = ("checkpoints", "model", "samples", "eval", "tensorboard", "wandb")
_OUR_FILES = ("config.yaml", "metrics.jsonl", "loss.png", "wandb-id.txt")


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def loss_plot(self) -> Path:
        return self.root / "loss.png"

    @property
    def finished(self) -> bool:
        """Whether a trained model was exported."""
        return (self.model / "model.safetensors").is_file()

    def steps_taken(self) -> int:
        """The last step that was logged, 0 if none."""
        lines = read_metrics(self.metrics) if self.metrics.is_file() else []
        return int(lines[-1]["step"]) if lines else 0

    def clear(self) -> None:
        """Remove what a run writes, and nothing else that someone may have put there."""
        for name in _OURS:
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in _OUR_FILES:
            (self.root / name).unlink(missing_ok=True)

    def write_config(self, config: TrainConfig) -> None:
        """Write the resolved configuration; it reads back equal."""
        self.root.mkdir(parents=True, exist_ok=True)
        atomic_write(self.config, dump_config(config))


def choose_start(config: TrainConfig, wish: Wish, say: Callable[[str], None]) -> CheckpointInfo | None:
    """The checkpoint to continue from, or None to start at step 0. It never restarts a run unless asked to.

    Args:
        wish: `resume` (there must be something to resume), `fresh` (what is there will be removed), or `default`.

    Raises:
        UserError: the run is finished, or has taken steps but left no whole checkpoint, or is another model's.
    """
    run = RunDir(config.directory)
    if wish == "fresh":
        return None
    if run.finished and wish == "default":
        raise UserError(f"{run.root} holds a finished run; say --fresh to train it anew, --resume to train it further")
    resume = wish == "resume" or config.checkpoint.resume == "auto"
    if not resume:
        if run.config.is_file():
            raise UserError(f"{run.root} holds a run and checkpoint.resume is never; say --fresh, or another name=")
        return None
    info = newest(run.checkpoints, say)
    if info is None and wish == "resume":
        raise UserError(f"nothing to resume: {run.checkpoints} holds no checkpoint; leave out --resume")
    if info is None and run.steps_taken():
        raise UserError(
            f"{run.root} stopped at step {run.steps_taken()} before its first checkpoint; say --fresh to start over"
        )
    if info is not None:
        _check_same_model(run, config)
    return info


def _check_same_model(run: RunDir, config: TrainConfig) -> None:
    old = load_config(TrainConfig, run.config, recorded=True)
    if old.model != config.model:
        raise UserError(
            f"{run.root} trains model {old.model.preset} {old.model.overrides}, the config now says "
            f"{config.model.preset} {config.model.overrides}; take another name=, or --fresh"
        )
