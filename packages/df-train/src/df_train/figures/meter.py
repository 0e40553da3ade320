"""Losses summed between two log lines, in total and by noise level, without waiting for the device.

Shape legend: B clips, T latent frames, L losses, K sigma buckets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from df_train.processes.distributed import World

BUCKETS = 4
"""Of sigma: quarters tell low, middle and high noise apart, and each still gets samples at every log line."""


class LossTerm(NamedTuple):
    """One loss, frame by frame.

    Attributes:
        error_BT: mean squared error of each latent frame.
        counts_BT: what the frame counts: 1 where it is learnt, 0 where it is only context.
        sigma_BT: the noise level of the frame in the loss's own stream.
    """

    error_BT: Tensor
    counts_BT: Tensor
    sigma_BT: Tensor


@torch.no_grad()
def add_by_bucket(sums_K2: Tensor, term: LossTerm) -> None:
    """Add a loss to pairs (sum, count) by sigma bucket, float64, in place."""
    bucket = (term.sigma_BT.float() * BUCKETS).long().clamp_(0, BUCKETS - 1).flatten()
    counts = term.counts_BT.double().flatten()
    pairs = torch.stack([term.error_BT.detach().double().flatten() * counts, counts], dim=-1)
    sums_K2.index_add_(0, bucket, pairs)


def means(name: str, sums_K2: Sequence[Sequence[float]], prefix: str = "") -> dict[str, float]:
    """The means of a loss, over all and by bucket, by their names in the log; without what nothing was counted in."""
    total, count = (sum(pair[i] for pair in sums_K2) for i in (0, 1))
    values = {f"{prefix}loss/{name}": total / count} if count else {}
    for k, (bucket_total, bucket_count) in enumerate(sums_K2):
        if bucket_count:
            bucket = f"{k / BUCKETS:.2f}-{(k + 1) / BUCKETS:.2f}"
            values[f"{prefix}sigma/{name}/{bucket}"] = bucket_total / bucket_count
    return values


@dataclass
class ClipLengths:
    """Latent frames per clip, summed over the passes between two log lines; equal on all processes."""

    frames: int = 0
    passes: int = 0

    def add(self, frames: int) -> None:
        """Count a pass over clips of that many latent frames."""
        self.frames += frames
        self.passes += 1

    def read(self) -> float:
        """The mean since the last call."""
        mean = self.frames / max(self.passes, 1)
        self.frames = self.passes = 0
        return mean


class LossMeter:
    """Pairs (sum, count) per loss and sigma bucket; the pairs, not the means, are added over processes."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names = names
        self.sums_LK2 = torch.zeros(len(names) + 1, BUCKETS, 2, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, terms: Mapping[str, LossTerm], total: Tensor) -> None:
        """Add one batch's losses and their weighted total."""
        self.sums_LK2[-1, 0, 0] += total.detach()
        self.sums_LK2[-1, 0, 1] += 1.0
        for index, name in enumerate(self._names):
            add_by_bucket(self.sums_LK2[index], terms[name])

    @torch.no_grad()
    def restore(self, sums_LK2: Tensor, where: Tensor) -> None:
        """Go back to sums of before, where `where` (0-dimensional) is not 0."""
        self.sums_LK2.copy_(torch.where(where.bool().to(sums_LK2.device), sums_LK2, self.sums_LK2))

    def read(self, world: World) -> dict[str, float]:
        """The means over all processes since the last call, by name; what no frame fell in is left out."""
        *sums, total = world.sum(self.sums_LK2).tolist()
        self.sums_LK2.zero_()
        values = {"loss": total[0][0] / total[0][1]} if total[0][1] else {}
        for name, buckets in zip(self._names, sums):
            values |= means(name, buckets)
        return values
