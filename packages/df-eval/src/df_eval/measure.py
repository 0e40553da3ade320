"""Every metric of one clip in one row of the table.

Shape suffixes: T pixel frames of the measured length, L >= T pixel frames of the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from df_eval.metrics import frames as frame_metrics
from df_eval.metrics import identity, pose, sync
from df_eval.metrics.pair import Pair
from df_eval.metrics.signals import lag_curve, pearson
from df_eval.readings import FaceReadings

GROUND_TRUTH = "ground truth"
RECONSTRUCTION = "VAE reconstruction"
GENERATED = "generated"
SHIFTED = "shifted audio"
STATIC = "static image"
ROWS = (GROUND_TRUTH, RECONSTRUCTION, GENERATED, SHIFTED, STATIC)

FREE_POSE = "the audio does not determine the pose: compare the pose statistics"
SAME_VIDEO = "the same video as in the row 'generated'"
NO_STRUCTURE = "only a generated video has a structure stream of its own"
ITSELF = "compared with itself"


@dataclass(frozen=True)
class Truth:
    """The true clip: frames of the measured length, and signals over the whole clip (for the shifted control).

    ``reference_identity_D`` was read from the reference image, ``person_identity_D`` is the mean read from the
    whole true video. ``other_mouths`` are the true mouth openings of the other clips, from their beginnings.
    """

    frames_THWC: np.ndarray
    signals: FaceReadings
    reference_identity_D: np.ndarray | None
    person_identity_D: np.ndarray | None = None
    other_mouths: Sequence[np.ndarray] = ()

    @property
    def length(self) -> int:
        return len(self.frames_THWC)


@dataclass(frozen=True)
class Video:
    """One row's video of a clip, what was read from it, and the mouth opening decoded from its structure stream."""

    frames_THWC: np.ndarray
    readings: FaceReadings | None
    structure_mouth_T: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """Pairs by metric name; names that are absent do not exist in this row (the reason is in ``absent``)."""

    pairs: dict[str, Pair]
    absent: dict[str, str] = field(default_factory=dict)


def measure(row: str, video: Video, truth: Truth, *, max_lag: int, shifts: tuple[int, ...]) -> Measured:
    """Measure one clip in one row."""
    if row == SHIFTED:
        return _measure_shifted(video, truth, shifts)
    pairs: dict[str, Pair] = {}
    absent: dict[str, str] = {}
    _measure_face(pairs, absent, row, video, truth, max_lag)
    _measure_pixels(pairs, absent, row, video, truth)
    return Measured(pairs, absent)


def mouth_lag_curve(row: str, video: Video, truth: Truth, max_lag: int, shifts: tuple[int, ...]) -> np.ndarray | None:
    """Correlation of the mouth opening at lags -max_lag..max_lag, NaN where undefined; None if it cannot be read."""
    if video.readings is None or video.readings.mouth_open_T is None or truth.signals.mouth_open_T is None:
        return None
    start = shifts[0] if row == SHIFTED else 0
    true = truth.signals.mouth_open_T[start : start + truth.length]
    if len(true) < sync.MIN_OVERLAP and row == SHIFTED:
        return None
    return lag_curve(video.readings.mouth_open_T[: len(true)], true, max_lag=max_lag).correlation


def _measure_shifted(video: Video, truth: Truth, shifts: tuple[int, ...]) -> Measured:
    pairs: dict[str, Pair] = {}
    absent: dict[str, str] = {}
    for name, attribute in (("lip_sync", "mouth_open_T"), ("lip_width_corr", "lip_width_T")):
        read = None if video.readings is None else getattr(video.readings, attribute)
        true = getattr(truth.signals, attribute)
        if read is None or true is None:
            absent[name] = _unread(video)
        else:
            pairs[name] = sync.shifted_correlation(read, true, None, shifts)
    return Measured(pairs, absent)


def _unread(video: Video) -> str:
    return "no reader for this data" if video.readings is None else "this reader does not measure it"


def _measure_face(
    pairs: dict[str, Pair], absent: dict[str, str], row: str, video: Video, truth: Truth, max_lag: int
) -> None:
    read = video.readings
    if read is None:
        return
    true = truth.signals.first(truth.length)
    pairs["presence"] = Pair(float(read.presence_T.sum()), float(len(read.presence_T)))
    if read.mouth_open_T is not None and true.mouth_open_T is not None:
        pairs["lip_sync"] = own = sync.correlation(read.mouth_open_T, true.mouth_open_T)
        pairs["lip_sync_other"] = other = sync.mean_correlation(read.mouth_open_T, truth.other_mouths)
        pairs["lip_sync_gain"] = sync.gain(own, other)
        pairs["best_lag"], pairs["lip_sync_best"] = sync.best_lag(read.mouth_open_T, true.mouth_open_T, max_lag=max_lag)
        pairs["mouth_amplitude"] = sync.amplitude(read.mouth_open_T, true.mouth_open_T)
        pairs["still_mouth"] = sync.still(read.mouth_open_T, true.mouth_open_T)
    if read.lip_width_T is not None and true.lip_width_T is not None:
        pairs["lip_width_corr"] = sync.correlation(read.lip_width_T, true.lip_width_T)
    if read.blink_T is not None:
        pairs["blink_rate"] = pose.blink_rate(read.blink_T)
    if true.blink_T is not None:
        pairs["blink_rate_true"] = pose.blink_rate(true.blink_T)
    if video.structure_mouth_T is not None and read.mouth_open_T is not None:
        pairs["structure_mouth"] = sync.correlation(read.mouth_open_T, video.structure_mouth_T)
    if video.structure_mouth_T is not None and true.mouth_open_T is not None:
        pairs["structure_lip_sync"] = sync.correlation(video.structure_mouth_T, true.mouth_open_T)
    if row != GENERATED:
        absent.update(dict.fromkeys(("structure_mouth", "structure_lip_sync"), NO_STRUCTURE))
    _measure_pose(pairs, absent, row, read, true)
    _measure_identity(pairs, read, truth)


def _measure_pose(
    pairs: dict[str, Pair], absent: dict[str, str], row: str, read: FaceReadings, true: FaceReadings
) -> None:
    if read.angles_TA is None:
        return
    pairs["pose_std"] = pose.pose_spread(read.angles_TA)
    pairs["pose_range"] = pose.pose_range(read.angles_TA)
    pairs["pose_speed"] = pose.pose_speed(read.angles_TA)
    compared = ("apd", "yaw_corr", "pitch_corr", "roll_corr")
    if row not in (GROUND_TRUTH, RECONSTRUCTION):
        absent.update(dict.fromkeys(compared, FREE_POSE))
    elif true.angles_TA is not None:
        pairs["apd"] = pose.average_pose_distance(read.angles_TA, true.angles_TA)
        for angle, name in enumerate(compared[1:]):
            value = pearson(read.angles_TA[:, angle], true.angles_TA[:, angle])
            pairs[name] = Pair(value) if np.isfinite(value) else Pair.undefined("constant, or too few frames were read")


def _measure_identity(pairs: dict[str, Pair], read: FaceReadings, truth: Truth) -> None:
    if read.identity_TD is None:
        return
    if truth.person_identity_D is not None:
        person_T = identity.identity_distance(read.identity_TD, truth.person_identity_D)
        pairs["identity_person"] = identity.mean_over_time(person_T)
        pairs["identity_person_ratio"] = identity.last_over_first(person_T)
    if truth.reference_identity_D is None:
        return
    distance_T = identity.identity_distance(read.identity_TD, truth.reference_identity_D)
    quarters = identity.quarter_means(distance_T)
    pairs["identity_distance"] = identity.mean_over_time(distance_T)
    for name, value in (("identity_first", quarters[0]), ("identity_last", quarters[-1])):
        pairs[name] = Pair(float(value)) if np.isfinite(value) else Pair.undefined("no frame of the quarter was read")
    pairs["identity_ratio"] = identity.last_over_first(distance_T)


def _measure_pixels(pairs: dict[str, Pair], absent: dict[str, str], row: str, video: Video, truth: Truth) -> None:
    sharp_T, true_sharp_T = frame_metrics.sharpness(video.frames_THWC), frame_metrics.sharpness(truth.frames_THWC)
    pairs["motion_energy"] = frame_metrics.motion_energy(video.frames_THWC)
    pairs["motion_ratio"] = frame_metrics.motion_ratio(video.frames_THWC, truth.frames_THWC)
    pairs["sharpness_ratio"] = Pair(float(sharp_T.mean()), float(true_sharp_T.mean()))
    pairs["sharpness_drift"] = identity.last_over_first(sharp_T)
    if row == GROUND_TRUTH:
        absent.update(dict.fromkeys(("psnr", "ssim"), ITSELF))
        return
    pairs["psnr"] = frame_metrics.psnr(video.frames_THWC, truth.frames_THWC)
    pairs["ssim"] = frame_metrics.ssim(video.frames_THWC, truth.frames_THWC)
