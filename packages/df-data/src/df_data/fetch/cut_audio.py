"""The audio of a clip, cut to the sample and kept in step with the frames.

Shape legend: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from df_models.media.decoding import audio_blocks
from df_models.media.track import AudioTrack

PIECE = 4096
"""Samples encoded at a time where the encoder has no frame of its own."""


def write_audio(out: Any, encoder: Any, frames: Iterator[Any], start: float, end: float) -> None:
    """Encode and mux the audio from ``start`` to ``end``; what the source does not have is silence.

    Args:
        encoder: stream of 16-bit audio, mono or stereo.
        frames: from a time before ``start`` on, which is on their clock.

    Raises:
        UserError: the audio is broken.
    """
    import av

    rate, layout = encoder.rate, encoder.codec_context.layout.name
    channels = 1 if layout == "mono" else 2
    track = AudioTrack(audio_blocks(frames, rate, channels, by_stamps=True), rate, channels)
    begin, total = round(start * rate), round((end - start) * rate)
    encoder.open(strict=False)  # tells its frame's length
    piece = encoder.codec_context.frame_size or PIECE
    for position in range(0, total, piece):
        samples_CN, _ = track.read_at(begin + position, min(piece, total - position))
        frame = av.AudioFrame.from_ndarray(to_int16(samples_CN).T.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), position
        out.mux(encoder.encode(frame))
    out.mux(encoder.encode(None))


def to_int16(samples_CN: np.ndarray) -> np.ndarray:
    """Undo what :func:`df_models.media.decoding.frame_samples` does with 16 bits."""
    return np.clip(np.rint(samples_CN * 32768.0), -32768, 32767).astype(np.int16)
