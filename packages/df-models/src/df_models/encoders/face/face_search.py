"""Finds the faces of a photo that nobody prepared: small in a large image, on their side, upside down.

Detectors shrink an image to 640 pixels, where a face of 100 pixels in 24 megapixels is 11 pixels large, and some of
them answer a face that lies on its side with upright points. So the photo is looked at in all four quarter turns, and,
while nothing is found, in ever finer tiles.

Shape legend: H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from df_models.encoders.face.yunet import Face, box_iou, shrink_image, suppress_overlaps

SMALLEST = 48.0
"""Pixels of the smallest face that is looked for: a portrait of less shows no lips."""
SEEN = 16.0
"""Pixels that a face must have for a detector (YuNet finds 10 to 300, less surely near the ends)."""
TILE, STEP = 640, 480
"""Side of a tile, the size that detectors look at, and its distance from the next: a face of up to 160 pixels lies
whole in one of them, and a larger one was found in the level before."""
OVERLAP = 0.3
"""Boxes that overlap by more are one face, as in YuNet."""
SURE = 64.0
"""Pixels from which a detector's box is as tight as in training clips; smaller ones are looked at again, closer."""
AROUND = 3.0
"""Side of that closer look in shares of the face's."""
LEAN = 45.0
"""Degrees from upright beyond which another quarter turn is nearer."""
MARGIN = 0.01
"""How much surer of a face the detector must be in a turned image. Of 99 frames of 23 people YuNet is surest of every
upright one, by 0.02 at least and 0.06 in the median, over the same in the three other turns."""


class Detector(Protocol):
    """Anything that finds faces in a uint8 RGB image ``[H, W, 3]``."""

    def detect(self, image_HWC: np.ndarray) -> list[Face]: ...


class FoundFaces(NamedTuple):
    """What was found.

    Attributes:
        image: the image, turned so that its largest face stands upright.
        faces: in pixels of ``image``, largest first; may be none.
        turn: degrees counter-clockwise that it was turned by, 0, 90, 180 or 270.
    """

    image: np.ndarray
    faces: list[Face]
    turn: int


def find_faces(image_HWC: np.ndarray, detector: Detector) -> FoundFaces:
    """Look for faces of :data:`SMALLEST` pixels and more in an image of any size, however it is turned."""
    for scale in _scales(image_HWC):
        shrunk_HWC = shrink_image(image_HWC, scale)
        best: list[Face] = []
        best_score, best_quarter = 0.0, 0
        for quarter in range(4):
            faces = _faces_of(np.ascontiguousarray(np.rot90(shrunk_HWC, quarter)), detector)
            score = faces[0].score if faces and abs(lean(faces[0])) < LEAN else 0.0
            if score > best_score + (MARGIN if best else 0.0):
                best, best_score, best_quarter = faces, score, quarter
        if best:
            turned_HWC = np.ascontiguousarray(np.rot90(image_HWC, best_quarter))
            height, width = np.rot90(shrunk_HWC, best_quarter).shape[:2]
            back = np.array([turned_HWC.shape[1] / width, turned_HWC.shape[0] / height])
            large = [Face(face.box * np.tile(back, 2), face.points * back, face.score) for face in best]
            closer = [_closer(turned_HWC, face, detector) for face in large]
            return FoundFaces(turned_HWC, sorted(closer, key=lambda face: -face.size), 90 * best_quarter)
    return FoundFaces(image_HWC, [], 0)


def lean(face: Face) -> float:
    """Return by how many degrees a face leans from upright (eyes above the mouth), by its points."""
    eyes, mouth = face.points[:2].mean(axis=0), face.points[3:].mean(axis=0)
    return float(np.degrees(np.arctan2(mouth[0] - eyes[0], mouth[1] - eyes[1])))


def _scales(image_HWC: np.ndarray) -> Iterator[float]:
    """Yield what the image is shrunk by: to the size that detectors shrink it to, then for ever finer looks."""
    scale = min(1.0, TILE / max(image_HWC.shape[:2]))
    yield scale
    while scale < min(1.0, SEEN / SMALLEST):
        scale = min(2 * scale, 1.0)
        yield scale


def _faces_of(image_HWC: np.ndarray, detector: Detector) -> list[Face]:
    """Return the faces of an image, largest first, looking at it tile by tile."""
    height, width = image_HWC.shape[:2]
    found = [
        Face(face.box + np.array([x, y, x, y]), face.points + np.array([x, y]), face.score)
        for y in _starts(height)
        for x in _starts(width)
        for face in detector.detect(np.ascontiguousarray(image_HWC[y : y + TILE, x : x + TILE]))
    ]
    kept = suppress_overlaps(sorted(found, key=lambda face: -face.score), OVERLAP)
    return sorted(kept, key=lambda face: -face.size)


def _starts(length: int) -> list[int]:
    """Return where tiles begin along a side, the last one at its end."""
    last = max(0, length - TILE)
    return [*range(0, last, STEP), last]


def _closer(image_HWC: np.ndarray, face: Face, detector: Detector) -> Face:
    """Look again at a face that was small when it was found, in a cut around it."""
    height, width = image_HWC.shape[:2]
    if face.size * min(1.0, TILE / max(height, width)) >= SURE or max(height, width) <= TILE:
        return face
    half = AROUND / 2 * face.size
    x, y = (face.box[:2] + face.box[2:]) / 2
    x0, y0 = max(0, int(x - half)), max(0, int(y - half))
    cut = np.ascontiguousarray(image_HWC[y0 : int(y + half), x0 : int(x + half)])
    offset = np.array([x0, y0])
    again = [Face(f.box + np.tile(offset, 2), f.points + offset, f.score) for f in detector.detect(cut)]
    return max(again, key=lambda found: box_iou(found.box, face.box), default=face)
