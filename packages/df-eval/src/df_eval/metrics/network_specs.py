"""The list's entries that DECA (or EMOCA) and L2CS-Net give."""

from __future__ import annotations

from df_eval.metrics import face_networks, sync
from df_eval.metrics.spec import MetricSpec
from df_models.intervals.ranges import CORRELATION, NOT_NEGATIVE

# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

FLAME = ("flame", "true_flame")
LOOK = ("look", "true_look")
ANGLE = (0.0, 180.0)
_FREE = "The sound does not determine it in a generated video: there it only says how far from the truth's it is."
_DECA = "Feng et al. 2021 (DECA); with emoca:PATH Danecek et al. 2022 (EMOCA)"
_CROP = "square of 1.375 times the mean side of MediaPipe's landmarks from the brows down, frame by frame"
_L2CS = "Abdelrahman et al. 2022 (L2CS-Net, Gaze360)"
_FACE = (
    "square on the longer side of the box of MediaPipe's landmarks, resized to 448 px at once, frame by frame; the "
    "original stretches RetinaFace's box to 224 x 224 px and enlarges that to 448, so its angles may differ"
)

NETWORK_METRICS = [
    MetricSpec(
        "flame_pose",
        "head pose (FLAME)",
        "pose",
        "lower",
        f"Mean angle of the turn from the true head rotation to the read one. {_FREE}",
        lambda s: face_networks.flame_pose_distance(s.flame, s.true_flame),
        within=ANGLE,
        needs=FLAME,
        unit="deg",
        source=_DECA,
        protocol=_CROP,
    ),
    MetricSpec(
        "flame_expression",
        "expression (FLAME)",
        "face",
        "lower",
        "Mean absolute difference of FLAME's 50 expression coefficients to the truth's. What others call average "
        "expression distance (AED) is often of another model's coefficients and does not compare.",
        lambda s: face_networks.flame_expression_distance(s.flame, s.true_flame),
        within=NOT_NEGATIVE,
        needs=FLAME,
        decimals=3,
        source=_DECA,
        protocol=_CROP,
    ),
    MetricSpec(
        "flame_jaw_corr",
        "jaw (FLAME)",
        "lips",
        "higher",
        "Correlation, at lag 0, of the jaw's opening angle with the true one. A clip whose jaw does not move counts as "
        "0.",
        lambda s: sync.correlation(face_networks.jaw_degrees(s.flame), face_networks.jaw_degrees(s.true_flame)),
        within=CORRELATION,
        needs=FLAME,
        decimals=3,
        source=_DECA,
        protocol=_CROP,
        shifted=lambda s: sync.shifted_correlation(
            face_networks.jaw_degrees(s.flame), face_networks.jaw_degrees(s.truth.signals.flame_TD), None, s.shifts
        ),
    ),
    MetricSpec(
        "flame_jaw_amplitude",
        "jaw amplitude (FLAME)",
        "lips",
        "truth",
        "Standard deviation over time of the jaw's opening angle, over the true one's.",
        lambda s: sync.amplitude(face_networks.jaw_degrees(s.flame), face_networks.jaw_degrees(s.true_flame)),
        within=NOT_NEGATIVE,
        needs=FLAME,
        source=_DECA,
        protocol=_CROP,
    ),
    MetricSpec(
        "gaze_error",
        "gaze direction",
        "face",
        "lower",
        f"Mean angle between the read and the true direction of the gaze. {_FREE}",
        lambda s: face_networks.gaze_error(s.look, s.true_look),
        within=ANGLE,
        needs=LOOK,
        unit="deg",
        source=_L2CS,
        protocol=_FACE,
    ),
    MetricSpec(
        "gaze_speed",
        "gaze speed",
        "face",
        "truth",
        "Mean angle per second between the directions of neighbouring frames; the network's own jitter is in it, so "
        "the ground truth's row is the scale.",
        lambda s: face_networks.gaze_speed(s.look),
        within=NOT_NEGATIVE,
        needs=("look",),
        unit="deg/s",
        decimals=1,
        source=_L2CS,
        protocol=_FACE,
    ),
    MetricSpec(
        "gaze_spread",
        "gaze spread",
        "face",
        "truth",
        "Mean angle of the directions to their mean direction: 0 is a stare.",
        lambda s: face_networks.gaze_spread(s.look),
        within=ANGLE,
        needs=("look",),
        unit="deg",
        source=_L2CS,
        protocol=_FACE,
    ),
]
"""Entries of real faces whose networks are given (``readers.deca``, ``readers.gaze``)."""
