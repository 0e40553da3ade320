"""The offset between audio and lips by SyncNet, where its weights are given.

The network sees the face as it was decoded, cut by its own rule from the face detector's boxes, and the protocol is the
published one (:mod:`df_models.encoders.face.syncnet`); only the boxes are not S3FD's, whose margins differ a little.
In a stretch of 3 s the curve rests on 70 windows; the original drops tracks of 100 frames and less. Of fewer than
35 frames nothing can be said, and there are no scores.

``syncnet_offset`` has the unit and sign of ``mouth_sound_offset``: seconds, positive when the audio is late. That is
the published "AV offset" (frames, positive when the audio is early) times -0.04. ``syncnet_confidence`` and
``syncnet_distance`` are the published Sync-C and Sync-D (LSE-C, LSE-D).

With the network given it judges in the place of :mod:`df_data.stages.sync`'s own statistic, by the same decision: its
statistic at a lag is the curve's median less its distance there, which at the best lag is Sync-C. What that is worth as
evidence could not be measured here, as no public weights are at hand. :data:`WORTH` is set from what is published:
Sync-C of talking heads in sync is about 6 to 8 (HDTF 8 as a rule, CelebV-HQ 5), and below 3 LatentSync's data count as
not in sync (bytedance/LatentSync, README).

Shape legend: T frames at 25 Hz, N samples at 16 kHz, W windows, D width, L lags of :data:`df_data.stages.sync.LAGS`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from df_data.common.timing import timed
from df_data.stages.sync import LAGS, LagCurve
from df_data.stages.sync_tracks import STEP_S
from df_models.encoders.face.syncnet import MIN_FRAMES, WINDOW_FRAMES, SyncNet, crop_faces, offset_curve, sync_scores
from df_models.time import FPS, SAMPLE_RATE

WORTH = {"mean": 6.0, "spread": 2.0, "noise": 2.0}
"""Mean and spread of Sync-C over people in sync, and what is found by chance in one second: published, not measured."""


@timed("lip sync")
def lip_sync(
    frames_THWC: np.ndarray, boxes_T4: np.ndarray, wave_N: np.ndarray, network: SyncNet
) -> tuple[dict[str, float], LagCurve | None]:
    """Return ``syncnet_offset`` (seconds, positive: audio late), ``syncnet_confidence``, ``syncnet_distance``, a curve.

    Of fewer than 35 frames, which the network cannot compare, there are none of them.

    Args:
        frames_THWC: uint8 RGB as decoded.
        boxes_T4: the face's box in every frame, pixels.
        wave_N: the audio of those frames.
    """
    if len(frames_THWC) < MIN_FRAMES:
        return {}, None
    count = min(len(frames_THWC), len(wave_N) * FPS // SAMPLE_RATE) - WINDOW_FRAMES
    lips_WD = network.lips(crop_faces(frames_THWC, boxes_T4)[: count + WINDOW_FRAMES - 1])
    audio_WD = network.audio(wave_N)[:count]
    found = sync_scores(offset_curve(lips_WD, audio_WD))
    scores = {
        "syncnet_offset": -found.offset / FPS,
        "syncnet_confidence": found.confidence,
        "syncnet_distance": found.distance,
    }
    return scores, distance_curve(lips_WD, audio_WD)


def distance_curve(lips_WD: Tensor, audio_WD: Tensor) -> LagCurve:
    """Return the statistic at every lag up to 2 s, over the windows that meet there; between frames it is even."""
    reach = round(LAGS[-1] * STEP_S * FPS)
    shifts = np.arange(-reach, reach + 1)
    meet = np.maximum(len(lips_WD) - np.abs(shifts), 0)
    distances = np.array([_distance(lips_WD, audio_WD, shift) for shift in shifts.tolist()])
    statistic = np.nan_to_num(np.nanmedian(distances) - distances)
    meet = np.where(np.isnan(distances), 0, meet)  # what was not compared is no evidence
    at = LAGS * STEP_S
    spread = [np.interp(at, shifts / FPS, values) for values in (statistic, meet / FPS)]
    return LagCurve(spread[0], spread[1], **WORTH)


def _distance(lips_WD: Tensor, audio_WD: Tensor, shift: int) -> float:
    count = len(lips_WD) - abs(shift)
    if count < FPS:
        return float("nan")
    lips, audio = lips_WD[max(0, -shift) :][:count], audio_WD[max(0, shift) :][:count]
    return float(torch.nn.functional.pairwise_distance(lips, audio).mean())
