"""Every metric of one clip in one row of the table: the list of metrics (`df_eval.metrics.catalog`) decides which.

Shape suffixes: T pixel frames of the measured length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from df_eval.metrics import CATALOG, sync
from df_eval.metrics.pair import Pair
from df_eval.metrics.seen import (
    GENERATED,
    GROUND_TRUTH,
    OF_STRUCTURE,
    RECONSTRUCTION,
    ROWS,
    SHIFTED,
    STATIC,
    Seen,
    Truth,
    Video,
    kind_of,
    row_of,
)
from df_eval.metrics.signals import lag_curve
from df_eval.reading.readings import FaceReadings

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
    "kind_of",
    "measure",
    "measure_beside_others",
    "mouth_lag_curve",
    "row_of",
]

SAME_VIDEO = "the same video as in the row 'generated'"


@dataclass(frozen=True)
class Measured:
    """Pairs by metric name; names that are absent do not exist in this row (the reason is in ``absent``).

    Attributes:
        left_out: why the whole clip is not in this row; empty if it is.
    """

    pairs: dict[str, Pair]
    absent: dict[str, str] = field(default_factory=dict)
    left_out: str = ""


def measure(row: str, video: Video, truth: Truth, *, max_lag: int, shifts: tuple[int, ...]) -> Measured:
    """Measure one clip in one row."""
    kind = kind_of(row)
    seen = Seen(video, truth, max_lag, shifts)
    pairs: dict[str, Pair] = {}
    absent: dict[str, str] = {}
    for spec in CATALOG:
        how = spec.shifted if kind == SHIFTED else spec.measure
        if how is None:
            continue
        if kind in spec.not_in:
            absent[spec.name] = spec.not_in[kind]
        elif all(getattr(seen, need) is not None for need in spec.needs):
            pairs[spec.name] = how(seen)
        elif kind == SHIFTED:
            absent[spec.name] = _unread(video)
        elif lacking := [need for need in spec.needs if need in OF_STRUCTURE and getattr(seen, need) is None]:
            absent[spec.name] = f"no {OF_STRUCTURE[lacking[0]]} can be decoded from a structure stream of it"
    return Measured(pairs, absent)


def measure_beside_others(
    mouth_T: np.ndarray, signals: FaceReadings, other_mouths: Sequence[np.ndarray], measured: Measured, row: str
) -> Measured:
    """Add to a clip's metrics those that need the other clips' mouths, too, now that these are known.

    Args:
        mouth_T: read in the row's video.
        signals: the clip's true ones.
    """
    frames_THWC = np.zeros((len(mouth_T), 0, 0, 3), np.uint8)  # as many as there were; none is looked at
    video = Video(frames_THWC, FaceReadings(np.isfinite(mouth_T), mouth_T))
    seen = Seen(video, Truth(frames_THWC, signals, None, other_mouths=other_mouths))
    kind, found = kind_of(row), dict(measured.pairs)
    for spec in CATALOG:
        wanted = "other_mouths" in spec.needs and kind != SHIFTED and kind not in spec.not_in
        if wanted and all(getattr(seen, need) is not None for need in spec.needs):
            found[spec.name] = spec.measure(seen)
    return replace(measured, pairs={spec.name: found[spec.name] for spec in CATALOG if spec.name in found})


def _unread(video: Video) -> str:
    return "no reader for this data" if video.readings is None else "this reader does not measure it"


def mouth_lag_curve(row: str, video: Video, truth: Truth, max_lag: int, shifts: tuple[int, ...]) -> np.ndarray | None:
    """Correlation of the mouth opening at lags -max_lag..max_lag, NaN where undefined; None if it cannot be read."""
    if video.readings is None or video.readings.mouth_open_T is None or truth.signals.mouth_open_T is None:
        return None
    shifted = kind_of(row) == SHIFTED
    start = shifts[0] if shifted else 0
    true = truth.signals.mouth_open_T[start : start + truth.length]
    if len(true) < sync.MIN_OVERLAP and shifted:
        return None
    return lag_curve(video.readings.mouth_open_T[: len(true)], true, max_lag=max_lag).correlation
