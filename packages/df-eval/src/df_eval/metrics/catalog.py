"""The list of metrics, in the order of the report: what each is, what it needs, and how it is measured on one clip.

To add a metric is to add its entry (docs/how-to/metric.md): tables, report and definitions are made from this list.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from df_eval.config import MOST_LAG
from df_eval.metrics import frames, identity, pose, sync
from df_eval.metrics.field import FIELD
from df_eval.metrics.network_specs import NETWORK_METRICS
from df_eval.metrics.pair import Pair
from df_eval.metrics.seen import Seen
from df_eval.metrics.signals import pearson
from df_eval.metrics.spec import (
    BESIDE_OTHERS,
    GROUPS,
    MOUTH,
    NOT_ITSELF,
    ONLY_GENERATED,
    POSE,
    SAME_POSE,
    TO_PERSON,
    TO_REFERENCE,
    MetricSpec,
)
from df_eval.metrics.theval_specs import THEVAL
from df_models.intervals.ranges import CORRELATION, NOT_NEGATIVE, SHARE, of_difference

# What the entries share. A metric is measured only where its `needs` are not None, which no type says.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false


def _gain(s: Seen) -> Pair:
    own = sync.correlation(s.mouth, s.true_mouth)
    return sync.gain(own, sync.mean_correlation(s.mouth, s.other_mouths))


def _to_reference(s: Seen) -> np.ndarray:
    return identity.identity_distance(s.identity, s.reference_identity)


def _to_person(s: Seen) -> np.ndarray:
    return identity.identity_distance(s.identity, s.person_identity)


def _quarter(values_T: np.ndarray, which: int) -> Pair:
    value = identity.quarter_means(values_T)[which]
    return Pair(float(value)) if np.isfinite(value) else Pair.undefined("no frame of the quarter was read")


def _angle(s: Seen, which: int) -> Pair:
    value = pearson(s.angles[:, which], s.true_angles[:, which])
    return Pair(value) if np.isfinite(value) else Pair.undefined("constant, or too few frames were read")


_OWN = [
    MetricSpec(
        "lip_sync",
        "lip-sync",
        "lips",
        "higher",
        "Pearson correlation, at lag 0, of the mouth opening read from the pixels with the true mouth opening"
        " of the audio. A clip whose mouth does not move counts as 0 (see still mouths).",
        lambda s: sync.correlation(s.mouth, s.true_mouth),
        within=CORRELATION,
        needs=MOUTH,
        decimals=3,
        shifted=lambda s: sync.shifted_correlation(s.mouth, s.truth.signals.mouth_open_T, None, s.shifts),
    ),
    MetricSpec(
        "lip_sync_other",
        "lip-sync, other clips",
        "lips",
        "lower",
        "Mean correlation, at lag 0, of the read mouth opening with the true ones of the other clips: what a "
        "mouth reaches that moves when mouths usually move, whatever is said. Not 0 where all sentences have "
        "one rhythm.",
        lambda s: sync.mean_correlation(s.mouth, s.other_mouths),
        within=CORRELATION,
        needs=BESIDE_OTHERS,
        decimals=3,
    ),
    MetricSpec(
        "lip_sync_gain",
        "lip-sync over other clips",
        "lips",
        "higher",
        "Lip-sync minus that mean: what is owed to this clip's own audio.",
        _gain,
        within=of_difference(CORRELATION),
        needs=BESIDE_OTHERS,
        decimals=3,
    ),
    MetricSpec(
        "lip_sync_best",
        "lip-sync at best lag",
        "lips",
        "higher",
        "The largest such correlation when the video is moved by up to 5 frames; still mouths are left out.",
        lambda s: s.best_lag[1],
        within=CORRELATION,
        needs=MOUTH,
        decimals=3,
    ),
    MetricSpec(
        "best_lag",
        "best lag",
        "lips",
        "truth",
        "The lag of that largest correlation; positive: the mouth moves too late. Still mouths are left out.",
        lambda s: s.best_lag[0],
        within=(-MOST_LAG, MOST_LAG),
        needs=MOUTH,
        unit="frames",
        decimals=2,
    ),
    MetricSpec(
        "mouth_amplitude",
        "mouth amplitude",
        "lips",
        "truth",
        "Standard deviation over time of the read mouth opening, over the true one's.",
        lambda s: sync.amplitude(s.mouth, s.true_mouth),
        within=NOT_NEGATIVE,
        needs=MOUTH,
    ),
    MetricSpec(
        "still_mouth",
        "still mouths",
        "lips",
        "lower",
        "Share of clips whose read mouth moves less than 1 % of the truth; they count as 0 in lip-sync.",
        lambda s: sync.still(s.mouth, s.true_mouth),
        within=SHARE,
        needs=MOUTH,
    ),
    MetricSpec(
        "lip_width_corr",
        "lip width",
        "lips",
        "higher",
        "Correlation of the read lip width with the true one, at lag 0.",
        lambda s: sync.correlation(s.lip_width, s.true_lip_width),
        within=CORRELATION,
        needs=("lip_width", "true_lip_width"),
        decimals=3,
        shifted=lambda s: sync.shifted_correlation(s.lip_width, s.truth.signals.lip_width_T, None, s.shifts),
    ),
    MetricSpec(
        "structure_lip_sync",
        "structure lip-sync",
        "lips",
        "higher",
        "Correlation, at lag 0, of the mouth opening decoded from the generated structure stream with the "
        "true one: does the structure hear the audio?",
        lambda s: sync.correlation(s.structure_mouth, s.true_mouth),
        within=CORRELATION,
        needs=("structure_mouth", "true_mouth"),
        decimals=3,
        not_in=ONLY_GENERATED,
    ),
    MetricSpec(
        "structure_lip_width",
        "structure lip width",
        "lips",
        "higher",
        "Correlation, at lag 0, of the lip width decoded from the generated structure stream with the true one: what "
        "the pixels could show.",
        lambda s: sync.correlation(s.structure_lip_width, s.true_lip_width),
        within=CORRELATION,
        needs=("structure_lip_width", "true_lip_width"),
        decimals=3,
        not_in=ONLY_GENERATED,
    ),
    MetricSpec(
        "structure_mouth",
        "structure = pixels",
        "lips",
        "higher",
        "Correlation of the mouth opening decoded from the generated structure stream with the one read from "
        "the generated pixels: do the two streams tell the same story?",
        lambda s: sync.correlation(s.mouth, s.structure_mouth),
        within=CORRELATION,
        needs=("structure_mouth", "mouth"),
        decimals=3,
        not_in=ONLY_GENERATED,
    ),
    MetricSpec(
        "presence",
        "detection rate",
        "face",
        "higher",
        "Share of frames in which the reader found a face. Frames without one are left out of every other metric.",
        lambda s: Pair(float(s.presence.sum()), float(len(s.presence))),
        within=SHARE,
        needs=("presence",),
        decimals=3,
    ),
    MetricSpec(
        "blink_rate",
        "blinks",
        "face",
        "truth",
        "Times the eyes close (closure >= 0.5, over when < 0.35), total over total time; eyes closed from the start on "
        "do not count.",
        lambda s: pose.blink_rate(s.blink),
        within=NOT_NEGATIVE,
        needs=("blink",),
        unit="per min",
        decimals=1,
    ),
    MetricSpec(
        "blink_rate_true",
        "blinks, truth",
        "face",
        "truth",
        "The same count on the ground truth's closure.",
        lambda s: pose.blink_rate(s.true_blink),
        within=NOT_NEGATIVE,
        needs=("presence", "true_blink"),
        unit="per min",
        decimals=1,
    ),
    MetricSpec(
        "identity_distance",
        "identity distance",
        "identity",
        "lower",
        "RMS difference of the identity vector read in each frame to the one read from the reference image "
        "(ACD, reference-to-frame variant; about 1.4 between two random synthetic people), mean over time.",
        lambda s: identity.mean_over_time(_to_reference(s)),
        within=NOT_NEGATIVE,
        needs=TO_REFERENCE,
        decimals=3,
        source="ACD (Tulyakov et al. 2018, MoCoGAN), to the reference in place of all pairs",
    ),
    MetricSpec(
        "identity_first",
        "first quarter",
        "identity",
        "lower",
        "Identity distance in the first quarter of the clip.",
        lambda s: _quarter(_to_reference(s), 0),
        within=NOT_NEGATIVE,
        needs=TO_REFERENCE,
        decimals=3,
    ),
    MetricSpec(
        "identity_last",
        "last quarter",
        "identity",
        "lower",
        "Identity distance in the last quarter of the clip.",
        lambda s: _quarter(_to_reference(s), -1),
        within=NOT_NEGATIVE,
        needs=TO_REFERENCE,
        decimals=3,
    ),
    MetricSpec(
        "identity_ratio",
        "last / first",
        "identity",
        "lower",
        "Identity distance of the last quarter over the first, sums over clips: 1 is no drift.",
        lambda s: identity.last_over_first(_to_reference(s)),
        within=NOT_NEGATIVE,
        needs=TO_REFERENCE,
        decimals=3,
    ),
    MetricSpec(
        "identity_person",
        "distance to person",
        "identity",
        "lower",
        "RMS difference of the identity vector read in each frame to the mean of those read from the whole "
        "true video (the person as the reader sees them), mean over time. Unlike the distance to the "
        "reference image it does not start near 0 only because the first frames look like that image.",
        lambda s: identity.mean_over_time(_to_person(s)),
        within=NOT_NEGATIVE,
        needs=TO_PERSON,
        decimals=3,
    ),
    MetricSpec(
        "identity_person_ratio",
        "to person, last / first",
        "identity",
        "lower",
        "Distance to the person in the last quarter over the first, sums over clips: 1 is no drift.",
        lambda s: identity.last_over_first(_to_person(s)),
        within=NOT_NEGATIVE,
        needs=TO_PERSON,
        decimals=3,
    ),
    MetricSpec(
        "motion_energy",
        "motion energy",
        "motion",
        "truth",
        "Mean absolute change of a pixel from frame to frame.",
        lambda s: frames.motion_energy(s.changes_T),
        within=NOT_NEGATIVE,
        unit="grey levels",
    ),
    MetricSpec(
        "motion_ratio",
        "motion / truth",
        "motion",
        "truth",
        "Motion energy over the truth's, sums over clips: 1 is as lively as the truth, 0 a still image.",
        lambda s: frames.motion_ratio(s.changes_T, s.true_changes_T),
        within=NOT_NEGATIVE,
    ),
    MetricSpec(
        "sharpness_ratio",
        "sharpness / truth",
        "image",
        "truth",
        "Variance of the Laplacian over the truth's, sums over clips.",
        lambda s: Pair(float(s.sharpness_T.mean()), float(s.true_sharpness_T.mean())),
        within=NOT_NEGATIVE,
        source="variance of the Laplacian (Pech-Pacheco et al. 2000)",
    ),
    MetricSpec(
        "sharpness_drift",
        "sharpness last / first",
        "image",
        "truth",
        "Sharpness in the last quarter of the clip over the first, sums over clips.",
        lambda s: identity.last_over_first(s.sharpness_T),
        within=NOT_NEGATIVE,
        source="variance of the Laplacian (Pech-Pacheco et al. 2000)",
    ),
    MetricSpec(
        "psnr",
        "PSNR",
        "image",
        "higher",
        "Peak signal-to-noise ratio to the true frames, from the mean squared error of the whole clip (not the mean "
        "of the frames' own). Meant for the VAE reconstruction: a generated video "
        "has its own head motion, so it is low there by nature.",
        lambda s: frames.psnr(s.squared_errors_T),
        within=NOT_NEGATIVE,
        unit="dB",
        decimals=1,
        not_in=NOT_ITSELF,
    ),
    MetricSpec(
        "ssim",
        "SSIM",
        "image",
        "higher",
        "Structural similarity to the true frames (11x11 Gaussian window); same remark as for PSNR.",
        lambda s: frames.ssim(s.similarities_T),
        within=CORRELATION,
        decimals=3,
        not_in=NOT_ITSELF,
        source="Wang et al. 2004",
    ),
    MetricSpec(
        "apd",
        "pose distance (APD)",
        "pose",
        "lower",
        "Mean absolute difference of the read yaw, pitch and roll to the true ones. The audio does not determine the "
        "pose of a generated video: there it only says how far from the truth's the head's motion is.",
        lambda s: pose.average_pose_distance(s.angles, s.true_angles),
        within=NOT_NEGATIVE,
        needs=POSE,
        unit="deg",
        protocol="the estimator is the protocol's reader",
    ),
    *(
        MetricSpec(
            f"{angle}_corr",
            angle,
            "pose",
            "higher",
            f"Correlation of read and true {angle}.",
            partial(_angle, which=which),
            within=CORRELATION,
            needs=POSE,
            decimals=3,
            not_in=SAME_POSE,
        )
        for which, angle in enumerate(("yaw", "pitch", "roll"))
    ),
    MetricSpec(
        "pose_std",
        "pose std",
        "pose",
        "truth",
        "Standard deviation over time, mean of yaw, pitch and roll.",
        lambda s: pose.pose_spread(s.angles),
        within=NOT_NEGATIVE,
        needs=("angles",),
        unit="deg",
    ),
    MetricSpec(
        "pose_range",
        "pose range",
        "pose",
        "truth",
        "Largest minus smallest, mean of yaw, pitch and roll.",
        lambda s: pose.pose_range(s.angles),
        within=NOT_NEGATIVE,
        needs=("angles",),
        unit="deg",
    ),
    MetricSpec(
        "pose_speed",
        "pose speed",
        "pose",
        "truth",
        "Mean absolute change per second, mean of yaw, pitch and roll.",
        lambda s: pose.pose_speed(s.angles),
        within=NOT_NEGATIVE,
        needs=("angles",),
        unit="deg/s",
    ),
]

CATALOG: list[MetricSpec] = [*_OWN, *FIELD, *NETWORK_METRICS, *THEVAL]

SPECS: dict[str, MetricSpec] = {spec.name: spec for spec in CATALOG}


def add_metric(spec: MetricSpec) -> None:
    """Add a metric of one's own to the list, behind the others.

    Raises:
        ValueError: its name is taken, its group is none of :data:`GROUPS`, or it needs the other clips and more than
            mouths (:data:`~df_eval.metrics.spec.BESIDE_OTHERS`).
    """
    if spec.name in SPECS or spec.group not in GROUPS:
        raise ValueError(f"{spec.name!r} is taken, or {spec.group!r} is none of {', '.join(GROUPS)}")
    if "other_mouths" in spec.needs and (more := {*spec.needs} - {*BESIDE_OTHERS}):
        raise ValueError(
            f"{spec.name!r} needs other_mouths and {', '.join(more)}: a comparison with other clips is made when all "
            f"are read, and of each only its mouth is still in memory then; need nothing but {', '.join(BESIDE_OTHERS)}"
        )
    CATALOG.append(spec)
    SPECS[spec.name] = spec
