"""The two noise schedules of a rollout: video from pure noise, structure ahead of it.

Shape legend: N solver steps, B batch, C latent frames of a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from df_infer.config import RolloutConfig
from df_models.flow import inference_sigmas


class Schedule(NamedTuple):
    """Noise levels before and after each solver step; both float32 ``[N+1]``, ending in 0."""

    video: Tensor
    structure: Tensor

    @property
    def steps(self) -> int:
        """Number of solver steps."""
        return len(self.video) - 1


def make_schedule(config: RolloutConfig, sigma_structure_max: float) -> Schedule:
    """Return the schedule of one chunk.

    The structure starts at ``sigma_structure_max`` (``struct_start: previous``) or 1 (``noise``) and is clean after
    ``structure_steps`` steps; through the remaining steps it stays clean, a finished guide to the video.
    """
    video = inference_sigmas(config.steps, config.shift)
    own_steps = config.structure_steps or config.steps
    start = sigma_structure_max if config.struct_start == "previous" else 1.0
    structure = inference_sigmas(own_steps, config.structure_shift, start=start)
    tail = torch.zeros(config.steps - own_steps)
    return Schedule(video.float(), torch.cat([structure.float(), tail]))


def per_frame(sigma: Tensor, batch: int, frames: int, pinned: int = 0) -> Tensor:
    """Spread one noise level over a chunk: ``[B, C]``, 0 for the first ``pinned`` frames, which are already clean."""
    sigmas_BC = sigma.expand(batch, frames).clone()
    sigmas_BC[:, :pinned] = 0.0
    return sigmas_BC
