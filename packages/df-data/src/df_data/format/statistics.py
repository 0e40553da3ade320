"""Mean and standard deviation of vectors, gathered piece by piece and merged exactly in a fixed order.

Formulas: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from df_models.settings import FrozenModel


class Moments(FrozenModel):
    """Count, mean and sum of squared deviations of vectors [D], in float64."""

    count: int = 0
    mean: tuple[float, ...] = ()
    m2: tuple[float, ...] = ()

    @property
    def std(self) -> np.ndarray:
        """Standard deviation [D] over the population (not N - 1)."""
        return np.sqrt(np.asarray(self.m2, dtype=np.float64) / max(self.count, 1))


def moments_of(values_ND: np.ndarray) -> Moments:
    """The moments of the rows of `values` [N, D]."""
    values = np.asarray(values_ND, dtype=np.float64)
    mean = values.mean(axis=0)
    deviations = np.square(values - mean).sum(axis=0)
    return Moments(count=len(values), mean=tuple(mean.tolist()), m2=tuple(deviations.tolist()))


def merge_moments(pieces: Iterable[Moments]) -> Moments:
    """The moments of all pieces together, merged in the order given (so equal order gives equal bits)."""
    count, mean, m2 = 0, np.zeros(0), np.zeros(0)
    for piece in pieces:
        if piece.count == 0:
            continue
        other_mean, other_m2 = np.asarray(piece.mean), np.asarray(piece.m2)
        if count == 0:
            count, mean, m2 = piece.count, other_mean, other_m2
            continue
        total = count + piece.count
        delta = other_mean - mean
        mean = mean + delta * (piece.count / total)
        m2 = m2 + other_m2 + np.square(delta) * (count * piece.count / total)
        count = total
    return Moments(count=count, mean=tuple(mean.tolist()), m2=tuple(m2.tolist()))
