"""FSA-Net: yaw, pitch and roll of a head from one small image, as a second opinion on the landmarker's pose.

Source: Yang et al., "FSA-Net: Learning Fine-Grained Structure Aggregation for Head Pose Estimation from a Single Image"
(CVPR 2019); networks and normalisation of omasaht/headpose-fsanet-pytorch (MIT), ``src/demo.py``: two networks (1x1 and
variance scoring) whose angles are averaged, input BGR of 64x64, ``(x - 127.5) / 128``.

Its angles are those of its training data (300W-LP): composed as ``Rx Ry Rz``, unlike LivePortrait's ``Rz Ry Rx``, and
with pitch the other way. :func:`rotation_of` turns them into a rotation in this project's axes. Found on 196 rendered
heads of known pose (yaw to 50 degrees, pitch to 25, roll to 30) among all orders of composition: median error 6.2
degrees in this one (90 %: 11), 8.9 or more in every other.

Shape legend: N faces, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from df_models.crop import CropRule, crop_resize, square_crop
from df_models.encoders.onnx_files import open_onnx
from df_models.encoders.weights import hash_files
from df_models.errors import UserError

SIZE = 64
CROP_SCALE = 1.4
"""Side of the square in longer sides of YuNet's box: best of 0.8 to 1.8 on GRID clips and rendered heads together."""
MEAN, SPREAD = 127.5, 128.0
HOW_TO_GET = (
    "take fsanet-1x1-iter-688590.onnx and fsanet-var-iter-688590.onnx (MIT, 1.2 MB each) from "
    "github.com/omasaht/headpose-fsanet-pytorch, folder pretrained, and give both paths"
)


class HeadPose:
    """Both networks.

    Args:
        paths: their two ONNX files, in any order.

    Raises:
        UserError: there are not two different files, one is missing, or one is another model's.
    """

    id = "fsanet"
    licence = "MIT"

    def __init__(self, paths: Sequence[str | Path]) -> None:
        files = sorted({Path(path) for path in paths})
        if len(files) != 2:
            raise UserError(f"the head pose network is two files, not {len(files)}; {HOW_TO_GET}")
        self._sessions = [open_onnx(path, "the head pose network", HOW_TO_GET) for path in files]
        for path, session in zip(files, self._sessions, strict=True):
            shapes = [list(given.shape) for given in (*session.get_inputs(), *session.get_outputs())]
            if shapes != [[1, 3, SIZE, SIZE], [1, 3]]:
                raise UserError(f"{path} is not FSA-Net: it has {shapes}; {HOW_TO_GET}")
        self.sha256 = hash_files(files)

    def angles(self, face_HWC: np.ndarray) -> np.ndarray:
        """Return FSA-Net's own yaw, pitch and roll in degrees, float64 ``[3]``, of a uint8 RGB face of 64x64."""
        image = (face_HWC[..., ::-1].astype(np.float32) - MEAN) / SPREAD
        batch = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        found = [session.run(None, {session.get_inputs()[0].name: batch})[0] for session in self._sessions]
        return np.mean([np.asarray(angles, dtype=np.float64)[0] for angles in found], axis=0)

    def rotations(self, frames: Sequence[np.ndarray], boxes_N4: np.ndarray) -> np.ndarray:
        """Return head rotations float64 ``[N, 3, 3]`` as :func:`rotation_of` defines them.

        Args:
            frames: uint8 RGB images ``[H, W, 3]``.
            boxes_N4: the face in each: x0, y0, x1, y1 in pixels.
        """
        rule = CropRule(scale=CROP_SCALE, vertical_offset=0.0)
        faces = [crop_resize(frame, square_crop(box, rule), SIZE) for frame, box in zip(frames, boxes_N4, strict=True)]
        return rotation_of(np.array([self.angles(face) for face in faces]).reshape(-1, 3))


def rotation_of(angles_N3: np.ndarray) -> np.ndarray:
    """Return ``Rx(-pitch) Ry(yaw) Rz(roll)`` of FSA-Net's yaw, pitch and roll in degrees, float64 ``[N, 3, 3]``.

    Column vectors, x to the right of the image, y down, z away: the axes of LivePortrait's rotation, in which the
    nose of a head with yaw > 0 points to the left of the image and that of one with (our) pitch > 0 down.
    """
    yaw, pitch, roll = np.radians(angles_N3).T
    return _about(0, -pitch) @ _about(1, yaw) @ _about(2, roll)


def _about(axis: int, angle_N: np.ndarray) -> np.ndarray:
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((len(angle_N), 3, 3))
    matrix[:, axis, axis] = 1
    matrix[:, first, first] = matrix[:, second, second] = np.cos(angle_N)
    matrix[:, second, first] = np.sin(angle_N)
    matrix[:, first, second] = -np.sin(angle_N)
    return matrix


def angle_between(a_N33: np.ndarray, b_N33: np.ndarray) -> np.ndarray:
    """Return the angle of the turn from one rotation to the other in degrees, 0 to 180, float64 ``[N]``."""
    cosine = (np.einsum("nij,nij->n", a_N33, b_N33) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
