"""Everything a training run can be told, with its defaults; the resolved values are written into the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from df_data.config import FrozenModel
from df_data.synth.corpus import SynthConfig
from df_infer.config import RolloutConfig
from df_models.flow import HistoryMode


class ModelConfig(FrozenModel):
    """The architecture: a preset of df-models and fields of its configuration to change.

    `start_from` names a saved model (a directory, such as another run's `model/` or what `df-models convert-wan` wrote,
    or a Hub id). Its weights are the start, and its configuration takes the preset's place. One that was trained keeps
    the structure statistics and the FLAME head that it was trained with.
    """

    preset: str = "quickstart"
    start_from: str | None = None
    overrides: dict[str, Any] = Field(default_factory=dict)


class DataConfig(FrozenModel):
    """Where the clips come from and how many make a step.

    `root` holds `train/` and `val/`. If it is not there and `synth` is given, the synthetic corpus is made in it.
    `batch_size` counts the clips of one optimizer step over all processes, so a run on two processes takes the same
    steps as a run on one; `accumulate` splits each process's part into that many passes to save memory.
    `num_frames` cuts clips to that many latent frames; null takes them whole.
    """

    root: Path = Path("data/synth")
    synth: SynthConfig | None = None
    batch_size: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    num_frames: int | None = Field(default=None, ge=2)
    num_workers: int = Field(default=0, ge=0)


class HistoryConfig(FrozenModel):
    """What the frames before those being learnt look like in training (`df_models.flow.history`).

    `independent`: every frame its own noise level. `clean_past`: the same, but with `clean_past_probability` all frames
    before a random one are clean. `teacher_forcing`: a separate copy of the true past, noised up to
    `context_noise_max`. `error_recycling`: the same, and with `error_probability` that copy carries errors that the
    model made before; the last `error_bank` of them are kept.
    """

    mode: HistoryMode = "clean_past"
    clean_past_probability: float = Field(default=0.3, ge=0, le=1)
    context_noise_max: float = Field(default=0.1, ge=0, le=1)
    error_probability: float = Field(default=0.9, ge=0, le=1)
    error_bank: int = Field(default=256, ge=1)


class FlameLossConfig(FrozenModel):
    """The FLAME head on the predicted clean structure; the weight falls to `weight_end` over `decay_steps`."""

    weight: float = Field(default=0.1, ge=0)
    weight_end: float = Field(default=0.02, ge=0)
    decay_steps: int = Field(default=1000, ge=0)


class ObjectiveConfig(FrozenModel):
    """Noise levels and losses.

    `video_shift` is Wan's shift of the video's noise levels. The structure's go up to the model's
    `sigma_structure_max`; the share `structure_tail` of frames gets the levels above it. `start_clean`: of the clips
    whose reference picture is their first frame, the share whose first frame is given clean, as in generation that
    starts on the portrait.
    `mouth_weight` is the extra weight of the video cells in the mouth box (0: all cells weigh the same). The `drop_`
    shares train the model without that condition, which guidance needs.
    """

    history: HistoryConfig = HistoryConfig()
    video_shift: float = Field(default=1.0, gt=0)
    structure_tail: float = Field(default=0.1, ge=0, le=1)
    start_clean: float = Field(default=0.5, ge=0, le=1)
    video_weight: float = Field(default=1.0, ge=0)
    structure_weight: float = Field(default=0.5, ge=0)
    flame: FlameLossConfig = FlameLossConfig()
    mouth_weight: float = Field(default=0.0, ge=0)
    drop_audio: float = Field(default=0.1, ge=0, le=1)
    drop_reference: float = Field(default=0.0, ge=0, le=1)


class OptimConfig(FrozenModel):
    """AdamW with linear warm-up and a cosine down to `floor` times the peak. Steps are optimizer steps."""

    steps: int = Field(default=1200, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=50, ge=0)
    floor: float = Field(default=0.05, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)


class EmaConfig(FrozenModel):
    """The moving average that is exported; early on it follows faster, by `(1 + step) / (10 + step)`."""

    decay: float = Field(default=0.995, ge=0, lt=1)


class PrecisionConfig(FrozenModel):
    """`bf16: auto` computes in bfloat16 on CUDA and in float32 on a CPU; parameters stay float32 in any case."""

    bf16: Literal["auto", "on", "off"] = "auto"


class ShardingConfig(FrozenModel):
    """What FSDP2 gathers at once: the whole model, or block by block (`auto`: from 50 million parameters)."""

    group: Literal["auto", "model", "block"] = "auto"


class CheckpointConfig(FrozenModel):
    """A checkpoint every `every` steps, the newest `keep` of them kept.

    `resume: auto` continues an unfinished run from its newest whole checkpoint; `never` refuses to touch it.
    """

    every: int = Field(default=200, ge=1)
    keep: int = Field(default=2, ge=1)
    resume: Literal["auto", "never"] = "auto"


class LogConfig(FrozenModel):
    """Figures go to `metrics.jsonl` every `every` steps, and to Weights & Biases and TensorBoard if asked."""

    every: int = Field(default=10, ge=1)
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "dualforce"
    tensorboard: bool = False


class SampleConfig(FrozenModel):
    """Validation clips generated every `every` steps (0: only at the end): `clips` of them, `frames` pixel frames."""

    every: int = Field(default=0, ge=0)
    clips: int = Field(default=2, ge=0)
    frames: int = Field(default=33, ge=5)

    @field_validator("frames")
    @classmethod
    def _whole_latents(cls, frames: int) -> int:
        if (frames - 1) % 4:
            raise ValueError(f"{frames} pixel frames are not 1 + 4 n")
        return frames


class TrainConfig(FrozenModel):
    """One training run. `run_dir` null means `runs/<name>`.

    `max_minutes` ends the run cleanly, with a model, after that many minutes of steps (over all resumes); the learning
    rate's schedule is in steps and does not know of it.
    """

    task: Literal["model"] = "model"
    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    run_dir: Path | None = None
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_minutes: float | None = Field(default=None, gt=0)
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()
    precision: PrecisionConfig = PrecisionConfig()
    sharding: ShardingConfig = ShardingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    sample: SampleConfig = SampleConfig()
    rollout: dict[str, Any] = Field(default_factory=lambda: asdict(RolloutConfig()))

    @field_validator("rollout")
    @classmethod
    def _known_rollout(cls, values: dict[str, Any]) -> dict[str, Any]:
        return asdict(RolloutConfig.from_mapping(values))

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.optim.warmup >= self.optim.steps:
            raise ValueError(f"optim.warmup ({self.optim.warmup}) must be less than optim.steps ({self.optim.steps})")
        if self.data.batch_size % self.data.accumulate:
            raise ValueError(
                f"data.batch_size ({self.data.batch_size}) must be a multiple of data.accumulate "
                f"({self.data.accumulate})"
            )
        return self

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.run_dir or Path("runs") / self.name

    @property
    def rollout_config(self) -> RolloutConfig:
        """The settings of sample videos, and the defaults of evaluation and generation."""
        return RolloutConfig.from_mapping(self.rollout)
