"""The value of one metric on one clip: a numerator and a denominator, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """``numerator / denominator`` of one clip; clips are pooled as sum of numerators over sum of denominators.

    A plain per-clip value has denominator 1, so that pooling is the mean over clips. ``denominator == 0`` means that
    the metric is undefined on this clip; ``note`` then says why, and the clip is left out and counted. ``note`` may
    also qualify a defined value ("mouth does not move").
    """

    numerator: float
    denominator: float = 1.0
    note: str = ""

    @property
    def defined(self) -> bool:
        """Whether the clip enters the pooled value."""
        return self.denominator != 0 and math.isfinite(self.numerator) and math.isfinite(self.denominator)

    @property
    def value(self) -> float | None:
        """The clip's own value, None where undefined."""
        return self.numerator / self.denominator if self.defined else None

    @staticmethod
    def undefined(reason: str) -> Pair:
        """A clip on which the metric does not exist."""
        return Pair(0.0, 0.0, reason)
