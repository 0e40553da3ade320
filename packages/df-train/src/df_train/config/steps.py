"""How steps are taken: optimizer, time budget, precision, and how the work is spread."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from df_models.machine import PrecisionName
from df_models.settings import FrozenModel
from df_train.config.bends import rising

_PRECISIONS: dict[str, PrecisionName] = {"auto": "auto", "on": "bfloat16", "off": "float32"}


def _checkpointing_of(value: object) -> object:
    """`sharding.checkpointing` was a switch once, and runs have recorded it as one."""
    return {True: "every", False: "none"}[value] if isinstance(value, bool) else value


def _compile_of(value: object) -> object:
    """`sharding.compile` was a switch once, too."""
    return {True: "layers", False: "none"}[value] if isinstance(value, bool) else value


def check_warmup(warmup: int, steps: int) -> None:
    """Raise ValueError unless a run goes on after its warm-up."""
    if warmup >= steps:
        raise ValueError(
            f"optim.warmup ({warmup}) must be less than optim.steps ({steps}); for so few steps set "
            f"optim.warmup={steps // 2}"
        )


class OptimConfig(FrozenModel):
    """AdamW with linear warm-up and a cosine down to a floor. Steps are optimizer steps.

    Attributes:
        steps: of the whole run.
        lr: peak of the learning rate.
        warmup: steps until the peak.
        floor: learning rate at the last step, as a share of the peak.
        betas: decay rates of AdamW's two moments.
        eps: AdamW's epsilon.
        weight_decay: AdamW's decoupled decay.
        clip: largest norm of the gradient; a larger one is scaled down to it.
        max_skips: steps in a row that may be skipped because their gradient is not finite; one more ends the run (0:
            the first does). On a GPU this is looked at where figures are logged.
        bends: written by a time budget (`df_train.budget`): pairs of a step and of the `steps` that it was bound
            for until then.
    """

    steps: int = Field(default=1200, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=50, ge=0)
    floor: float = Field(default=0.05, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    max_skips: int = Field(default=3, ge=0)
    bends: tuple[tuple[int, int], ...] = ()

    @field_validator("bends")
    @classmethod
    def _in_order(cls, bends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return rising(bends)


class BudgetConfig(FrozenModel):
    """A time budget for the whole command (`df_train.budget`); off without `minutes`.

    The training clips of `data.synth` and `optim.steps` are fitted to it, with their configured numbers as the upper
    bound. What was chosen is written into the run's `config.yaml`, which repeats the run without a clock.

    Attributes:
        minutes: from the start of `df-train` to its last line.
        measure: whether clips and steps are still to be chosen; a run writes `false` beside what it chose.
        full_clips: clips that there would have been in time enough; written by the run.
        full_steps: steps that there would have been in time enough; written by the run.
    """

    minutes: float | None = Field(default=None, gt=0)
    measure: bool = True
    full_clips: int | None = Field(default=None, ge=1)
    full_steps: int | None = Field(default=None, ge=1)


class EmaConfig(FrozenModel):
    """The moving average of the weights, which is what is exported.

    Attributes:
        decay: of each step; early on it follows faster, by `(1 + step) / (10 + step)`.
    """

    decay: float = Field(default=0.995, ge=0, lt=1)


class PrecisionConfig(FrozenModel):
    """What is computed in; parameters stay float32 in any case.

    Attributes:
        bf16: `auto` computes in bfloat16 where the device has matrix instructions for it (AMX, AVX-512 BF16, GPUs from
            compute capability 8.0 on) and in float32 elsewhere.
        float8: matrix products of the layers in float8 (`df_train.float8`), for GPUs from compute capability 8.9 on;
            needs the extra `df-train[float8]`.
    """

    bf16: Literal["auto", "on", "off"] = "auto"
    float8: bool = False

    @property
    def name(self) -> PrecisionName:
        """The setting as `df_models.machine.choose_precision` takes it."""
        return _PRECISIONS[self.bf16]


class ShardingConfig(FrozenModel):
    """How parameters are spread over processes and layers are computed: memory against time.

    None of it changes a loss by more than the order of additions does, nor what a checkpoint holds.

    Attributes:
        group: what FSDP2 gathers at once: the whole model, or block by block (`auto`: from 50 million parameters, and
            with `prefetch`).
        replicate: copies of the sharded model (HSDP): parameters are sharded over the processes divided by it, and
            gradients summed over the copies. As many as there are machines keeps gathering inside of each. 1: sharded
            over all.
        reshard_after_forward: whether a block's gathered parameters are let go after its forward pass, and gathered
            again in the backward pass: less memory, more traffic. What is in no block stays gathered either way.
        prefetch: blocks that are gathered ahead, in both passes; 0 leaves it to FSDP2, which gathers one ahead.
        offload: keep parameters, gradients and AdamW's moments in the host's memory, and update them there; what
            computes holds one group of gathered parameters. Slow: parameters and gradients cross over at every step.
        checkpointing: compute layers anew in the backward pass and keep less: `none`, `every` layer, or every n-th one
            (a number): the more layers, the less memory and the more time. `true` and `false` mean `every` and `none`.
        compile: compile the `layers` with `torch.compile`, or `none`: minutes at the first step, faster ones on a
            GPU. `true` and `false` mean `layers` and `none`.
    """

    group: Literal["auto", "model", "block"] = "auto"
    replicate: int = Field(default=1, ge=1)
    reshard_after_forward: bool = True
    prefetch: int = Field(default=0, ge=0)
    offload: bool = False
    checkpointing: Annotated[
        Literal["none", "every"] | Annotated[int, Field(ge=1)], BeforeValidator(_checkpointing_of)
    ] = "none"
    compile: Annotated[Literal["none", "layers"], BeforeValidator(_compile_of)] = "none"

    @model_validator(mode="after")
    def _blocks_to_prefetch(self) -> ShardingConfig:
        if self.prefetch and self.group == "model":
            raise ValueError(f"prefetch={self.prefetch} gathers blocks ahead, but group=model has one group; set block")
        return self

    @property
    def recomputed(self) -> int:
        """Every which layer is computed anew; 0 for none."""
        wish = self.checkpointing
        return wish if isinstance(wish, int) else {"none": 0, "every": 1}[wish]
