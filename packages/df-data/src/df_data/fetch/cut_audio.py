"""The audio of a clip, cut to the sample and kept in step with the images.

Shape legend: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

GAP_S = 0.03
"""Audio further than this from where the last piece ended leaves silence, or is overwritten, by its time stamp."""


def write_audio(out: Any, encoder: Any, decoded: Iterator[tuple[float, Any]], start: float, end: float) -> None:
    """Encode and mux the audio from ``start`` to ``end``; what the source does not have is silence.

    Args:
        encoder: stream of 16-bit audio, mono or stereo.
        decoded: (time in seconds, frame), from a time before ``start`` on.
    """
    import av

    rate, layout = encoder.rate, encoder.codec_context.layout.name
    fifo = av.AudioFifo()
    position = 0
    for piece_NC in place_pieces(_converted(decoded, rate, layout), rate, start, end, 1 if layout == "mono" else 2):
        frame = av.AudioFrame.from_ndarray(piece_NC.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), position
        position += len(piece_NC)
        fifo.write(frame)
        while (block := fifo.read(encoder.codec_context.frame_size or 4096)) is not None:
            out.mux(encoder.encode(block))
    if (rest := fifo.read(0, partial=True)) is not None:
        out.mux(encoder.encode(rest))
    out.mux(encoder.encode(None))


def place_pieces(
    pieces: Iterator[tuple[float, np.ndarray]], rate: int, start: float, end: float, channels: int
) -> Iterator[np.ndarray]:
    """Yield int16 ``[N, C]`` pieces that together are exactly the audio from ``start`` to ``end``.

    Args:
        pieces: (time in seconds, int16 ``[N, C]``), in file order.
    """
    total = round((end - start) * rate)
    done = 0
    expected: int | None = None
    for time, samples_NC in pieces:
        begin = round((time - start) * rate)
        if expected is not None and abs(begin - expected) <= GAP_S * rate:
            begin = expected
        expected = begin + len(samples_NC)
        if begin >= total:
            break
        if begin > done:
            yield np.zeros((begin - done, channels), dtype=np.int16)
            done = begin
        piece = samples_NC[done - begin : total - begin]
        if len(piece):
            yield np.ascontiguousarray(piece)
            done += len(piece)
        if done >= total:
            return
    if done < total:
        yield np.zeros((total - done, channels), dtype=np.int16)


def _converted(decoded: Iterator[tuple[float, Any]], rate: int, layout: str) -> Iterator[tuple[float, np.ndarray]]:
    """Frames as int16 ``[N, C]`` in one layout, at their own rate."""
    import av

    resampler = av.AudioResampler(format="s16", layout=layout, rate=rate)
    channels = 1 if layout == "mono" else 2
    for time, frame in decoded:
        samples = [out.to_ndarray().reshape(-1, channels) for out in resampler.resample(frame)]
        if samples:
            yield time, np.concatenate(samples)
