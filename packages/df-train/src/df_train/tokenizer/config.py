"""Configuration of the tokenizer recipe (`task: tokenizer`): how a small video VAE is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from df_data.reading.source import is_remote
from df_models.encoders.video.wan_vae import TINY_CONFIG
from df_models.settings import FrozenModel, Location
from df_models.time import latent_length
from df_train.config import PrecisionConfig, ResumeConfig


class TokenizerDataConfig(FrozenModel):
    """What is looked at: rendered people, each clip another one, or the videos of a dataset.

    Attributes:
        shards: a dataset whose clips have their mp4 (`keep_video` of `df-data build`); its videos take the place of
            rendered people: those of train/ to train on, those of val/ to measure with.
        clips: clips to train on; of a dataset the first that are long enough.
        val_clips: clips to measure with, of people that training never sees.
        frames: pixel frames of a training clip, 1 + 4 n; of a dataset's, at least so many.
        val_frames: the same of a clip to measure with.
        size: pixels a side; a dataset's must be this.
        workers: rendering processes.
    """

    shards: Location | None = None
    clips: int = Field(default=3000, ge=1)
    val_clips: int = Field(default=32, ge=1)
    speaking: float = Field(
        default=0.5, ge=0, le=1, description="share of clips that speak as the corpus does; the others move at random"
    )
    frames: int = Field(default=33, ge=1)
    val_frames: int = Field(default=33, ge=1)
    size: int = Field(default=64, ge=16, multiple_of=8)
    workers: int = Field(default=2, ge=1)

    @field_validator("shards", mode="before")
    @classmethod
    def _in_a_directory(cls, shards: object) -> object:
        if isinstance(shards, str) and is_remote(shards):
            raise ValueError("videos are read from a directory, not from a URL or pipe; copy the dataset to a disk")
        return shards

    @field_validator("frames", "val_frames")
    @classmethod
    def _whole_latent_frames(cls, value: int) -> int:
        latent_length(value)
        return value


class TokenizerStage(FrozenModel):
    """A part of training.

    Attributes:
        steps: batches.
        frames: pixel frames of a window.
        batch_size: windows of a batch.
    """

    steps: int = Field(ge=1)
    frames: int = Field(ge=1)
    batch_size: int = Field(ge=1)


class TokenizerLossConfig(FrozenModel):
    """Weights of the terms, each a mean over its elements.

    Attributes:
        l1: of the absolute error.
        mse: of the squared error.
        gradient: of the error of the differences between neighbouring pixels.
        kl: of the latents' divergence from the standard normal distribution.
        mouth: extra weight on the pixels of the mouth box.
        eyes: the same of both eyes' boxes, which are known of rendered people alone.
        latent_noise: standard deviation, relative to the latents', of noise added before decoding, so that the decoder
            forgives small errors of a generator.
    """

    l1: float = Field(default=1.0, ge=0)
    mse: float = Field(default=4.0, ge=0)
    gradient: float = Field(default=0.5, ge=0)
    kl: float = Field(default=3e-4, ge=0)
    mouth: float = Field(default=1.0, ge=0)
    eyes: float = Field(default=0.0, ge=0)
    latent_noise: float = Field(default=0.05, ge=0)


class TokenizerConfig(FrozenModel):
    """Everything that `df-train` needs to train a small VAE of Wan's form on rendered people or on videos.

    Attributes:
        task: what is trained.
        run_dir: directory of the run.
        seed: keys the initial weights, the clips and their order.
        architecture: settings of diffusers' `AutoencoderKLWan` (`WanVAEConfig` of df_models).
        stages: the parts of training, one after the other.
        warmup: steps of linear warm-up.
        clip_norm: largest norm of the gradient; a larger one is scaled down to it.
        ema: decay of the moving average that is exported.
        device: `auto` takes a GPU if there is one.
        log_every: steps from one line of figures to the next.
        eval_every: steps from one measurement and export to the next.
    """

    task: Literal["tokenizer"] = "tokenizer"
    run_dir: Location = Location("runs/tokenizer")
    seed: int = 0
    architecture: dict[str, Any] = Field(default_factory=lambda: dict(TINY_CONFIG))
    data: TokenizerDataConfig = Field(default_factory=TokenizerDataConfig)
    stages: tuple[TokenizerStage, ...] = (
        TokenizerStage(steps=6000, frames=17, batch_size=2),
        TokenizerStage(steps=2000, frames=33, batch_size=1),
    )
    mixtures: float = Field(
        default=0.0, ge=0, le=1, description="share of training clips that are mixtures, not people"
    )
    flips: float = Field(default=0.0, ge=0, le=1, description="share of training clips that are mirrored")
    loss: TokenizerLossConfig = Field(default_factory=TokenizerLossConfig)
    matrix_lr: float = Field(default=0.025, gt=0, description="of the convolutions, under Muon")
    lr: float = Field(default=2e-3, gt=0, description="of everything else, under AdamW")
    warmup: int = Field(default=50, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.995, ge=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: PrecisionConfig = PrecisionConfig()
    checkpoint: ResumeConfig = ResumeConfig(every=500, keep=1)
    log_every: int = Field(default=25, ge=1)
    eval_every: int = Field(default=500, ge=1)
    start_from: Location | None = Field(
        default=None, description="the VAE to start from instead of random weights: `df-tiny` or a directory"
    )

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @model_validator(mode="after")
    def _windows_fit(self) -> TokenizerConfig:
        longest = max(stage.frames for stage in self.stages)
        if longest > self.data.frames:
            raise ValueError(f"stages: a window of {longest} frames does not fit in data.frames={self.data.frames}")
        return self

    @model_validator(mode="after")
    def _eyes_are_known(self) -> TokenizerConfig:
        if self.loss.eyes > 0 and self.data.shards is not None:
            raise ValueError("loss.eyes: a dataset (data.shards) holds no boxes of eyes; set loss.eyes=0")
        return self
