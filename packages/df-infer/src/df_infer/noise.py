"""The noise of a rollout: a function of (seed, sample, latent frame, stream) and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from df_models.flow import keyed_noise


class FrameNoise:
    """Draws the noise of latent frames, the same in any chunk, batch, order and on any device.

    Args:
        seed: of the generation.
        sample_ids: one key per sample of the batch.
    """

    def __init__(self, seed: int, sample_ids: Sequence[int]) -> None:
        self._seed, self._sample_ids = seed, list(sample_ids)

    def draw(self, frame: int, count: int, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Return float32 ``[B, count, *shape]`` on the CPU for latent frames ``frame ..``."""
        frames = range(frame, frame + count)
        return torch.stack(
            [keyed_noise(shape, seed=self._seed, step=f, sample_ids=self._sample_ids, stream=stream) for f in frames],
            dim=1,
        )
