"""The offset between audio and lips by SyncNet, where its weights are given.

The network sees the face as it was decoded, cut by its own rule from the face detector's boxes, and the protocol is the
published one (:mod:`df_models.encoders.face.syncnet`); only the boxes are not S3FD's, whose margins differ a little.
In a stretch of 3 s the curve rests on 70 windows; the original drops tracks of 100 frames and less. Of fewer than
35 frames nothing can be said, and there are no scores.

``syncnet_offset`` has the unit and sign of ``mouth_sound_offset``: seconds, positive when the audio is late. That is
the published "AV offset" (frames, positive when the audio is early) times -0.04. ``syncnet_confidence`` and
``syncnet_distance`` are the published Sync-C and Sync-D (LSE-C, LSE-D).

With the network given the verdict on the offset is its alone: :mod:`df_data.stages.sync` still measures, but judges
only what is too short for the network. Which confidence to trust could not be measured here, as no public weights are
at hand: 3 is what LatentSync's data are filtered by (bytedance/LatentSync, README); HDTF has 8 as a rule, CelebV-HQ 5.

Shape legend: T frames at 25 Hz, N samples at 16 kHz.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from df_data.common.timing import timed
from df_data.stages.rejection import Rejected
from df_models.encoders.face.syncnet import MIN_FRAMES, SyncNet, crop_faces
from df_models.settings import FrozenModel
from df_models.time import FPS


class LipSyncFilter(FrozenModel):
    """When SyncNet finds audio and lips apart; without the network (``models.syncnet``) none of it applies.

    Attributes:
        max_offset: beyond this offset in seconds a clip is refused (``sound_offset``), if the network is sure.
        min_confidence: least confidence (Sync-C) that counts as sure; below it the weight is halved, whatever the
            offset: lips and audio go together nowhere.
    """

    max_offset: float = Field(default=0.1, ge=0)
    min_confidence: float = Field(default=3.0, ge=0)


@timed("lip sync")
def lip_sync_scores(
    frames_THWC: np.ndarray, boxes_T4: np.ndarray, wave_N: np.ndarray, network: SyncNet
) -> dict[str, float]:
    """Return ``syncnet_offset`` (seconds, positive: audio late), ``syncnet_confidence`` and ``syncnet_distance``.

    Of fewer than 35 frames, which the network cannot compare, nothing is returned.

    Args:
        frames_THWC: uint8 RGB as decoded.
        boxes_T4: the face's box in every frame, pixels.
        wave_N: the audio of those frames.
    """
    if len(frames_THWC) < MIN_FRAMES:
        return {}
    found = network.compare(crop_faces(frames_THWC, boxes_T4), wave_N)
    return {
        "syncnet_offset": -found.offset / FPS,
        "syncnet_confidence": found.confidence,
        "syncnet_distance": found.distance,
    }


def check_lip_sync(scores: dict[str, float], filters: LipSyncFilter) -> bool:
    """Refuse a clip whose audio is surely apart from its lips; return whether SyncNet is unsure.

    Raises:
        Rejected: ``sound_offset``.
    """
    offset, confidence = scores["syncnet_offset"], scores["syncnet_confidence"]
    if confidence < filters.min_confidence:
        return True
    if abs(offset) > filters.max_offset:
        side = "late" if offset > 0 else "early"
        raise Rejected(
            "sound_offset", f"SyncNet finds the audio {abs(offset) * 1000:.0f} ms {side} for the lips", scores
        )
    return False
