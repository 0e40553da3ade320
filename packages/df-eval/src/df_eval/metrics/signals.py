"""Correlation of two signals over time, at lag 0 and over a range of lags.

Shape suffix: T pixel frames (25 per second). Masks are True where a frame was read; frames that were not read are left
out of every sum, never filled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_FRAMES = 8
"""Fewer commonly read frames than this give no correlation."""

STILL_SHARE = 0.01
"""A read signal that varies less than this share of the truth's standard deviation counts as still."""


@dataclass(frozen=True)
class LagCurve:
    """Correlation as a function of the lag of the read signal behind the true one.

    Attributes:
        lags: int [2*max_lag+1], in pixel frames; positive: the read signal comes later than the truth.
        correlation: float [2*max_lag+1], NaN where undefined.
    """

    lags: np.ndarray
    correlation: np.ndarray

    @property
    def best(self) -> tuple[int, float] | None:
        """Lag of the largest correlation (ties: the smallest |lag|) and the correlation there; None if undefined."""
        if np.isnan(self.correlation).all():
            return None
        peak = np.nanmax(self.correlation)
        at_peak = self.lags[np.isclose(self.correlation, peak, rtol=0, atol=1e-12)]
        lag = int(at_peak[np.argmin(np.abs(at_peak))])
        return lag, float(peak)


def common_mask(a_T: np.ndarray, b_T: np.ndarray, mask_T: np.ndarray | None = None) -> np.ndarray:
    """Frames in which both signals are finite and the mask is True: bool [T]."""
    if a_T.shape != b_T.shape or a_T.ndim != 1:
        raise ValueError(f"two signals of one length are needed, got shapes {a_T.shape} and {b_T.shape}")
    both = np.isfinite(a_T) & np.isfinite(b_T)
    return both if mask_T is None else both & mask_T.astype(bool)


def pearson(a_T: np.ndarray, b_T: np.ndarray, mask_T: np.ndarray | None = None) -> float:
    """Pearson correlation over the commonly read frames.

    Returns:
        A value in [-1, 1], or NaN if fewer than `MIN_FRAMES` frames are common or one of the signals is constant.
    """
    keep = common_mask(a_T, b_T, mask_T)
    if keep.sum() < MIN_FRAMES:
        return float("nan")
    a = a_T[keep].astype(np.float64)
    b = b_T[keep].astype(np.float64)
    a = a - a.mean()
    b = b - b.mean()
    scale_a, scale_b = np.abs(a).max(), np.abs(b).max()
    if scale_a <= 1e-12 or scale_b <= 1e-12:
        return float("nan")
    a, b = a / scale_a, b / scale_b
    return float(np.clip((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), -1.0, 1.0))


def lag_curve(read_T: np.ndarray, true_T: np.ndarray, mask_T: np.ndarray | None = None, max_lag: int = 5) -> LagCurve:
    """Correlation of ``read[t + lag]`` with ``true[t]`` for lag in -max_lag..max_lag.

    A video whose mouth moves two frames too late has its peak at lag +2. Only frames that exist in both are compared
    (no wrap-around).
    """
    keep = common_mask(read_T, true_T, mask_T)
    readable = np.isfinite(read_T) if mask_T is None else np.isfinite(read_T) & mask_T.astype(bool)
    read = np.where(readable, read_T, np.nan)
    lags = np.arange(-max_lag, max_lag + 1)
    values = [pearson(*_overlap(read, true_T, int(lag))) for lag in lags]
    if keep.sum() < MIN_FRAMES:
        values = [float("nan")] * len(lags)
    return LagCurve(lags, np.array(values))


def _overlap(read_T: np.ndarray, true_T: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    length = len(read_T)
    if lag >= 0:
        return read_T[lag:], true_T[: max(length - lag, 0)]
    return read_T[: max(length + lag, 0)], true_T[-lag:]


def is_still(read_T: np.ndarray, true_T: np.ndarray, mask_T: np.ndarray | None = None) -> bool:
    """Whether the read signal stands still (less than `STILL_SHARE` of the truth's standard deviation)."""
    keep = common_mask(read_T, true_T, mask_T)
    if not keep.any():
        return False
    return bool(np.std(read_T[keep]) < STILL_SHARE * np.std(true_T[keep]))
