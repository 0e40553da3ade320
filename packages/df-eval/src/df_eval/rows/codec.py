"""What a video goes through on its way to a viewer, before it is read.

Shape suffixes: T pixel frames, H W height and width, C channels, N samples at 16 kHz.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np

from df_models.media import read_audio, read_video, write_video
from df_models.time import FPS, SAMPLE_RATE

VIDEO = {"h264": "H.264, as df-infer writes it", "h265": "H.265 (x265, crf 28)"}
SOUND = {"aac": "AAC, as df-infer writes it", "mp3": "MP3 (LAME, 64 kbit/s)"}


def through(codec: str, frames_THWC: np.ndarray) -> np.ndarray:
    """Return the frames as they come out of a codec of `VIDEO`, written and read as an mp4; ``raw`` leaves them."""
    if codec == "raw":
        return frames_THWC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        if codec == "h264":
            write_video(path, frames_THWC)
        else:
            assert codec == "h265"
            _write_h265(path, frames_THWC)
        coded_THWC, _ = read_video(path)
    assert coded_THWC.shape == frames_THWC.shape
    return coded_THWC


def sound_through(codec: str, wave_N: np.ndarray) -> np.ndarray:
    """Return the sound as it comes out of a codec of `SOUND`, of the same length; ``raw`` leaves it."""
    if codec == "raw":
        return wave_N
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("sound.mp4" if codec == "aac" else "sound.mp3")
        if codec == "aac":
            blank_THWC = np.zeros((-(-len(wave_N) * FPS // SAMPLE_RATE), 16, 16, 3), np.uint8)
            write_video(path, blank_THWC, audio=wave_N)
        else:
            assert codec == "mp3"
            _write_mp3(path, wave_N)
        coded_N = read_audio(path)[: len(wave_N)]
    return np.pad(coded_N, (0, len(wave_N) - len(coded_N)))


def _write_h265(path: Path, frames_THWC: np.ndarray) -> None:
    """Without threads: with them, x265 was once seen to make another file of the same frames, a grey level away."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx265", rate=FPS)
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "28", "x265-params": "log-level=none:pools=none:frame-threads=1"}
        for frame_HWC in frames_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_mp3(path: Path, wave_N: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = 64_000
        samples_1N = np.ascontiguousarray(np.clip(wave_N, -1, 1)[None], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples_1N, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
