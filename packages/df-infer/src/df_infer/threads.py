"""How many CPU threads a model is worth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from df_infer.sampling.guidance import guidance_scales
from df_models.errors import UserError
from df_models.machine import usable_cores
from df_models.model.flops import frame_flops, video_tokens
from df_models.time import SPATIAL_STRIDE

if TYPE_CHECKING:
    from df_infer.config import RolloutConfig
    from df_models import DualForceConfig

SMALL_LAYER = 500e6
"""Operations of a layer in one call, below which one thread is taken: twice the quickstart's. There a second thread
makes a model 1.2 times as fast alone and 0.3 to 0.6 times beside two busy processes; larger layers gain more and lose
less (`benchmarks/neighbours.py`)."""


def layer_work(config: DualForceConfig, rollout: RolloutConfig) -> float:
    """Return the operations of a layer in one call of the model, for one generation with these settings."""
    side = config.video_size // SPATIAL_STRIDE
    chunk = rollout.chunk or rollout.window
    frame = sum(frame_flops(config, video_tokens(config, side, side), rollout.sinks + rollout.window).values())
    copies = 1 + len(guidance_scales(rollout))
    return copies * chunk * frame / max(config.num_layers, config.structure_layers)


def check_threads(threads: int) -> None:
    """Refuse a number of CPU threads that this process cannot have.

    Raises:
        UserError: none, or more than there are cores.
    """
    cores = usable_cores()
    if threads < 1:
        raise UserError(f"{threads} CPU threads: give 1 or more")
    if threads > cores:
        raise UserError(
            f"{threads} CPU threads: this process may use {cores} core{'s' if cores > 1 else ''}, and more threads "
            f"than cores only wait for each other; give at most {cores}"
        )


def suited_threads(config: DualForceConfig, rollout: RolloutConfig) -> int | None:
    """Return how many CPU threads to compute with; None: as many as torch takes by itself.

    One for a model of small layers: threads meet after every product, so beside a busy program all wait for the one
    that it holds up (`benchmarks/neighbours.py` measures how long). For one generation, not for several in a batch.
    ``OMP_NUM_THREADS``, if it is set, is followed.
    """
    if "OMP_NUM_THREADS" in os.environ or usable_cores() == 1:
        return None
    return 1 if layer_work(config, rollout) < SMALL_LAYER else None


def core_beside(device: torch.device, asked: int | None) -> bool:
    """Whether a CPU core is idle while a model is denoised in one thread, and nobody forbade to take it.

    On a GPU both would queue on one stream, and frames would wait for the chunk behind theirs.

    Args:
        asked: the CPU threads that the user asked for; they are all that is taken, as with ``OMP_NUM_THREADS``.
    """
    told = asked is not None or "OMP_NUM_THREADS" in os.environ
    return device.type == "cpu" and not told and torch.get_num_threads() == 1 and usable_cores() > 1
