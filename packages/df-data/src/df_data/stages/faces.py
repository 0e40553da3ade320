"""Face detection over a clip and the decision that it shows one person, large enough, in one place.

Shape legend: T frames, N detected frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from df_data.common.timing import timed
from df_data.stages.rejection import Rejected
from df_models.crop import CropBox, CropRule, square_crop
from df_models.encoders.face.yunet import Face
from df_models.settings import FrozenModel
from df_models.time import FPS

LEAST_CROP = 64
"""Pixels a side of a crop from which on the opening of the mouth is read well (docs/real-data.md)."""


class FaceFilter(FrozenModel):
    """What a clip's faces must be like.

    Attributes:
        detect_every: look for faces in every n-th frame.
        min_seconds: least length of the stretch from the first to the last face.
        min_face: least median size of the face (longer side of its box) in pixels of the source; null: so that its crop
            is enlarged by no more than ``max_enlargement`` to ``stages.size``, and has 64 pixels.
        max_enlargement: twice by default: at more, three of four pixels are made up. From 1 on the weight is halved.
        min_presence: least share of the looked-at frames of that stretch with a face.
        other_face: a second face counts when it has this share of the largest one's size.
        max_crowded: share of the looked-at frames that may show a second face (detectors err for a frame).
        min_inside: least share of the crop that lies within the image.
        max_drift: most the face's centre may move from its median place, in shares of its size.
    """

    detect_every: int = 3
    min_seconds: float = 2.0
    min_face: float | None = None
    max_enlargement: float = Field(default=2.0, ge=1)
    min_presence: float = 0.9
    other_face: float = 0.35
    max_crowded: float = 0.1
    min_inside: float = 0.8
    max_drift: float = 0.6

    def least_face(self, size: int, rule: CropRule) -> float:
        """Return the least size of a face in pixels of the source, for clips of ``size`` pixels a side."""
        least_crop = max(size / self.max_enlargement, LEAST_CROP)
        return least_crop / rule.scale if self.min_face is None else self.min_face


class FaceDetector(Protocol):
    """Anything that finds faces in a uint8 RGB image ``[H, W, 3]``."""

    def detect(self, image_HWC: np.ndarray) -> list[Face]: ...


@dataclass(frozen=True)
class FaceTrack:
    """The one face of a clip.

    Attributes:
        start, stop: the stretch of frames from the first to the last face (stop not included).
        boxes: float64 [N, 4] in source pixels, of the frames where it was detected.
        crop: one square for the whole clip.
        scores: ``face_size``, ``_presence``, ``_crowded``, ``_drift``, ``_confidence``, ``_seconds``, ``crop_inside``.
        at: int64 [N], the frames of ``boxes``, counted from ``start``.
    """

    start: int
    stop: int
    boxes: np.ndarray
    crop: CropBox
    scores: dict[str, float]
    at: np.ndarray

    def box_track(self, num_frames: int) -> np.ndarray:
        """Return a box for each of the first ``num_frames`` frames, float64 ``[T, 4]``.

        Between detections it moves evenly; after the last one it stays.
        """
        frames = np.arange(num_frames)
        return np.stack([np.interp(frames, self.at, side) for side in self.boxes.T], axis=1)


@timed("faces")
def detect_faces(frames_THWC: np.ndarray, detector: FaceDetector, every: int) -> list[list[Face]]:
    """Return the faces of every ``every``-th frame."""
    return [detector.detect(frame) for frame in frames_THWC[::every]]


def face_stretch(found_L: Sequence[bool], every: int, num_frames: int) -> tuple[int, int]:
    """Return the frames from the first to the last sight of a face: blank lead-ins and fade-outs lie outside.

    Args:
        found_L: for each looked-at frame (every ``every``-th) whether it has a face; at least one has.
    """
    seen = np.flatnonzero(found_L)
    last = len(found_L) - 1
    return int(seen[0]) * every, num_frames if seen[-1] == last else int(seen[-1]) * every + 1


def track_face(
    faces: Sequence[Sequence[Face]], shape: tuple[int, int, int], filters: FaceFilter, rule: CropRule
) -> FaceTrack:
    """Decide that the clip shows one face and where to crop it.

    Args:
        faces: the detections of each looked-at frame.
        shape: number of frames, height and width of the clip.

    Raises:
        Rejected: ``no_face``, ``more_than_one_face``, ``too_short``, ``face_too_small``, ``face_moves_away``,
            ``face_cut_off``.
    """
    num_frames, height, width = shape
    if not any(faces):
        raise Rejected("no_face", "no frame shows a face", {"face_presence": 0.0})
    start, stop = face_stretch([bool(found) for found in faces], filters.detect_every, num_frames)
    inside = faces[start // filters.detect_every : -(-stop // filters.detect_every)]
    largest = [max(found, key=lambda face: face.size) for found in inside if found]
    scores = {
        "face_size": float(np.median([face.size for face in largest])),
        "face_confidence": float(np.median([face.score for face in largest])),
        "face_presence": len(largest) / len(inside),
        "face_crowded": float(np.mean([_is_crowded(found, filters.other_face) for found in inside])),
        "face_seconds": (stop - start) / FPS,
    }
    boxes = np.stack([face.box for face in largest])
    at = filters.detect_every * np.flatnonzero([bool(found) for found in inside])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    scores["face_drift"] = float(np.abs(centres - np.median(centres, axis=0)).max() / scores["face_size"])
    crop = square_crop(boxes, rule)
    scores["crop_inside"] = crop.inside(height, width)
    _judge(scores, filters)
    return FaceTrack(start, stop, boxes, crop, scores, at)


def _judge(scores: dict[str, float], filters: FaceFilter) -> None:
    verdicts = (
        (
            "more_than_one_face",
            scores["face_crowded"] > filters.max_crowded,
            "two faces in {face_crowded:.0%} of the frames",
        ),
        ("no_face", scores["face_presence"] < filters.min_presence, "a face in only {face_presence:.0%} of the frames"),
        ("too_short", scores["face_seconds"] < filters.min_seconds, "a face for only {face_seconds:.2f} s"),
        (
            "face_too_small",
            scores["face_size"] < (filters.min_face or 0),
            f"the face is {{face_size:.0f}} px, at least {filters.min_face or 0:.0f} are wanted",
        ),
        ("face_moves_away", scores["face_drift"] > filters.max_drift, "the face moves by {face_drift:.2f} of its size"),
        ("face_cut_off", scores["crop_inside"] < filters.min_inside, "{crop_inside:.0%} of the crop is in the image"),
    )
    for reason, refused, detail in verdicts:
        if refused:
            raise Rejected(reason, detail.format(**scores), scores)


def _is_crowded(found: Sequence[Face], other_face: float) -> bool:
    sizes = sorted((face.size for face in found), reverse=True)
    return len(sizes) > 1 and sizes[1] >= other_face * sizes[0]
