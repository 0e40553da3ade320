"""Quantities that are functions of the step alone, so that resuming has nothing of theirs to restore."""

from __future__ import annotations

import math
from collections.abc import Sequence


def learning_rate(
    step: int, *, peak: float, warmup: int, total: int, floor: float, bends: Sequence[tuple[int, int]] = ()
) -> float:
    """Linear warm-up over ``warmup`` steps, then a half cosine from ``peak`` to ``floor * peak`` at ``total``.

    Args:
        step: optimizer steps taken before this one, from 0. The first step already moves (``peak / warmup``).
        bends: pairs (step, total): until that step the schedule was bound for that total, and went on from where it
            was to the next one, faster or slower.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    share = _share_gone(step, warmup, total, bends)
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share)))


def _share_gone(step: int, begin: int, total: int, bends: Sequence[tuple[int, int]]) -> float:
    """How much of the way from step `begin` to `total` is gone, 0 to 1, with `bends` as in :func:`learning_rate`."""
    share = 0.0
    for until, bound in (*bends, (step, total)):
        until = max(begin, min(step, until))
        share += (1.0 - share) * min(1.0, (until - begin) / max(1, bound - begin))
        begin = until
    return share


def ema_decay(step: int, *, decay: float) -> float:
    """The averaging factor of the step: ``(1 + step) / (10 + step)`` until that reaches ``decay``."""
    return min(decay, (1.0 + step) / (10.0 + step))


def decayed_weight(step: int, *, start: float, end: float, over: int, bends: Sequence[tuple[int, int]] = ()) -> float:
    """A loss weight that falls along a half cosine from ``start`` to ``end`` in ``over`` steps, then stays.

    Args:
        bends: pairs (step, over) as in :func:`learning_rate`.
    """
    if over <= 0:
        return end
    share = _share_gone(step, 0, over, bends)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))
