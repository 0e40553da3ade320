"""Networks that only judge a clip, and add nothing to it but scores: SyncNet and FSA-Net, each where it is given.

They look at the images as they were decoded, each cut by its own rule from the face detector's boxes.

Shape legend: T frames, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from df_data.stages.head_pose import head_pose_disagreement
from df_data.stages.lip_sync import lip_sync
from df_data.stages.sync import LagCurve
from df_models.encoders.face.head_pose import HeadPose
from df_models.encoders.face.syncnet import SyncNet, load
from df_models.settings import Location


@dataclass(frozen=True)
class Judged:
    """What the networks said of a stretch.

    Attributes:
        scores: by name.
        sync: SyncNet's curve, if it was asked and the stretch is long enough.
        asked: whether SyncNet was asked.
    """

    scores: dict[str, float] = field(default_factory=dict)
    sync: LagCurve | None = None
    asked: bool = False


@dataclass(frozen=True)
class Judges:
    """The networks that a build uses.

    Attributes:
        sync: compares lips with audio.
        pose: reads the head's pose.
    """

    sync: SyncNet | None = None
    pose: HeadPose | None = None

    def models(self) -> dict[str, SyncNet | HeadPose]:
        """Return those that are given by their role."""
        roles = {"sync": self.sync, "head_pose": self.pose}
        return {role: model for role, model in roles.items() if model is not None}

    def judge(
        self, frames_THWC: np.ndarray, boxes_T4: np.ndarray, wave_N: np.ndarray, rotation_T33: np.ndarray
    ) -> Judged:
        """Ask those that are given.

        Args:
            frames_THWC: uint8 RGB as decoded.
            boxes_T4: the face's box in every frame, pixels.
            wave_N: the audio of those frames, 16 kHz.
            rotation_T33: the landmarker's head rotations.
        """
        scores: dict[str, float] = {}
        curve = None
        if self.sync is not None:
            scores, curve = lip_sync(frames_THWC, boxes_T4, wave_N, self.sync)
        if self.pose is not None:
            scores["head_pose_disagreement"] = head_pose_disagreement(frames_THWC, boxes_T4, rotation_T33, self.pose)
        return Judged(scores, curve, self.sync is not None)


def load_judges(syncnet: Location | None, head_pose: tuple[Location, Location] | None, device: str) -> Judges:
    """Load the networks whose files are given; SyncNet computes on ``device``, FSA-Net on the processor.

    Args:
        syncnet: ``syncnet_v2.model``.
        head_pose: FSA-Net's two files.

    Raises:
        UserError: a file is missing or another model's.
    """
    file = None if syncnet is None else str(syncnet.path.absolute())
    sync = None if file is None else load("syncnet_v2", file).to(device=device)
    pose = None if head_pose is None else HeadPose([file.path for file in head_pose])
    return Judges(sync, pose)
