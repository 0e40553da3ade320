"""From any image to the square portrait that a model was trained on.

Shape legend: H, W pixels of the image, S side of the portrait.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from df_models.crop import CropBox, CropRule, crop_resize, square_crop
from df_models.encoders.face.face_search import SMALLEST, find_faces
from df_models.errors import UserError

if TYPE_CHECKING:
    from df_models.encoders.face.face_detectors import LoadedFaceDetector

NO_CROP = "none"
LIKE_SIZE = 0.7
"""A second face of this share of the largest one's size may as well be meant. Detectors' boxes differ by 5 % and more:
of two people side by side YuNet finds one the larger, RetinaFace the other."""
MUCH_INSIDE = 0.8
"""Share of the crop that lies within the image in training clips (``stages.faces.min_inside`` of their build)."""
SHARP_SHARE = 0.5
"""A crop of less than this share of the model's side has lost what it would show: it is enlarged more than twice."""

_log = logging.getLogger(__name__)


def portrait_from(image_HWC: np.ndarray, size: int, face_crop: str, detector: str | Path | None = None) -> np.ndarray:
    """Return the portrait, uint8 ``[S, S, 3]``.

    Where the crop reaches over the image's edge, the edge's pixels go on, as in training clips; when more of it does
    than there, a warning says so.

    Args:
        image_HWC: uint8 RGB image of any size.
        size: S.
        face_crop: the model's rule: ``none`` takes the centre square, ``detector:scale:offset`` crops around the
            largest face.
        detector: the file of the rule's face detector, which is needed for the latter; also ``NAME:FILE``.

    Raises:
        UserError: no face where one is needed, several of like size, or not the rule's detector to look for them.
    """
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8:
        raise UserError(f"a portrait must be uint8 RGB [H, W, 3], not {image_HWC.dtype} {list(image_HWC.shape)}")
    if face_crop == NO_CROP:
        upright, box = image_HWC, centre_square(image_HWC)
    else:
        rule = CropRule.parse(face_crop)
        upright, box = _face_square(image_HWC, rule, _load(rule, detector))
    if box.side < SHARP_SHARE * size:
        _log.warning(
            "the portrait has only %.0f of the %d pixels that the model shows of it, and will be blurred; "
            "give a larger image, or one with a larger face",
            box.side,
            size,
        )
    return crop_resize(upright, box, size)


def centre_square(image_HWC: np.ndarray) -> CropBox:
    """Return the largest square in the middle of an image."""
    height, width = image_HWC.shape[:2]
    side = min(height, width)
    return CropBox((width - side) / 2, (height - side) / 2, side)


def _face_square(image_HWC: np.ndarray, rule: CropRule, detector: LoadedFaceDetector) -> tuple[np.ndarray, CropBox]:
    """Return the image, upright, and the crop around its one face."""
    upright_HWC, found, turn = find_faces(image_HWC, detector)
    if not found:
        raise UserError(
            f"no face found in the portrait, of {SMALLEST:.0f} pixels or more; give an image with one clearly visible, "
            "frontal face"
        )
    if turn:
        _log.warning("the face does not stand upright, so the portrait was turned by %d degrees to the left", turn)
    alike = [face for face in found if face.size >= LIKE_SIZE * found[0].size]
    if len(alike) > 1:
        sizes = ", ".join(f"{face.size:.0f}" for face in alike)
        raise UserError(
            f"the portrait shows {len(alike)} faces of like size ({sizes} px); cut it to the one that is meant"
        )
    box = square_crop(found[0].box[None], rule)
    inside = box.inside(*upright_HWC.shape[:2])
    if inside < MUCH_INSIDE:
        _log.warning(
            "only %.0f %% of the portrait lies within the image, the rest repeats its edge; "
            "an image with more room around the head does better",
            100 * inside,
        )
    return upright_HWC, box


def _load(rule: CropRule, detector: str | Path | None) -> LoadedFaceDetector:
    """Load the detector that a crop rule names.

    Raises:
        UserError: the rule names one that is not known, or another one is given, or none.
    """
    from df_models.encoders.face.face_detectors import FACE_DETECTORS, load_face_detector

    if rule.detector not in FACE_DETECTORS:
        known = ", ".join(sorted(FACE_DETECTORS))
        raise UserError(f"this model's portraits are cropped by the detector {rule.detector!r}; known are {known}")
    if detector is None:
        raise UserError(
            f"this model needs the face detector {rule.detector} to crop the portrait: give its file with "
            "--face-detector (yunet: face_detection_yunet_2023mar.onnx of opencv_zoo), or --cropped if the image is "
            "cropped already"
        )
    named = str(detector).partition(":")[0]
    if named not in FACE_DETECTORS:
        return load_face_detector(f"{rule.detector}:{detector}")
    if named != rule.detector:
        raise UserError(
            f"this model's portraits are cropped by {rule.detector}, whose boxes have other margins than {named}'s; "
            f"give --face-detector {rule.detector}:FILE"
        )
    return load_face_detector(str(detector))
