"""Fragmented MP4 for a browser's MediaSource: H.264 and Opus or AAC, one fragment per piece, with no delay of its own.

The encoders live as long as the stream; each piece is muxed by a muxer of its own, which FFmpeg's `frag_discont` lets
begin at any time (libavformat/movenc.c). A muxer that lives on would hold back the last frame of each track.

Shape legend: P pixel frames, N samples.
"""

from __future__ import annotations

import io
import os
from fractions import Fraction
from typing import Any

import numpy as np

from df_infer.serve.protocol import BROWSER_RATE, Piece
from df_models.time import FPS

OFFSET_S = 1
"""Frame 0 is seen at this time of the stream: encoders put a little sound before the first sample, and no time of a
stream may be below 0."""
MIMES = {
    "opus": 'video/mp4; codecs="avc1.42c01f,opus"',
    "aac": 'video/mp4; codecs="avc1.42c01f,mp4a.40.2"',
}
"""By the coding of the sound, what a browser is asked whether it can play."""
_ENCODERS = {"opus": ("libopus", 960), "aac": ("aac", 1024)}
"""FFmpeg's name and the samples of one frame: 20 ms of Opus, ISO/IEC 14496-3 for AAC."""
_BIT_RATE = 64_000
_MUXER = {
    "movflags": "empty_moov+default_base_moof+frag_discont+frag_custom+skip_trailer",
    "use_editlist": "0",
    "avoid_negative_ts": "disabled",
}
_GLOBAL_HEADER = 1 << 22
"""AV_CODEC_FLAG_GLOBAL_HEADER: parameter sets stand in the header, as MP4 wants them."""


class Fragmenter:
    """Codes pieces that follow each other; after an interruption a new one begins.

    Args:
        side: of the square frames, in pixels; even.
        sound: ``opus`` or ``aac``.
    """

    def __init__(self, side: int, sound: str) -> None:
        import av

        name, self._block = _ENCODERS[sound]
        self._encoders = av.open(os.devnull, "w", format="null")
        self._video = self._encoders.add_stream("libx264", rate=Fraction(FPS))
        self._video.width = self._video.height = side
        self._video.pix_fmt = "yuv420p"
        self._video.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "crf": "18",
            "g": "25",
        }
        self._audio: Any = self._encoders.add_stream(name, rate=BROWSER_RATE, layout="mono")
        self._audio.bit_rate = _BIT_RATE
        for stream in (self._video, self._audio):
            stream.codec_context.flags |= _GLOBAL_HEADER
        self._encoders.start_encoding()
        self._waiting_N = np.zeros(0, np.float32)
        self._coded = -1
        self._begun = False

    def fragment(self, piece: Piece) -> bytes:
        """Return the piece's fragment; the first of all has the stream's header before it."""
        packets = self._code_frames(piece) + self._code_sound(piece)
        data = self._mux(packets)
        begin = 0 if not self._begun else _after_header(data)
        self._begun = True
        return data[begin:]

    def _code_frames(self, piece: Piece) -> list[Any]:
        import av

        packets: list[Any] = []
        for number, image in enumerate(piece.frames, piece.frame):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = OFFSET_S * FPS + number, Fraction(1, FPS)
            packets += self._video.encode(frame)
        ends = [packet.pts for packet in packets[1:]] + [OFFSET_S * FPS + piece.frame + piece.span]
        for packet, end in zip(packets, ends, strict=True):
            packet.duration = end - packet.pts
        return packets

    def _code_sound(self, piece: Piece) -> list[Any]:
        import av

        if self._coded < 0:
            self._coded = OFFSET_S * BROWSER_RATE + piece.frame * (BROWSER_RATE // FPS)
        wave_N = np.concatenate((self._waiting_N, piece.audio))
        end, packets = len(wave_N) // self._block * self._block, []
        for start in range(0, end, self._block):
            block = np.ascontiguousarray(np.clip(wave_N[None, start : start + self._block], -1.0, 1.0))
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = BROWSER_RATE, Fraction(1, BROWSER_RATE), self._coded
            packets += self._audio.encode(frame)
            self._coded += self._block
        self._waiting_N = wave_N[end:]
        return packets

    def _mux(self, packets: list[Any]) -> bytes:
        import av

        file = io.BytesIO()
        with av.open(file, "w", format="mp4", options=_MUXER) as muxer:
            streams = {s.type: muxer.add_stream_from_template(s) for s in (self._video, self._audio)}
            muxer.start_encoding()
            for packet in packets:
                packet.stream = streams[packet.stream.type]
                muxer.mux(packet)
        return file.getvalue()

    def close(self) -> None:
        """Let go of the encoders."""
        self._encoders.close()


def _after_header(data: bytes) -> int:
    """Return where the header (`ftyp`, `moov`) ends. Layout: ISO/IEC 14496-12, 4.2."""
    at = 0
    while data[at + 4 : at + 8] in (b"ftyp", b"moov"):
        at += int.from_bytes(data[at : at + 4], "big")
    return at
