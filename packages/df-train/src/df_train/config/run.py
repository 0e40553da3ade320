"""One training run: all its sections, and what they must agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from df_infer.config import RolloutConfig
from df_models.device import check_device_name
from df_models.settings import FrozenModel, Location, merge
from df_train.config.data import DataConfig
from df_train.config.model import AdapterConfig, ModelConfig
from df_train.config.objective import ObjectiveConfig
from df_train.config.records import CheckpointConfig, LogConfig, ProfileConfig, SampleConfig
from df_train.config.steps import (
    BudgetConfig,
    EmaConfig,
    OptimConfig,
    PrecisionConfig,
    ShardingConfig,
    check_warmup,
)
from df_train.distill.config import DistillConfig
from df_train.tasks import TASKS, TaskName
from df_train.validation.config import ValidationConfig


class TrainConfig(FrozenModel):
    """One training run.

    Attributes:
        task: what is trained: `model`, all that the model has; `video`, the video tower alone, on clips that need
            neither structure nor audio; or `distill`, a student of few steps (`df_train.tasks`).
        name: of the run: letters, digits, `.`, `_`, `-`.
        run_dir: directory of the run; null means `runs/<name>`.
        seed: keys the initial weights, the order of clips and all noise.
        device: `auto` takes a GPU if there is one.
        max_minutes: ends the run cleanly, with a model, after that many minutes of steps (over all resumes); the
            learning rate's schedule is in steps and does not know of it.
        hang_minutes: ends all of several processes when training gets no further for that long, and names those that
            the others wait for (`df_train.processes.watch`); longer than the longest save. null leaves it to torch's
            limits.
        budget: fits data, steps and schedule to a time.
        profile: which steps to profile; null for none.
        distill: for `task: distill`, how the student learns.
        rollout: how sample videos are generated, and the defaults of evaluation and generation.
    """

    task: TaskName = "model"
    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    run_dir: Location | None = None
    seed: int = Field(default=0, ge=0)
    device: Annotated[str, AfterValidator(check_device_name)] = "auto"
    max_minutes: float | None = Field(default=None, gt=0)
    hang_minutes: float | None = Field(default=10.0, gt=0)
    budget: BudgetConfig = BudgetConfig()
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()
    precision: PrecisionConfig = PrecisionConfig()
    sharding: ShardingConfig = ShardingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    validation: ValidationConfig = ValidationConfig()
    sample: SampleConfig = SampleConfig()
    profile: ProfileConfig | None = None
    distill: DistillConfig = DistillConfig()
    rollout: RolloutConfig = RolloutConfig()

    @model_validator(mode="before")
    @classmethod
    def _of_the_task(cls, tree: Any) -> Any:
        task = TASKS.get(tree.get("task", "model")) if isinstance(tree, dict) else None
        return tree if task is None or not task.defaults else merge(dict(task.defaults), tree)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        check_warmup(self.optim.warmup, self.optim.steps)
        if self.data.batch_size % self.data.accumulate:
            raise ValueError(
                f"data.batch_size ({self.data.batch_size}) must be a multiple of data.accumulate "
                f"({self.data.accumulate})"
            )
        if self.adapter.kind != "none" and self.model.start_from is None:
            raise ValueError(f"adapter.kind={self.adapter.kind} is for a trained model; name it in model.start_from")
        if self.adapter.kind != "none" and self.precision.float8:
            raise ValueError("precision.float8 is for training all weights; set it to false beside an adapter")
        if self.data.remote and self.sample.clips:
            raise ValueError(
                f"sample.clips={self.sample.clips}: sample videos are made of validation clips in a directory, but "
                "data.root is a URL; set sample.clips=0"
            )
        return self

    @property
    def directory(self) -> Path:
        """The run directory."""
        return Path("runs") / self.name if self.run_dir is None else self.run_dir.path
