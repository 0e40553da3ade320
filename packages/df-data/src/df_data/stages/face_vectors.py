"""Motion and FLAME vectors of a clip's frames: LivePortrait's extractor, DECA's or EMOCA's encoder.

Each encoder looks at a crop of its own, one square for the whole clip, cut from the images as they were decoded, not
from the clip's crop. Its side is the encoder's ``crop_scale`` times the side of a face box, and what a face box is
differs too, so each encoder gets the kind that its authors lay the rule on:

- LivePortrait: the extent of the face's landmarks along and across the line from eyes to lips, without a forehead
  (``src/utils/crop.py``, ``parse_rect_from_landmark``; there 203 landmarks of its own, here MediaPipe's up to the upper
  edge of the brows). On 14 GRID clips this square has 0.73 of the side of YuNet's box (0.72 to 0.76) and its middle
  lies 0.13 of that side lower: the rule laid on the detector's box would show the face a quarter smaller, and lower.
- DECA and EMOCA: a detector's box, made square with the mean of its sides (``decalib/datasets/datasets.py``,
  ``bbox2point``). df-eval has no such box and lays DECA's other rule on landmarks, frame by frame
  (`df_eval.reading.face_crops`), so the two differ on the same frames.

Beyond the image's edge a crop is black, as it is in the originals (OpenCV's ``warpAffine``, skimage's ``warp``).

Shape legend: T frames, L landmarks, H, W pixels of the source, S side of an encoder's image, N boxes, D width of a
vector. A box is (x0, y0, x1, y1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from df_data.common.timing import timed
from df_models.crop import CropBox, CropRule, crop_resize, square_crop
from df_models.encoders import FaceEncoder

EYES = (33, 133, 159, 145, 263, 362, 386, 374)
"""MediaPipe's landmarks at the corners and in the middle of the lids of both eyes."""
LIP_CORNERS = (61, 291)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
"""Along the upper edge of the brows."""


@dataclass(frozen=True)
class FaceVectors:
    """What the encoders that were asked for gave: float32 ``[T, 70]`` and ``[T, 159]``, None for one that was not."""

    motion: np.ndarray | None = None
    flame: np.ndarray | None = None


@dataclass(frozen=True)
class FaceEncoders:
    """The encoders of face crops that a build uses.

    Attributes:
        motion: gives the structure vector in place of MediaPipe's.
        flame: gives the FLAME vector.
        batch: faces that one call encodes.
    """

    motion: FaceEncoder | None = None
    flame: FaceEncoder | None = None
    batch: int = 16

    @timed("face vectors")
    def read(self, frames_THWC: np.ndarray, boxes_N4: np.ndarray, points_TL2: np.ndarray) -> FaceVectors:
        """Encode the one face of uint8 RGB frames.

        Args:
            boxes_N4: the detector's, of some of the frames.
            points_TL2: MediaPipe's landmarks in pixels of the frames.
        """
        motion = flame = None
        if self.motion is not None:
            square = face_square(landmark_boxes(points_TL2), self.motion, head_down(points_TL2))
            motion = face_vectors(frames_THWC, square, self.motion, self.batch)
        if self.flame is not None:
            square = face_square(mean_boxes(boxes_N4), self.flame)
            flame = face_vectors(frames_THWC, square, self.flame, self.batch)
        return FaceVectors(motion, flame)


def head_down(points_TL2: np.ndarray) -> np.ndarray:
    """Return unit vectors ``[T, 2]`` from the eyes to the lips."""
    down_T2 = points_TL2[:, LIP_CORNERS].mean(axis=1) - points_TL2[:, EYES].mean(axis=1)
    return down_T2 / np.linalg.norm(down_T2, axis=1, keepdims=True)


def landmark_boxes(points_TL2: np.ndarray) -> np.ndarray:
    """Return squares ``[T, 4]`` around MediaPipe's landmarks ``[T, L, 2]`` as LivePortrait draws them (see the module).

    The extent is measured in axes turned with the head, the square stands upright, as in ``crop_driving_video``.
    """
    down_T2 = head_down(points_TL2)
    axes_T22 = np.stack([np.stack([down_T2[:, 1], -down_T2[:, 0]], axis=1), down_T2], axis=1)
    turned_TL2 = np.einsum("tij,tlj->tli", axes_T22, points_TL2)
    top_T1 = turned_TL2[:, BROWS, 1].min(axis=1, keepdims=True)
    face_TL2 = np.where((turned_TL2[..., 1] >= top_T1)[..., None], turned_TL2, np.nan)
    low_T2, high_T2 = np.nanmin(face_TL2, axis=1), np.nanmax(face_TL2, axis=1)
    centre_T2 = np.einsum("tij,ti->tj", axes_T22, (low_T2 + high_T2) / 2)
    half_T1 = (high_T2 - low_T2).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre_T2 - half_T1, centre_T2 + half_T1], axis=1)


def mean_boxes(boxes_N4: np.ndarray) -> np.ndarray:
    """Return squares ``[N, 4]`` about the boxes' middles whose sides are the means of the boxes' sides."""
    low_N2, high_N2 = boxes_N4[:, :2], boxes_N4[:, 2:]
    half_N1 = (high_N2 - low_N2).mean(axis=1, keepdims=True) / 2
    return np.concatenate([(low_N2 + high_N2) / 2 - half_N1, (low_N2 + high_N2) / 2 + half_N1], axis=1)


def face_square(boxes_N4: np.ndarray, encoder: FaceEncoder, down_N2: np.ndarray | None = None) -> CropBox:
    """Return the one square that an encoder's own rule makes of a clip's boxes: of their median over time.

    LivePortrait moves its centre down the head's own axis (``down_N2``), DECA down the image.
    """
    return square_crop(boxes_N4, CropRule(scale=encoder.crop_scale, vertical_offset=encoder.crop_offset_y), down_N2)


def face_vectors(frames_THWC: np.ndarray, square: CropBox, encoder: FaceEncoder, batch: int) -> np.ndarray:
    """Return the vectors float32 ``[T, D]`` of a square of uint8 RGB frames, ``batch`` frames at a time."""
    vectors_TD = np.empty((len(frames_THWC), encoder.layout.dim), dtype=np.float32)
    for begin in range(0, len(frames_THWC), batch):
        part = slice(begin, begin + batch)
        faces_TSSC = black_outside(crop_resize(frames_THWC[part], square, encoder.size), square, frames_THWC.shape[1:3])
        faces_TCSS = torch.from_numpy(faces_TSSC).permute(0, 3, 1, 2).float() / 255
        vectors_TD[part] = encoder.encode(faces_TCSS).float().cpu().numpy()
    return vectors_TD


def black_outside(crops_TSSC: np.ndarray, square: CropBox, shape_HW: tuple[int, ...]) -> np.ndarray:
    """Return crops whose pixels beyond the edge of the image ``[H, W]`` are black; they are changed in place."""
    centres_S = (np.arange(crops_TSSC.shape[1]) + 0.5) * square.side / crops_TSSC.shape[1]
    for axis, start, length in ((1, square.y, shape_HW[0]), (2, square.x, shape_HW[1])):
        outside_S = (centres_S + start < 0) | (centres_S + start > length)
        crops_TSSC[(slice(None),) * axis + (outside_S,)] = 0
    return crops_TSSC
