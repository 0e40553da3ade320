"""Configuration of the lip-sync expert (`task: sync`): which network, on which clips, for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from df_models.device import check_device_name
from df_models.encoders import AudioPool
from df_models.settings import FrozenModel, Location
from df_train.config import DataConfig, ResumeConfig
from df_train.config.steps import check_warmup


class ExpertNetConfig(FrozenModel):
    """The network (`df_train.sync.expert`).

    Attributes:
        window: latent frames that are compared with their audio at once. 3 are 0.48 s: SyncNet takes 0.2 s, LatentSync
            0.64 s, and the loss needs windows that fit many times into a training clip.
        grid: points a side that the mouth region is sampled at; 8 for latents of 8 to 32 cells, 16 for larger ones.
        margin: side of the region, as a multiple of the mouth box's width: room for the jaw and the head's motion.
        width: channels of the first layers; deeper ones have twice as many.
        embedding: width of what is compared.
        audio_pool: how two audio features become one slot; a model with another pooling cannot take the expert.
    """

    window: int = Field(default=3, ge=1)
    grid: int = Field(default=8, ge=4, multiple_of=4)
    margin: float = Field(default=1.75, gt=0)
    width: int = Field(default=48, ge=8, multiple_of=8)
    embedding: int = Field(default=128, ge=8)
    audio_pool: AudioPool = "concat"


class SyncOptimConfig(FrozenModel):
    """AdamW with linear warm-up and a cosine down to nothing.

    Attributes:
        steps: of the whole run.
        lr: peak of the learning rate.
        warmup: steps until the peak.
        weight_decay: AdamW's decoupled decay.
        clip: largest norm of the gradient; a larger one is scaled down to it.
        ema: decay of the moving average that is measured and exported.
    """

    steps: int = Field(default=1500, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.99, ge=0, lt=1)


class SyncConfig(FrozenModel):
    """Everything that `df-train` needs to train a lip-sync expert.

    Attributes:
        task: what is trained.
        run_dir: directory of the run.
        seed: keys the initial weights, the order of clips and the noise.
        noise: standard deviation of noise added to the latents (whose own is about 1), so that the expert does not
            rest on details that a generator's latents lack.
        stuck_after: steps after which an expert that is no better than chance on held-out clips is told why.
        held_out: validation clips that are measured.
        device: `auto` takes a GPU if there is one.
        log_every: steps from one line of figures to the next.
        eval_every: steps from one measurement and export to the next.
    """

    task: Literal["sync"] = "sync"
    run_dir: Location = Location("runs/sync")
    seed: int = Field(default=0, ge=0)
    device: Annotated[str, AfterValidator(check_device_name)] = "auto"
    expert: ExpertNetConfig = ExpertNetConfig()
    data: DataConfig = DataConfig()
    noise: float = Field(default=0.1, ge=0)
    optim: SyncOptimConfig = SyncOptimConfig()
    stuck_after: int = Field(default=500, ge=1)
    held_out: int = Field(default=64, ge=2)
    checkpoint: ResumeConfig = ResumeConfig(every=250, keep=1)
    log_every: int = Field(default=25, ge=1)
    eval_every: int = Field(default=250, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> SyncConfig:
        check_warmup(self.optim.warmup, self.optim.steps)
        if self.data.accumulate != 1 or self.data.batch_size < 2:
            raise ValueError("other clips of a batch are negatives: data.batch_size at least 2, data.accumulate 1")
        return self
