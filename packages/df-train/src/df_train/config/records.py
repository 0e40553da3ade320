"""What a run writes as it goes: checkpoints, figures, traces, samples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from df_models.settings import FrozenModel


def _rising_steps(steps: tuple[int, ...]) -> tuple[int, ...]:
    if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
        raise ValueError("give rising steps, from 1 on")
    return steps


class ResumeConfig(FrozenModel):
    """Checkpoints to resume from.

    Attributes:
        every: steps from one to the next.
        keep: how many are kept, the newest.
        resume: `auto` continues an unfinished run from its newest whole checkpoint; `never` refuses to touch it.
    """

    every: int = Field(default=200, ge=1)
    keep: int = Field(default=2, ge=1)
    resume: Literal["auto", "never"] = "auto"


class CheckpointConfig(ResumeConfig):
    """Checkpoints to resume from, and models to keep.

    Attributes:
        milestones: rising steps, `[1000, 5000]`, after which the averaged model is also exported, to `models/step-N/`,
            for good. A checkpoint is saved with each, so that a run that goes on takes no such step again, and one that
            is there is not written anew.
        asynchronous: write checkpoints beside training, which then waits only for a copy of its state in host memory
            (16 bytes per parameter, over all processes). The next one waits for the last; the end of the run and
            milestones do, too.
    """

    asynchronous: bool = False
    milestones: Annotated[tuple[int, ...], AfterValidator(_rising_steps)] = ()


class LogConfig(FrozenModel):
    """Where figures go, besides `metrics.jsonl`.

    Attributes:
        every: steps from one line to the next.
        wandb: Weights & Biases.
        wandb_project: its project.
        tensorboard: write event files for TensorBoard into the run.
    """

    every: int = Field(default=10, ge=1)
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "dualforce"
    tensorboard: bool = False


class ProfileConfig(FrozenModel):
    """A look at some steps by torch's profiler, written into the run's `profile/`.

    Each process writes a Chrome trace (`trace-0.json`, which https://ui.perfetto.dev shows) and, on CUDA, a snapshot of
    the allocator (`memory-0.pickle`, which https://docs.pytorch.org/memory_viz shows). Those steps are slower.

    Attributes:
        start: the first step that is looked at, from 1; the first ones of a run still allocate and compile.
        steps: how many.
    """

    start: int = Field(default=10, ge=1)
    steps: int = Field(default=3, ge=1)


class SampleConfig(FrozenModel):
    """Sample videos of validation clips.

    Attributes:
        every: steps from one set to the next (0: only at the end).
        clips: how many; 0 for none.
        frames: pixel frames of each, 1 + 4 n.
    """

    every: int = Field(default=0, ge=0)
    clips: int = Field(default=2, ge=0)
    frames: int = Field(default=33, ge=5)

    @field_validator("frames")
    @classmethod
    def _whole_latents(cls, frames: int) -> int:
        if (frames - 1) % 4:
            raise ValueError(f"{frames} pixel frames are not 1 + 4 n")
        return frames
