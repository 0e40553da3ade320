"""From any picture to the square portrait that a model was trained on.

Shape legend: H, W pixels of the picture, S side of the portrait.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from df_models.crop import CropBox, CropRule, crop_resize, square_crop
from df_models.errors import UserError

NO_CROP = "none"


def portrait_from(image_HWC: np.ndarray, size: int, face_crop: str, detector: str | Path | None = None) -> np.ndarray:
    """Return the portrait, uint8 ``[S, S, 3]``.

    Args:
        image_HWC: uint8 RGB picture of any size.
        size: S.
        face_crop: the model's rule: ``none`` takes the centre square, ``yunet:scale:offset`` crops around the face.
        detector: the YuNet ONNX file, needed for the latter.

    Raises:
        UserError: no face where one is needed, or no detector to look for it.
    """
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8:
        raise UserError(f"a portrait must be uint8 RGB [H, W, 3], not {image_HWC.dtype} {list(image_HWC.shape)}")
    box = centre_square(image_HWC) if face_crop == NO_CROP else _face_square(image_HWC, face_crop, detector)
    return crop_resize(image_HWC, box, size)


def centre_square(image_HWC: np.ndarray) -> CropBox:
    """Return the largest square in the middle of a picture."""
    height, width = image_HWC.shape[:2]
    side = min(height, width)
    return CropBox((width - side) / 2, (height - side) / 2, side)


def _face_square(image_HWC: np.ndarray, face_crop: str, detector: str | Path | None) -> CropBox:
    rule = CropRule.parse(face_crop)
    if rule.detector != "yunet":
        raise UserError(f"this model's portraits are cropped by the detector {rule.detector!r}; only 'yunet' is known")
    if detector is None:
        raise UserError(
            "this model needs a face detector to crop the portrait: give the YuNet file with --face-detector "
            "(opencv_zoo: face_detection_yunet_2023mar.onnx), or --cropped if the picture is cropped already"
        )
    from df_models.encoders.yunet import YuNet

    faces = YuNet(detector).detect(image_HWC)
    if not faces:
        raise UserError("no face found in the portrait; give a picture with one clearly visible, frontal face")
    return square_crop(max(faces, key=lambda face: face.size).box[None], rule)
