"""What a clip's images are like: blur, brightness, still lips, a head turned away.

Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np

from df_data.stages.readings import Readings

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


def grey_frames(frames_THWC: np.ndarray) -> np.ndarray:
    """Return about ten frames, evenly spread, as grey values 0-255, float64 ``[<= 19, H, W]``."""
    return frames_THWC[:: max(1, len(frames_THWC) // 10)].astype(np.float64) @ LUMA


def sharpness(frames_THWC: np.ndarray) -> float:
    """Return the median variance of the Laplacian of the grey image (0-255), over about ten frames.

    It depends on the size of the image, so clips are compared at one size (the crop at 256 or more).
    """
    grey = grey_frames(frames_THWC)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    return float(np.median(laplacian.var(axis=(1, 2))))


def brightness(frames_THWC: np.ndarray) -> float:
    """Return the mean grey value over about ten frames, 0 black to 1 white."""
    return float(grey_frames(frames_THWC).mean() / 255)


def image_scores(frames_THWC: np.ndarray, readings: Readings) -> dict[str, float]:
    """Return ``sharpness``, ``brightness`` (0-1), ``mouth_std``, ``yaw_abs`` (degrees) and ``blink_max`` of a crop."""
    return {
        "sharpness": sharpness(frames_THWC),
        "brightness": brightness(frames_THWC),
        "mouth_std": float(np.nanstd(readings.mouth_open)),
        "yaw_abs": float(np.nanmedian(np.abs(readings.yaw))),
        "blink_max": float(np.nanmax(readings.blink)),
    }
