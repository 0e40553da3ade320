"""The curves over time and over lags that the report draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from df_eval.measure import GROUND_TRUTH, SHIFTED, Truth, Video, kind_of, mouth_lag_curve
from df_eval.metrics.identity import identity_distance
from df_eval.results import LengthResults, mean_curve


def add_curves(
    results: LengthResults, row: str, index: int, video: Video, truth: Truth, *, max_lag: int, shifts: tuple[int, ...]
) -> None:
    """Add one clip's curves in one row: lag, and over time mouth, structure, identity distance and sharpness.

    Args:
        index: of the clip.
    """
    add = partial(results.add_curve, row, index)
    add("lag", mouth_lag_curve(row, video, truth, max_lag, shifts))
    if kind_of(row) == SHIFTED:
        return
    read = video.readings
    add("sharpness", video.sharpness_T)
    add("structure_mouth", video.structure_lips and video.structure_lips.opening_T)
    if row == GROUND_TRUTH and truth.signals.mouth_open_T is not None:
        add("true_mouth", truth.signals.mouth_open_T[: truth.length])
    if read is None:
        return
    add("mouth", read.mouth_open_T)
    if read.identity_TD is not None and truth.person_identity_D is not None:
        add("identity_person", identity_distance(read.identity_TD, truth.person_identity_D))
    if read.identity_TD is not None and truth.reference_identity_D is not None:
        add("identity", identity_distance(read.identity_TD, truth.reference_identity_D))


def plain_curves(results: Mapping[int, LengthResults]) -> dict[str, Any]:
    """Mean curves over clips by length, row and name, NaN as null."""
    return {
        str(frames): {
            row: {name: _plain(mean_curve(curves)) for name, curves in found.items()}
            for row, found in measured.curves.items()
        }
        for frames, measured in results.items()
    }


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 6) if math.isfinite(value) else None for value in values]
