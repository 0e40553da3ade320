"""The structure vector's keypoints in the image, where what is stored suffices to place them.

``keypoints = scale * (canonical @ R(pitch, yaw, roll) + expression) + translation`` (LivePortrait's equation, row
vectors) needs the person's canonical keypoints, which no sample stores. A synthetic person's follow from the number in
the provenance; MediaPipe's are replaced by a mean face, which shows pose, position and expression but not the person.

Shape legend: P pixel frames, K = 21 keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.format.sample import Sample
from df_data.synth.head import camera
from df_data.synth.head.identity import Identity
from df_data.synth.head.structure import keypoints_from_structure, neutral_keypoints

MEAN_FACE = np.array([
    (0.00, 0.25, -0.21), (-0.25, -0.13, -0.06), (0.25, -0.13, -0.06), (-0.32, 0.51, 0.24), (0.00, 0.70, 0.01),
    (0.31, 0.50, 0.23), (0.00, 0.43, -0.09), (-0.22, 0.27, -0.03), (0.22, 0.27, -0.04), (0.00, -0.29, -0.08),
    (0.00, 0.00, -0.10), (-0.18, 0.01, -0.01), (0.00, 0.40, -0.13), (-0.19, -0.01, -0.02), (-0.14, 0.44, -0.02),
    (0.19, 0.01, -0.01), (0.19, -0.01, -0.02), (0.14, 0.44, -0.02), (0.00, 0.04, -0.02), (0.00, 0.46, -0.09),
    (0.00, 0.52, -0.09),
])  # fmt: skip
"""Neutral keypoints in the order of ``df_data.stages.readings.KEYPOINTS``, in face heights: the mean over eight GRID
speakers of ``keypoints_of(head_frame(...).neutral)``; persons deviate from it by at most 0.016."""


@dataclass(frozen=True)
class Keypoints:
    """Keypoints ``[P, K, 2]`` in pixels of the clip, or None, and in words where they come from."""

    points: np.ndarray | None
    source: str


def project_keypoints(sample: Sample) -> Keypoints:
    """Return a sample's keypoints in its image."""
    meta, structure = sample.meta, sample.tensors["structure"].numpy()
    encoder = meta.encoders.get("structure")
    person = meta.provenance.get("identity")
    if encoder is None and meta.source == "synth" and isinstance(person, int):
        points = keypoints_from_structure(structure, neutral_keypoints(Identity.sample(person)))
        return Keypoints(camera.project(points, meta.height), "the structure vector on the rendered person, exact")
    if encoder is not None and encoder.id == "mediapipe":
        points = keypoints_from_structure(structure, MEAN_FACE)[..., :2]
        return Keypoints((points + 1) * meta.height / 2, "the structure vector on a mean face, so near the true points")
    name = "unnamed" if encoder is None else repr(encoder.id)
    return Keypoints(None, f"not drawn: the structure encoder ({name}) stores no face to place them on")
