"""What a video goes through on its way to a viewer, before it is read.

Shape suffixes: T pixel frames, H W height and width, C channels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from df_models.media import read_video, write_video


def through(codec: str, frames_THWC: np.ndarray) -> np.ndarray:
    """Return the frames as they come out of a codec: ``raw`` leaves them, ``h264`` writes and reads an mp4."""
    if codec == "raw":
        return frames_THWC
    assert codec == "h264"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames_THWC)
        coded_THWC, _ = read_video(path)
    assert coded_THWC.shape == frames_THWC.shape
    return coded_THWC
