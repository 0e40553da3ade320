"""The list's second part: metrics that the field quotes, each by its published definition."""

from __future__ import annotations

from df_eval.metrics import expression, frames, identity, lips, sync
from df_eval.metrics.spec import MOUTH, NOT_ITSELF, TO_REFERENCE, MetricSpec
from df_eval.metrics.syncnet import MAX_SHIFT
from df_models.intervals.ranges import ANY, CORRELATION, NOT_NEGATIVE, UNIT_DISTANCE

# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

SYNC = ("seen", "heard")
GAZE = ("gaze", "true_gaze")
EXPRESSION = ("expression", "true_expression")
BROW = ("brow", "true_brow")
_LANDMARKS = "MediaPipe's face landmarker (478 points, single images)"
_HEAD = f"{_LANDMARKS}; pose and size removed by the rigid points of the face"
_SYNCNET = "Chung and Zisserman 2016, evaluated as syncnet_python and Prajwal et al. 2020 (LSE-C, LSE-D)"
_SYNC_PROTOCOL = (
    "SyncNet v2, 25 fps, 16 kHz, windows of 5 frames, shifts of +-15, mean over windows; the face's box is that of the "
    "landmarks, not S3FD's, so figures compare within one protocol; clips of 35 frames or more"
)
_ALIGNED = "five points to the 112x112 template; the network is the protocol's reader"

FIELD = [
    MetricSpec(
        "sync_c",
        "Sync-C",
        "lips",
        "higher",
        "SyncNet's confidence: median over the shifts of the distance of lips and sound, less its minimum. Above the "
        "ground truth's own it is no quality.",
        lambda s: s.sync[0],
        within=NOT_NEGATIVE,
        needs=SYNC,
        source=_SYNCNET,
        protocol=_SYNC_PROTOCOL,
        shifted=lambda s: s.shifted_sync[0],
    ),
    MetricSpec(
        "sync_d",
        "Sync-D",
        "lips",
        "lower",
        "SyncNet's distance of lips and sound at the best shift.",
        lambda s: s.sync[1],
        within=NOT_NEGATIVE,
        needs=SYNC,
        source=_SYNCNET,
        protocol=_SYNC_PROTOCOL,
        shifted=lambda s: s.shifted_sync[1],
    ),
    MetricSpec(
        "sync_offset",
        "Sync offset",
        "lips",
        "truth",
        "The shift of that minimum; positive: the sound comes too early for the lips.",
        lambda s: s.sync[2],
        within=(-float(MAX_SHIFT), float(MAX_SHIFT)),
        needs=SYNC,
        unit="frames",
        source=_SYNCNET,
        protocol=_SYNC_PROTOCOL,
    ),
    MetricSpec(
        "lmd",
        "lip landmarks (LMD)",
        "lips",
        "lower",
        "Mean distance of the lips' landmarks to the truth's, either centred on its own mean in every frame, over the "
        "distance of the true eyes' middles.",
        lambda s: lips.landmark_distance(s.lips, s.true_lips, s.true_eyes),
        within=NOT_NEGATIVE,
        needs=("lips", "true_lips", "true_eyes"),
        decimals=4,
        source="Chen et al. 2018 (Lip movements generation at a glance), divided by the distance of the eyes",
        protocol="40 points of MediaPipe's outer and inner contours",
    ),
    MetricSpec(
        "mouth_soft_dtw",
        "mouth, aligned",
        "lips",
        "lower",
        "Soft-DTW divergence per frame of the read and the true mouth opening, both in standard deviations of the "
        "truth: the movements may come a little early or late. About 0 for the truth itself.",
        lambda s: lips.aligned_distance(s.mouth, s.true_mouth),
        within=NOT_NEGATIVE,
        needs=MOUTH,
        decimals=3,
        source="Cuturi and Blondel 2017; the divergence of Blondel, Mensch and Vert 2021",
        protocol=f"gamma {lips.GAMMA}, squared differences",
    ),
    MetricSpec(
        "silent_movement",
        "movement in silence",
        "lips",
        "truth",
        "Mean absolute change per frame of the read mouth opening while the sound is silent, in standard deviations of "
        "the true mouth.",
        lambda s: lips.silent_movement(s.mouth, s.true_mouth, s.silent),
        within=NOT_NEGATIVE,
        needs=(*MOUTH, "silent"),
        decimals=4,
        protocol=f"silent: {lips.SILENT_DB:.0f} dB below the loudest frame, {lips.SETTLING} frames from any sound",
    ),
    MetricSpec(
        "brow_corr",
        "brows",
        "face",
        "higher",
        "Correlation, at lag 0, of the read height of the brows over the corners of the eyes with the true one. The "
        "sound determines it in part only. A clip whose brows do not move counts as 0.",
        lambda s: sync.correlation(s.brow, s.true_brow),
        within=CORRELATION,
        needs=BROW,
        decimals=3,
        protocol=f"{_HEAD}; both edges of both brows",
        shifted=lambda s: sync.shifted_correlation(s.brow, s.truth.signals.brow_T, None, s.shifts),
    ),
    MetricSpec(
        "brow_amplitude",
        "brow amplitude",
        "face",
        "truth",
        "Standard deviation over time of the read height of the brows, over the true one's.",
        lambda s: sync.amplitude(s.brow, s.true_brow),
        within=NOT_NEGATIVE,
        needs=BROW,
        protocol=f"{_HEAD}; both edges of both brows",
    ),
    MetricSpec(
        "gaze_distance",
        "gaze",
        "face",
        "lower",
        "Mean distance of the irises' read place within the eyes to the true one, of frames with open eyes. The sound "
        "does not determine the gaze of a generated video: there it only says how far from the truth's it is. In small "
        "faces misreadings are as large as movements: it tells something only where the reconstruction's is well below "
        "the still image's.",
        lambda s: expression.gaze_distance(s.gaze, s.true_gaze),
        within=NOT_NEGATIVE,
        needs=GAZE,
        unit="eye widths",
        decimals=4,
        protocol=f"{_LANDMARKS}; offset from the middle of the eye's corners, along and across, mean of both eyes",
    ),
    MetricSpec(
        "gaze_amplitude",
        "gaze amplitude",
        "face",
        "truth",
        "Standard deviation over time of that place, over the true one's, sums over clips: 0 is a stare.",
        lambda s: expression.gaze_amplitude(s.gaze, s.true_gaze),
        within=NOT_NEGATIVE,
        needs=GAZE,
        protocol=f"{_LANDMARKS}; offset from the middle of the eye's corners, along and across, mean of both eyes",
    ),
    MetricSpec(
        "expression_landmarks",
        "expression (landmarks)",
        "face",
        "lower",
        "Mean distance of 16 keypoints of brows, lids, cheeks, lips and jaw to the truth's, each as its offset from "
        "its own median over the measured frames: neither pose nor the shape of the face counts. No distance of "
        "FLAME's or another model's parameters, and not what is called AED.",
        lambda s: expression.keypoint_distance(s.expression, s.true_expression),
        within=NOT_NEGATIVE,
        needs=EXPRESSION,
        unit="face heights",
        decimals=4,
        protocol=f"{_HEAD}; x and y; median over the frames that were read in both",
    ),
    MetricSpec(
        "csim",
        "CSIM",
        "identity",
        "higher",
        "Cosine of the identity vector of each frame with that of the reference image, mean over time.",
        lambda s: identity.cosine_to_reference(s.identity, s.reference_identity),
        within=CORRELATION,
        needs=TO_REFERENCE,
        decimals=3,
        source="cosine of face recognition vectors (Deng et al. 2019, ArcFace)",
        protocol=_ALIGNED,
    ),
    MetricSpec(
        "acd_mocogan",
        "ACD, all pairs",
        "identity",
        "lower",
        "Euclidean distance of unit identity vectors, mean over all pairs of two frames of the video. A still image "
        "has 0.",
        lambda s: identity.pairwise_distance(s.identity),
        within=UNIT_DISTANCE,
        needs=("identity",),
        decimals=3,
        source="Tulyakov et al. 2018, MoCoGAN",
        protocol=_ALIGNED,
    ),
    MetricSpec(
        "acd_reference",
        "ACD, to reference",
        "identity",
        "lower",
        "Euclidean distance of the unit identity vector of each frame to the reference image's, mean over time.",
        lambda s: identity.distance_to_reference(s.identity, s.reference_identity),
        within=UNIT_DISTANCE,
        needs=TO_REFERENCE,
        decimals=3,
        source="ACD (Tulyakov et al. 2018), to the reference in place of all pairs: sqrt(2 - 2 cosine) per frame",
        protocol=_ALIGNED,
    ),
    MetricSpec(
        "face_quality",
        "face quality",
        "face",
        "higher",
        "How good the face is for recognition, eDifFIQA's score, mean over the frames with a face. By OpenCV's "
        "model zoo the photographs of LFW score above 0.5.",
        lambda s: identity.mean_over_time(s.quality),
        within=ANY,
        needs=("quality",),
        decimals=3,
        source="Babnik, Peer and Struc 2024 (eDifFIQA)",
        protocol="five landmarks to the 112x112 template; the network is the protocol's reader",
    ),
    MetricSpec(
        "flicker",
        "flicker",
        "motion",
        "truth",
        "Mean absolute second difference of a pixel over time, over the whole image: steady motion weighs little, what "
        "jumps back and forth much.",
        lambda s: frames.flicker(s.second_changes_T),
        within=NOT_NEGATIVE,
        unit="grey levels",
    ),
    MetricSpec(
        "lpips",
        "LPIPS",
        "image",
        "lower",
        "Perceptual distance to the true frames, mean over frames; same remark as for PSNR.",
        lambda s: s.lpips,
        within=NOT_NEGATIVE,
        needs=("lpips",),
        decimals=4,
        not_in=NOT_ITSELF,
        source="Zhang et al. 2018",
        protocol="VGG-16 of StyleGAN's metrics archive, pixels of 0 to 255 at the clip's size",
    ),
]
"""Entries beside the repository's own."""
