"""THEval's measures of one clip, and how they become its normalised score. Pure functions.

Source: Quignon, Chopin, Wang and Dantcheva, "THEval. Evaluation Framework for Talking Head Video Generation" (CVPR
2026, arXiv 2511.04520), by its released code (github.com/Newbyl/THEval, commit 3603338); each function names its file.
Of the eight, these five need no image quality network (:data:`LACKING`). A video without a face counts as 0 there in
lip and eyebrow dynamics; here it is undefined, as in every metric of this repository.

Shape suffixes: T pixel frames, M = 6 measures of the landmarks (:class:`Column`), A = 3 angles, K = 40 landmarks of the
lips, C clips, N samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

import numpy as np

from df_eval.metrics.pair import Pair
from df_eval.metrics.sync import MIN_OVERLAP
from df_models.time import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

SIDE = 256
"""Pixels of the square that lips are measured in (lip_dynamics.py)."""
SILENT_SECONDS = 0.3
"""Shorter pauses are no silence (silent_lip_stability.py, MIN_SILENCE_DURATION)."""
LEAST_SPEECH = 0.1
"""Share of frames with speech below which lip-sync is undefined (lip_sync.py)."""
VOLUME_SECONDS = 0.05
"""Of the sound's windows, and between their middles (lip_sync.py)."""
SMALLEST_TRUTH = 1e-9
"""A truth nearer to 0 gives no normalised score (scoring.py, epsilon)."""
SAME = 1e-8
"""Added to a range before dividing by it, so that a constant signal is 0 (lip_sync.py)."""

PARTS = ("theval_lip_dynamics", "theval_head_motion", "theval_eyebrows", "theval_silent_lip", "theval_lip_sync")
"""Those of the eight that df-eval measures, by name."""
LACKING = ("global aesthetic (TOPIQ-IAA)", "mouth quality (MUSIQ)", "face quality (TOPIQ-face)")
"""Those that it does not: programs of pyiqa, which no file here has been held against (docs/metrics.md)."""
EIGHT = len(PARTS) + len(LACKING)


class Column(IntEnum):
    """Measures of the landmarks of one frame (`df_eval.reading.theval_points`)."""

    LEFT_BROW = 0
    RIGHT_BROW = 1
    OPENING = 2
    GAP = 3
    X = 4
    Y = 5


def eyebrow_dynamics(measures_TM: np.ndarray) -> Pair:
    """Mean absolute change of the brows' distance to the eyes, from a frame with a face to the next one that has one,
    over both sides (eyebrow_dynamics.py). Free of place, tilt and size of the face."""
    gaps = measures_TM[:, [Column.LEFT_BROW, Column.RIGHT_BROW]]
    read = gaps[np.isfinite(gaps).all(axis=1)]
    if len(read) < 2:
        return Pair.undefined("a face was found in fewer than 2 frames")
    return Pair(float(np.abs(np.diff(read, axis=0)).mean()))


def lip_dynamics(lips_TK2: np.ndarray) -> Pair:
    """Standard deviation over time of the distance of two landmarks of the lips, mean over all pairs, in pixels of an
    image of 256 (lip_dynamics.py). Not free of the face's size.

    An earlier commit took variances of distances over those of the eyes; the published value of the true videos, 1.72,
    is of this form.

    Args:
        lips_TK2: in half sides of the image.
    """
    read = lips_TK2[np.isfinite(lips_TK2).all(axis=(1, 2))] * SIDE / 2
    if len(read) < 2:
        return Pair.undefined("a face was found in fewer than 2 frames")
    first, second = np.triu_indices(read.shape[1], k=1)
    return Pair(float(np.linalg.norm(read[:, first] - read[:, second], axis=-1).std(axis=0).mean()))


def head_motion(angles_TA: np.ndarray, place_T2: np.ndarray) -> Pair:
    """``sqrt(spread * jerkiness + wandering)`` (head_motion_dynamics.py), over the frames with a face: the angles'
    standard deviation times the variance of their changes, each the mean of three, plus the variance of the face's
    place, mean of x and y.

    Degrees and pixels are added, so the value depends on the size of the video.

    Args:
        angles_TA: degrees.
        place_T2: middle of the face's box, pixels.
    """
    seen = np.isfinite(angles_TA).all(axis=1) & np.isfinite(place_T2).all(axis=1)
    if seen.sum() < 2:
        return Pair.undefined("a face was found in fewer than 2 frames")
    angles, place = angles_TA[seen], place_T2[seen]
    spread, jerkiness = angles.std(axis=0).mean(), np.diff(angles, axis=0).var(axis=0).mean()
    return Pair(float(np.sqrt(spread * jerkiness + place.var(axis=0).mean())))


def silent_frames(speech_T: np.ndarray, fps: float = FPS) -> np.ndarray:
    """Frames without speech, in runs of `SILENT_SECONDS` or more: bool [T] (silent_lip_stability.py)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], speech_T.astype(bool), [True]]).astype(int)))
    silent_T = np.zeros(len(speech_T), bool)
    for start, end in edges.reshape(-1, 2):
        silent_T[start:end] = end - start >= SILENT_SECONDS * fps
    return silent_T


def silent_lip_stability(measures_TM: np.ndarray, speech_T: np.ndarray) -> Pair:
    """Median distance of the lips' gap to its mean, over the silent frames (silent_lip_stability.py)."""
    silent_T = silent_frames(speech_T)
    if not silent_T.any():
        return Pair.undefined(f"no pause of {SILENT_SECONDS} s")
    gaps = measures_TM[silent_T, Column.GAP]
    read = gaps[np.isfinite(gaps)]
    if len(read) < 2:
        return Pair.undefined("a face was found in fewer than 2 silent frames")
    return Pair(float(np.median(np.abs(read - read.mean()))))


def lip_sync(measures_TM: np.ndarray, volume_T: np.ndarray, speech_T: np.ndarray) -> Pair:
    """Mean absolute difference of the mouth's opening and the sound's volume during speech, each from its least (0) to
    its largest (1) there (lip_sync.py). A mouth that does not move is 0 all the time."""
    opening_T = measures_TM[:, Column.OPENING]
    both = speech_T.astype(bool) & np.isfinite(opening_T)
    if speech_T.mean() < LEAST_SPEECH or both.sum() < 2:
        return Pair.undefined("too little speech with a face")
    opening, volume = (_from_least_to_largest(signal_T[both]) for signal_T in (opening_T, volume_T))
    return Pair(float(np.abs(opening - volume).mean()))


def _from_least_to_largest(signal_T: np.ndarray) -> np.ndarray:
    return (signal_T - signal_T.min()) / (np.ptp(signal_T) + SAME)


def shifted_lip_sync(
    measures_TM: np.ndarray, long_volume: np.ndarray, long_speech: np.ndarray, shifts: tuple[int, ...]
) -> Pair:
    """:func:`lip_sync` with the sound taken later, mean over the shifts that leave `MIN_OVERLAP` frames."""
    pairs = []
    for shift in shifts:
        overlap = min(len(measures_TM), len(long_volume) - shift)
        if overlap >= MIN_OVERLAP:
            sound = (signal[shift : shift + overlap] for signal in (long_volume, long_speech))
            pairs.append(lip_sync(measures_TM[:overlap], *sound))
    values = [pair.numerator for pair in pairs if pair.defined]
    if values:
        return Pair(float(np.mean(values)))
    needed = min(shifts) + MIN_OVERLAP
    return pairs[0] if pairs else Pair.undefined(f"a shifted comparison needs clips of {needed} frames")


def volume(wave_N: np.ndarray, frames: int) -> np.ndarray:
    """The sound's root mean square in windows of `VOLUME_SECONDS` around their middles, at the frames' times: float64
    [T] (lip_sync.py, which takes ``librosa.feature.rms``: ends padded with silence, linear between middles)."""
    window = int(VOLUME_SECONDS * SAMPLE_RATE)
    wave = np.pad(wave_N.astype(np.float64), (window // 2, max(window // 2, frames * SAMPLES_PER_FRAME - len(wave_N))))
    whole = wave[: len(wave) // window * window].reshape(-1, window)
    rms = np.sqrt(np.square(whole).mean(axis=1))
    return np.interp(np.arange(frames) / FPS, np.arange(len(rms)) * VOLUME_SECONDS, rms)


def closeness(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """``1 - |made - true| / |true|``, NaN where the truth is 0 (scoring.py, equation 12 of the paper).

    >>> closeness(np.array([12.0, 5.0, 1.0]), np.array([10.0, 10.0, 0.0])).tolist()
    [0.8, 0.5, nan]
    """
    size = np.abs(true)
    return 1 - np.divide(np.abs(made - true), size, out=np.full(np.shape(size), np.nan), where=size > SMALLEST_TRUTH)


def values_of(pairs: Mapping[str, Pair]) -> np.ndarray | None:
    """A clip's values of `PARTS`, ``[1, 5]``, NaN where undefined; None if it has none of them."""
    found = [pairs[name].value if name in pairs else None for name in PARTS]
    values = np.array([[np.nan if value is None else value for value in found]])
    return values if np.isfinite(values).any() else None


def score(true: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> Callable[[np.ndarray], float]:
    """The mean closeness of some clips' means to the true clips' means, over the parts that the truth has.

    A part enters by the clips on which both have it. One that the truth has and the made videos have nowhere makes the
    score undefined: scores of different parts would not compare.
    """
    true_CP, made_CP = (np.concatenate([*clips]) for clips in (true, made))
    used = _has_truth(true_CP)
    both_CP = np.isfinite(true_CP) & np.isfinite(made_CP)

    def of(pick: np.ndarray) -> float:
        count = both_CP[pick].sum(axis=0)
        sums = [np.where(both_CP, values, 0.0)[pick].sum(axis=0) for values in (made_CP, true_CP)]
        means = [np.divide(total, count, out=np.full(len(PARTS), np.nan), where=count > 0) for total in sums]
        return float(closeness(*means)[used].mean()) if used.any() else float("nan")

    return of


def _has_truth(true_CP: np.ndarray) -> np.ndarray:
    """Which parts the truth has a value of that is not 0."""
    return np.asarray((np.abs(np.nan_to_num(true_CP)) > SMALLEST_TRUTH).any(axis=0))


def remark(true: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> str:
    """Which of the eight a score is of, and why it has no value if it has none."""
    true_CP, made_CP = (np.concatenate([np.full((1, len(PARTS)), np.nan), *clips]) for clips in (true, made))
    used = _has_truth(true_CP)
    common_CP = np.where(np.isfinite(made_CP), true_CP, np.nan)
    nowhere = used & ~_has_truth(common_CP)
    if nowhere.any():
        lost = _names(nowhere)
        return f"{lost} has a value in the truth and none where both were read, so no score compares with other rows'"
    lost = [_names(np.arange(len(PARTS)) == part) for part in np.flatnonzero(~used)]
    missing = [*LACKING, *(f"{name} (0 or undefined in the truth)" for name in lost)]
    return f"{int(used.sum())} of THEval's {EIGHT}, not its final score; without {', '.join(missing)}"


def _names(which_P: np.ndarray) -> str:
    return ", ".join(name.removeprefix("theval_").replace("_", " ") for name, there in zip(PARTS, which_P) if there)
