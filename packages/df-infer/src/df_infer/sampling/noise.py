"""The noise of a rollout: a function of (seed, sample, latent frame, stream) and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from df_models.flow import keyed_noise


class FrameNoise:
    """Draws the noise of latent frames, the same in any chunk, batch, order and on any device.

    Args:
        seed: of the generation, or one per sample.
        sample_ids: one key per sample of the batch.
    """

    def __init__(self, seed: int | Sequence[int], sample_ids: Sequence[int]) -> None:
        seeds = [seed] * len(sample_ids) if isinstance(seed, int) else seed
        self._keys = list(zip(seeds, sample_ids, strict=True))

    @property
    def batch(self) -> int:
        """Samples of the batch."""
        return len(self._keys)

    def draw(self, frame: int, count: int, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Return float32 ``[B, count, *shape]`` on the CPU for latent frames ``frame ..``."""
        return torch.stack([self._frame(at, stream, shape) for at in range(frame, frame + count)], dim=1)

    def _frame(self, frame: int, stream: str, shape: tuple[int, ...]) -> Tensor:
        draws = [keyed_noise(shape, seed=s, step=frame, sample_ids=[i], stream=stream) for s, i in self._keys]
        return torch.cat(draws)
