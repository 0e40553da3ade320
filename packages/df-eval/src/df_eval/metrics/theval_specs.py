"""The list's entries of THEval (`df_eval.metrics.theval`)."""

from __future__ import annotations

from df_eval.metrics import theval
from df_eval.metrics.pair import Pair
from df_eval.metrics.seen import Seen
from df_eval.metrics.spec import MetricSpec
from df_models.intervals.ranges import NOT_NEGATIVE, SHARE

# pyright: reportArgumentType=false, reportOptionalSubscript=false

_PAPER = "Quignon et al., CVPR 2026 (THEval, arXiv 2511.04520), "
_LANDMARKS = "MediaPipe's face landmarker on single images of the clip's crop, in place of FaceMesh with tracking"
_SPEECH = f"{_LANDMARKS}; speech of the whole clip's sound by Silero VAD with its defaults, rounded to 0.1 s"


def _head_motion(s: Seen) -> Pair:
    place_T2 = s.theval[:, [theval.Column.X, theval.Column.Y]] * s.video.frames_THWC.shape[1] / 2
    return theval.head_motion(s.angles, place_T2)


THEVAL = [
    MetricSpec(
        "theval_lip_dynamics",
        "lip dynamics",
        "theval",
        "truth",
        "Standard deviation over time of the distance of two landmarks of the lips, mean over all pairs of 40.",
        lambda s: theval.lip_dynamics(s.lips),
        within=NOT_NEGATIVE,
        needs=("lips",),
        unit="pixels of 256",
        decimals=3,
        source=_PAPER + "Naturalness/lip_dynamics.py",
        protocol=_LANDMARKS,
    ),
    MetricSpec(
        "theval_head_motion",
        "head motion dynamics",
        "theval",
        "truth",
        "sqrt(s v + p): s the standard deviation of an angle (degrees), v the variance of its change per frame, both "
        "the mean of yaw, pitch and roll; p the variance of the face's place (pixels), mean of x and y.",
        _head_motion,
        within=NOT_NEGATIVE,
        needs=("theval", "angles"),
        source=_PAPER + "Naturalness/head_motion_dynamics.py",
        protocol="angles of MediaPipe's matrix in place of FaceXFormer's, the middle of the landmarks' box in place of "
        "RetinaFace's, pixels of the clip's crop: the value depends on its size",
    ),
    MetricSpec(
        "theval_eyebrows",
        "eyebrow dynamics",
        "theval",
        "truth",
        "Mean absolute change per frame of the distance of a brow's middle to its eye's, mean of both sides.",
        lambda s: theval.eyebrow_dynamics(s.theval),
        within=NOT_NEGATIVE,
        needs=("theval",),
        unit="distances of the eyes",
        decimals=4,
        source=_PAPER + "Naturalness/eyebrow_dynamics.py",
        protocol=f"{_LANDMARKS}, whose trembling counts",
    ),
    MetricSpec(
        "theval_silent_lip",
        "silent lip stability",
        "theval",
        "truth",
        "Median of |g - mean g| over the frames without speech, in pauses of "
        f"{theval.SILENT_SECONDS} s or more; g is the gap between the inner lips.",
        lambda s: theval.silent_lip_stability(s.theval, s.speech),
        within=NOT_NEGATIVE,
        needs=("theval", "speech"),
        unit="distances of the eyes' outer corners",
        decimals=4,
        source=_PAPER + "Synchronization/silent_lip_stability.py",
        protocol=_SPEECH,
    ),
    MetricSpec(
        "theval_lip_sync",
        "lip-sync (THEval)",
        "theval",
        "truth",
        "Mean absolute difference of the mouth's opening and the sound's volume over the frames with speech, each from "
        "its least (0) to its largest (1) there. It knows neither words nor lags: read it beside the still image and "
        "the shifted audio.",
        lambda s: theval.lip_sync(s.theval, s.volume, s.speech),
        within=SHARE,
        needs=("theval", "speech"),
        decimals=3,
        source=_PAPER + "Synchronization/lip_sync.py",
        protocol=f"{_SPEECH}; volume: root mean square of {theval.VOLUME_SECONDS} s",
        shifted=lambda s: theval.shifted_lip_sync(
            s.theval, s.truth.signals.volume_T, s.truth.signals.speech_T, s.shifts
        ),
    ),
]
"""Those of the eight that need no image quality network."""
