"""The list of metrics: name, unit, direction and definition, in the order of the report."""

# ruff: noqa: E501  (a table of definitions)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricSpec:
    """One metric as shown to people. ``better`` is "higher", "lower" or "truth" (as near the truth's as possible)."""

    name: str
    title: str
    group: str
    better: str
    definition: str
    unit: str = ""
    decimals: int = 2


CATALOG: tuple[MetricSpec, ...] = (
    MetricSpec("lip_sync", "lip-sync", "lips", "higher",
               "Pearson correlation, at lag 0, of the mouth opening read from the pixels with the true mouth opening of "
               "the audio. A clip whose mouth does not move counts as 0 (see still mouths).", decimals=3),
    MetricSpec("lip_sync_other", "lip-sync, other clips", "lips", "lower",
               "Mean correlation, at lag 0, of the read mouth opening with the true ones of the other clips: what a mouth reaches that "
               "moves when mouths usually move, whatever is said. Not 0 where all sentences have one rhythm.", decimals=3),
    MetricSpec("lip_sync_gain", "lip-sync over other clips", "lips", "higher",
               "Lip-sync minus that mean: what is owed to this clip's own audio.", decimals=3),
    MetricSpec("lip_sync_best", "lip-sync at best lag", "lips", "higher",
               "The largest such correlation when the video is moved by up to 5 frames; still mouths are left out.",
               decimals=3),
    MetricSpec("best_lag", "best lag", "lips", "truth",
               "The lag of that largest correlation; positive: the mouth moves too late. Still mouths are left out.",
               "frames", 2),
    MetricSpec("mouth_amplitude", "mouth amplitude", "lips", "truth",
               "Standard deviation over time of the read mouth opening, over the true one's."),
    MetricSpec("still_mouth", "still mouths", "lips", "lower",
               "Share of clips whose read mouth moves less than 1 % of the truth; they count as 0 in lip-sync."),
    MetricSpec("lip_width_corr", "lip width", "lips", "higher",
               "Correlation of the read lip width with the true one, at lag 0.", decimals=3),
    MetricSpec("structure_lip_sync", "structure lip-sync", "lips", "higher",
               "Correlation, at lag 0, of the mouth opening decoded from the generated structure stream with the true one: does "
               "the structure hear the audio?", decimals=3),
    MetricSpec("structure_mouth", "structure = pixels", "lips", "higher",
               "Correlation of the mouth opening decoded from the generated structure stream with the one read from the "
               "generated pixels: do the two streams tell the same story?", decimals=3),
    MetricSpec("presence", "detection rate", "face", "higher",
               "Share of frames in which the reader found a face. Frames without one are left out of every other metric.",
               decimals=3),
    MetricSpec("blink_rate", "blinks", "face", "truth",
               "Closures of the eyes (closure >= 0.5, over when < 0.35), total over total time.", "per min", 1),
    MetricSpec("blink_rate_true", "blinks, truth", "face", "truth",
               "The same count on the ground truth's closure.", "per min", 1),
    MetricSpec("identity_distance", "identity distance", "identity", "lower",
               "RMS difference of the identity vector read in each frame to the one read from the reference image "
               "(ACD, reference-to-frame variant; about 1.4 between two random synthetic people), mean over time.", decimals=3),
    MetricSpec("identity_first", "first quarter", "identity", "lower",
               "Identity distance in the first quarter of the clip.", decimals=3),
    MetricSpec("identity_last", "last quarter", "identity", "lower",
               "Identity distance in the last quarter of the clip.", decimals=3),
    MetricSpec("identity_ratio", "last / first", "identity", "lower",
               "Identity distance of the last quarter over the first, sums over clips: 1 is no drift.", decimals=3),
    MetricSpec("identity_person", "distance to person", "identity", "lower",
               "RMS difference of the identity vector read in each frame to the mean of those read from the whole true video (the "
               "person as the reader sees them), mean over time. Unlike the distance to the reference image it does not start "
               "near 0 only because the first frames look like that image.", decimals=3),
    MetricSpec("identity_person_ratio", "to person, last / first", "identity", "lower",
               "Distance to the person in the last quarter over the first, sums over clips: 1 is no drift.", decimals=3),
    MetricSpec("motion_energy", "motion energy", "motion", "truth",
               "Mean absolute change of a pixel from frame to frame.", "grey levels"),
    MetricSpec("motion_ratio", "motion / truth", "motion", "truth",
               "Motion energy over the truth's, sums over clips: 1 is as lively as the truth, 0 a still image."),
    MetricSpec("sharpness_ratio", "sharpness / truth", "image", "truth",
               "Variance of the Laplacian over the truth's, sums over clips."),
    MetricSpec("sharpness_drift", "sharpness last / first", "image", "truth",
               "Sharpness in the last quarter of the clip over the first, sums over clips."),
    MetricSpec("psnr", "PSNR", "image", "higher",
               "Peak signal-to-noise ratio to the true frames. Meant for the VAE reconstruction: a generated video has its own "
               "head motion, so it is low there by nature.", "dB", 1),
    MetricSpec("ssim", "SSIM", "image", "higher",
               "Structural similarity to the true frames (11x11 Gaussian window); same remark as for PSNR.", decimals=3),
    MetricSpec("apd", "pose distance (APD)", "pose", "lower",
               "Mean absolute difference of the read yaw, pitch and roll to the true ones. Only where the pose is the "
               "truth's: the audio does not determine the pose of a generated video.", "deg"),
    MetricSpec("yaw_corr", "yaw", "pose", "higher", "Correlation of read and true yaw.", decimals=3),
    MetricSpec("pitch_corr", "pitch", "pose", "higher", "Correlation of read and true pitch.", decimals=3),
    MetricSpec("roll_corr", "roll", "pose", "higher", "Correlation of read and true roll.", decimals=3),
    MetricSpec("pose_std", "pose std", "pose", "truth",
               "Standard deviation over time, mean of yaw, pitch and roll.", "deg"),
    MetricSpec("pose_range", "pose range", "pose", "truth",
               "Largest minus smallest, mean of yaw, pitch and roll.", "deg"),
    MetricSpec("pose_speed", "pose speed", "pose", "truth",
               "Mean absolute change per second, mean of yaw, pitch and roll.", "deg/s"),
)  # fmt: skip

GROUPS: dict[str, str] = {
    "lips": "Lips and audio",
    "face": "Face and blinks",
    "identity": "Identity over time",
    "motion": "Motion",
    "image": "Image quality",
    "pose": "Head pose",
}

SPECS: dict[str, MetricSpec] = {spec.name: spec for spec in CATALOG}
