"""A second opinion on the head's pose, where FSA-Net's two files are given: how far it is from the landmarker's.

``head_pose_disagreement`` is the median angle, in degrees, of the turn from one rotation to the other, over nine frames
spread evenly. Nothing is aligned first, so what the two call straight ahead is in it.

Measured: on 39 GRID clips median 2.6 degrees, 95 % 4.8, most 6.6; 0.03 core seconds a clip. On 160 rendered heads of
known pose (yaw to 45 degrees) the landmarker is off by 4.3 in the median (90 %: 6.4), the network by 6.6 (11.2), and
they differ by 7.4 (12.4). With patches over the mouth, the eyes, one side or all below the nose the network suffers
more (median error up to 27) than the landmarker (up to 9): so a large disagreement rather says that the face is covered
than that the landmarker errs. Of 630 such images 101 had the landmarker wrong by more than 10 degrees; a limit of 20
finds half of them and 16 % of the others. That is too poor to judge by, so there is no limit by default.

Shape legend: T frames, K = 9 looked-at frames.
"""

from __future__ import annotations

import numpy as np

from df_data.common.timing import timed
from df_models.encoders.face.head_pose import HeadPose, angle_between

FRAMES = 9
"""Frames looked at, spread over the clip; the score is their median."""


@timed("head pose")
def head_pose_disagreement(
    frames_THWC: np.ndarray, boxes_T4: np.ndarray, rotation_T33: np.ndarray, network: HeadPose
) -> float:
    """Return the median angle in degrees between the network's pose and the landmarker's.

    Args:
        frames_THWC: uint8 RGB as decoded.
        boxes_T4: the face's box in every frame, pixels.
        rotation_T33: the landmarker's (:class:`df_data.stages.landmarks.Landmarks`), every frame finite.
    """
    count = len(frames_THWC)
    looked_K = np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int)
    seen_K33 = network.rotations([frames_THWC[index] for index in looked_K], boxes_T4[looked_K])
    return float(np.median(angle_between(seen_K33, rotation_T33[looked_K])))
