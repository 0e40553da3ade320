"""Lip-sync of one clip: how well the mouth that is read from pixels follows the true one.

Shape suffix: T pixel frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from df_eval.metrics.pair import Pair
from df_eval.metrics.signals import MIN_FRAMES, common_mask, is_still, lag_curve, pearson

STILL_NOTE = "the signal read from the video does not move: counted as 0"

MIN_OVERLAP = 25
"""Frames that a shifted comparison needs at least."""


def correlation(read_T: np.ndarray, true_T: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """Correlation at lag 0 of a read signal with the truth.

    - The truth is constant, or too few frames were read: there is nothing to measure, the clip is undefined.
    - The truth moves and the read signal stands still: the correlation is mathematically undefined, but leaving such
      clips out would let a video that froze escape the mean. It counts as 0 (no relation to the audio), with a note.
    """
    keep = common_mask(read_T, true_T, mask_T)
    if keep.sum() < MIN_FRAMES:
        return Pair.undefined(f"fewer than {MIN_FRAMES} frames were read")
    if np.std(true_T[keep]) <= 1e-12:
        return Pair.undefined("the true signal is constant")
    if is_still(read_T, true_T, mask_T):
        return Pair(0.0, 1.0, STILL_NOTE)
    return Pair(pearson(read_T, true_T, mask_T))


def mean_correlation(read_T: np.ndarray, others: Sequence[np.ndarray]) -> Pair:
    """The mean of `correlation` with the true signals of other clips, each as long as the shorter of the two.

    What a mouth reaches that moves when mouths usually move, whatever is said: about 0 where sentences have nothing in
    common, far from it in a corpus whose sentences all have one rhythm. Undefined without another clip.
    """
    lengths = [min(len(read_T), len(true_T)) for true_T in others]
    pairs = [correlation(read_T[:n], true_T[:n]) for n, true_T in zip(lengths, others, strict=True)]
    defined = [pair for pair in pairs if pair.defined]
    if not defined:
        return pairs[0] if pairs else Pair.undefined("there is no other clip to compare with")
    note = STILL_NOTE if all(pair.note == STILL_NOTE for pair in defined) else ""
    return Pair(float(np.mean([pair.numerator for pair in defined])), 1.0, note)


def gain(own: Pair, other: Pair) -> Pair:
    """The correlation with the clip's own truth minus that with other clips' truths."""
    for pair in (own, other):
        if not pair.defined:
            return pair
    return Pair(own.numerator - other.numerator, 1.0, own.note)


def still(read_T: np.ndarray, true_T: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """1 if the read signal stands still while the truth moves, else 0; undefined as in `correlation`."""
    result = correlation(read_T, true_T, mask_T)
    return Pair(float(result.note == STILL_NOTE)) if result.defined else result


def best_lag(
    read_T: np.ndarray, true_T: np.ndarray, mask_T: np.ndarray | None = None, max_lag: int = 5
) -> tuple[Pair, Pair]:
    """Lag (frames, positive: video late) of the largest correlation within +-max_lag, and that correlation.

    A still signal has no best lag: both are undefined.
    """
    at_zero = correlation(read_T, true_T, mask_T)
    if not at_zero.defined:
        return at_zero, at_zero
    best = None if at_zero.note == STILL_NOTE else lag_curve(read_T, true_T, mask_T, max_lag).best
    if best is None:
        missing = Pair.undefined("a signal that does not move has no lag")
        return missing, missing
    return Pair(float(best[0])), Pair(best[1])


def amplitude(read_T: np.ndarray, true_T: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """Standard deviation of the read signal as a share of the truth's (1: as lively as the truth)."""
    keep = common_mask(read_T, true_T, mask_T)
    if keep.sum() < MIN_FRAMES:
        return Pair.undefined(f"fewer than {MIN_FRAMES} frames were read")
    return Pair(float(np.std(read_T[keep])), float(np.std(true_T[keep])))


def shifted_correlation(
    read_T: np.ndarray, long_true: np.ndarray, mask_T: np.ndarray | None, shifts: tuple[int, ...]
) -> Pair:
    """The shifted-audio control: the read signal against the truth of the same clip's audio, taken later.

    Frame t of the video is compared with frame t + shift of the truth, as far as the clip goes: no wrap-around.

    Args:
        read_T: signal read from a video made for the audio that starts at frame 0.
        long_true: the true signal of the whole clip, at least T long.
        shifts: in frames; those that leave fewer than `MIN_OVERLAP` frames to compare are left out.

    Returns:
        The mean over the shifts of `correlation`, so that the chance agreement of two syllable rhythms averages out;
        undefined if no shift fits.
    """
    pairs: list[Pair] = []
    for shift in shifts:
        overlap = min(len(read_T), len(long_true) - shift)
        if overlap >= MIN_OVERLAP:
            mask = None if mask_T is None else mask_T[:overlap]
            pairs.append(correlation(read_T[:overlap], long_true[shift : shift + overlap], mask))
    values = [pair.numerator for pair in pairs if pair.defined]
    if pairs and not values:
        return Pair.undefined(pairs[0].note)
    if not values:
        needed = min(shifts) + MIN_OVERLAP
        return Pair.undefined(f"a shifted comparison needs clips of {needed} frames")
    note = STILL_NOTE if all(pair.note == STILL_NOTE for pair in pairs if pair.defined) else ""
    return Pair(float(np.mean(values)), 1.0, note)
