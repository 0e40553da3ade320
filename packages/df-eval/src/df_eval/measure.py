"""Every metric of one clip in one row of the table: the list of metrics (`df_eval.metrics.catalog`) decides which.

Shape suffixes: T pixel frames of the measured length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from df_eval.metrics import CATALOG, sync
from df_eval.metrics.pair import Pair
from df_eval.metrics.seen import (
    GENERATED,
    GROUND_TRUTH,
    RECONSTRUCTION,
    ROWS,
    SHIFTED,
    STATIC,
    Seen,
    Truth,
    Video,
)
from df_eval.metrics.signals import lag_curve

__all__ = [
    "GENERATED",
    "GROUND_TRUTH",
    "RECONSTRUCTION",
    "ROWS",
    "SAME_VIDEO",
    "SHIFTED",
    "STATIC",
    "Measured",
    "Truth",
    "Video",
    "measure",
    "mouth_lag_curve",
]

SAME_VIDEO = "the same video as in the row 'generated'"


@dataclass(frozen=True)
class Measured:
    """Pairs by metric name; names that are absent do not exist in this row (the reason is in ``absent``)."""

    pairs: dict[str, Pair]
    absent: dict[str, str] = field(default_factory=dict)


def measure(row: str, video: Video, truth: Truth, *, max_lag: int, shifts: tuple[int, ...]) -> Measured:
    """Measure one clip in one row."""
    seen = Seen(video, truth, max_lag, shifts)
    pairs: dict[str, Pair] = {}
    absent: dict[str, str] = {}
    for spec in CATALOG:
        how = spec.shifted if row == SHIFTED else spec.measure
        if how is None:
            continue
        if row in spec.not_in:
            absent[spec.name] = spec.not_in[row]
        elif all(getattr(seen, need) is not None for need in spec.needs):
            pairs[spec.name] = how(seen)
        elif row == SHIFTED:
            absent[spec.name] = _unread(video)
    return Measured(pairs, absent)


def _unread(video: Video) -> str:
    return "no reader for this data" if video.readings is None else "this reader does not measure it"


def mouth_lag_curve(row: str, video: Video, truth: Truth, max_lag: int, shifts: tuple[int, ...]) -> np.ndarray | None:
    """Correlation of the mouth opening at lags -max_lag..max_lag, NaN where undefined; None if it cannot be read."""
    if video.readings is None or video.readings.mouth_open_T is None or truth.signals.mouth_open_T is None:
        return None
    start = shifts[0] if row == SHIFTED else 0
    true = truth.signals.mouth_open_T[start : start + truth.length]
    if len(true) < sync.MIN_OVERLAP and row == SHIFTED:
        return None
    return lag_curve(video.readings.mouth_open_T[: len(true)], true, max_lag=max_lag).correlation
