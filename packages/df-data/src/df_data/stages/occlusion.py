"""Something in front of the face: what the face detector's confidence tells of it.

There is no measure of the covered area here. YuNet, run on the crop, is less sure of a face that is partly covered,
even where it still finds it, and landmarks are no help (the landmarker draws a whole face over whatever covers it). A
frame counts as *hidden* if its confidence is ``max_drop`` below the clip's own good frames, or below
``min_confidence`` at all; ``face_hidden`` is the share of hidden frames.

Measured on 18 GRID clips and 14 rendered heads (25 and 13 frames looked at), patches in four colours (dark, pale blue,
noise, the face's own skin):

==============================  =======================================  ===================================
patch, its share of the face    over part of the clip: frames found,     over the whole clip: clips refused,
                                GRID / rendered                          GRID / rendered
==============================  =======================================  ===================================
none                            0 % / 0.6 % (false)                      0 of 18 / 0 of 14 (false)
chin, 4 %                       0 % / 3 %                                0 % / 0 %
mouth, 28 %                     100 % / 99 %                             3 % / 95 %
eyes, 28 %                      100 % / 100 %                            72 % / 98 %
all below the nose, 45 %        100 % / 100 %                            32 % / 100 %
one side, 50 %                  100 % / 100 %                            100 % / 100 %
==============================  =======================================  ===================================

So a hand that passes is found; a mask that covers only the mouth from the first frame to the last mostly is not, but
its lips stand still (``mouth_std``) and agree with no audio. Blur (5 px of 256), gain below 0.2 or above 2.4 and tilt
beyond 30 degrees lower the confidence too: such clips may be refused as hidden. More areas and shares of the time:
``docs/results/stages.md``.

Shape legend: T frames, S side of the crop, K looked-at frames.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from df_data.stages.faces import FaceDetector
from df_data.stages.rejection import Rejected
from df_models.crop import CropBox, crop_resize
from df_models.errors import UserError
from df_models.settings import FrozenModel

LOOK_SIZE = 256
"""Side in pixels that crops are looked at in, so that limits in pixels mean the same for every output size."""
GOOD_FRAMES = 0.9
"""Quantile of the clip's confidences that a frame is compared with."""


class OcclusionFilter(FrozenModel):
    """When a face counts as covered.

    Attributes:
        enabled: off, the score ``face_hidden`` does not exist. The limits below are YuNet's: it needs that detector.
        every: look at every n-th frame of the crop.
        max_drop: a frame this much less sure than the clip's good ones is hidden.
        min_confidence: a frame less sure than this is hidden.
        max_hidden: with a larger share of hidden frames a clip is refused (``face_hidden``).
    """

    enabled: bool = True
    every: int = Field(default=3, ge=1)
    max_drop: float = Field(default=0.018, gt=0)
    min_confidence: float = Field(default=0.9, ge=0, le=1)
    max_hidden: float = Field(default=0.3, ge=0, le=1)


def require_yunet(detector: FaceDetector) -> None:
    """Raise UserError unless the detector is YuNet, whose confidences the limits were measured on."""
    if getattr(detector, "id", None) != "yunet":
        raise UserError(
            "the occlusion stage reads YuNet's confidence; choose that face detector or set "
            "stages.quality.occlusion.enabled=false"
        )


def face_confidences(frames_TSSC: np.ndarray, detector: FaceDetector, every: int) -> np.ndarray:
    """Return the confidence of the surest face in every ``every``-th frame of a crop, float64 ``[K]``, 0 without one.

    Raises:
        UserError: the detector is not YuNet, whose confidences the limits were measured on.
    """
    require_yunet(detector)
    looked = frames_TSSC[::every]
    if looked.shape[1] != LOOK_SIZE:
        looked = crop_resize(looked, CropBox(0.0, 0.0, float(looked.shape[1])), LOOK_SIZE)
    found = [detector.detect(frame) for frame in looked]
    return np.array([max((face.score for face in faces), default=0.0) for faces in found])


def hidden_share(confidence_K: np.ndarray, filters: OcclusionFilter) -> float:
    """Return the share of the looked-at frames in which the face is hidden."""
    good = np.quantile(confidence_K, GOOD_FRAMES)
    hidden = (confidence_K < good - filters.max_drop) | (confidence_K < filters.min_confidence)
    return float(hidden.mean())


def check_hidden(scores: dict[str, float], filters: OcclusionFilter) -> None:
    """Refuse a clip whose face is covered for too long.

    Raises:
        Rejected: ``face_hidden``.
    """
    if scores["face_hidden"] > filters.max_hidden:
        raise Rejected("face_hidden", f"the face seems covered in {scores['face_hidden']:.0%} of the frames", scores)
