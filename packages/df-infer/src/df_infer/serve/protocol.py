"""What programs and the server say to each other: JSON messages, and pieces of video as bytes.

Shape legend: P pixel frames, H, W pixels, N samples.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from df_infer.config import MOST_GUIDANCE
from df_models.errors import UserError, nearest
from df_models.time import FPS

SUBPROTOCOL = "dualforce.v1"
BROWSER_RATE = 48_000
"""Sample rate of WebRTC's sound, of fragmented MP4, and of the page."""
RATES = (8_000, 12_000, 16_000, 24_000, BROWSER_RATE)
"""Sample rates of sound, in and out: those that Opus knows; each is a whole number of samples a pixel frame."""
MAGIC = b"DFS1"
BEGIN_FRAMES = 5
"""Frames at hand before playing begins: the first and one latent frame. The next ones come within 160 ms."""
HEADER = struct.Struct("<4s6I")
"""Magic, turn, first frame, frames that the piece lasts, frames that it holds, side in pixels, samples."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FaceSettings(_Message):
    """What a user may choose of a face.

    Attributes:
        steps: solver steps per chunk; None: the model's own.
        audio_guidance: how strongly the lips follow the sound; None: the model's own.
        structure_guidance: how strongly the picture follows the face's motion, where the model can be guided by it;
            None: the model's own.
        seed: keys all noise.
        drive: the server's motion track moves the head.
    """

    steps: int | None = Field(default=None, ge=1, le=1000)
    audio_guidance: float | None = Field(default=None, ge=0, le=MOST_GUIDANCE)
    structure_guidance: float | None = Field(default=None, ge=0, le=MOST_GUIDANCE)
    seed: int = Field(default=0, ge=0, lt=2**63)
    drive: bool = False


class Wanted(_Message):
    """Whose face a session shows, and how it is made.

    Attributes:
        portrait: `example`, or the id that uploading a portrait returned.
    """

    type: Literal["start"] = "start"
    portrait: str = Field(default="example", max_length=64)
    settings: FaceSettings = FaceSettings()


class Start(Wanted):
    """Begins a session over WebSocket.

    Attributes:
        rate: samples a second of the sound that is sent, and of that which comes back.
        microphone: the sound comes from a microphone, at its own pace: what is late is caught up in pauses. Otherwise
            it may come as fast as it likes, and every sample is spoken.
        pictures: how video comes back over WebSocket: `raw` RGB, or `fmp4` (fragmented MP4).
        sound: how the sound of `fmp4` is coded.
    """

    rate: int = 16_000
    microphone: bool = False
    pictures: Literal["raw", "fmp4"] = "raw"
    sound: Literal["opus", "aac"] = "opus"


class Clear(_Message):
    """Interrupts: what comes after `shown` pixel frames (None: those seen by the server's clock) is dropped."""

    type: Literal["clear"]
    shown: int | None = Field(default=None, ge=0)


class Settings(_Message):
    """Begins the face anew with other settings, in the same session."""

    type: Literal["settings"]
    settings: FaceSettings


class Microphone(_Message):
    """Says whether the sound that follows is a microphone's; that of WebRTC is heard only while it is on."""

    type: Literal["microphone"]
    on: bool


class End(_Message):
    """No more sound comes: the rest is made, then the session ends."""

    type: Literal["end"]


_NAMES = tuple(dict.fromkeys(name for kind in (FaceSettings, Start, Clear, Microphone) for name in kind.model_fields))

Control = Clear | Settings | Microphone | End
_CONTROL: TypeAdapter[Control] = TypeAdapter(Annotated[Control, Field(discriminator="type")])


def read_control(text: str) -> Control:
    """Parse a control message.

    Raises:
        UserError: it is none.
    """
    try:
        return _CONTROL.validate_json(text)
    except ValidationError as error:
        raise UserError(f"not a control message: {first_fault(error.errors())}") from error


def read_start(text: str) -> Start:
    """Parse the first message of a session.

    Raises:
        UserError: it is none, or of a rate that is not known.
    """
    try:
        start = Start.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"not a start message: {first_fault(error.errors())}") from error
    return checked(start)


def checked(start: Start) -> Start:
    """Return a start message whose values fit together.

    Raises:
        UserError: they do not.
    """
    if start.rate not in RATES:
        raise UserError(f"rate {start.rate}: send sound at one of {', '.join(map(str, RATES))} samples a second")
    if start.pictures == "fmp4" and start.rate != BROWSER_RATE:
        raise UserError(f"fmp4 carries sound at {BROWSER_RATE} samples a second; send it so")
    return start


def first_fault(errors: Sequence[Any]) -> str:
    """Return the first of pydantic's faults as one line: where, and what."""
    loc = [part for place, part in enumerate(errors[0]["loc"]) if (place, part) != (0, "body")]
    where, what = ".".join(map(str, loc)), str(errors[0]["msg"])
    if errors[0]["type"] == "missing":
        what = "is missing"
    if errors[0]["type"] == "extra_forbidden":
        name = str(errors[0]["loc"][-1])
        what = f"unknown{nearest(name, _NAMES)}" if name not in _NAMES else f"does not belong here{_home(name)}"
    return f"{where}: {what}" if where else what


def _home(name: str) -> str:
    return "; give it in settings" if name in FaceSettings.model_fields else ""


def pcm_float(data: bytes) -> np.ndarray:
    """Return s16le mono as float32 ``[N]``.

    Raises:
        UserError: half a sample.
    """
    if len(data) % 2:
        raise UserError("sound is s16le: a message must hold whole samples of two bytes")
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768.0


def pcm_bytes(wave_N: np.ndarray) -> bytes:
    """Return float32 mono in [-1, 1] as s16le."""
    return (np.clip(wave_N, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()


class Piece(NamedTuple):
    """Frames and the very sound that belongs to them.

    Attributes:
        frame: number of the first pixel frame in the session.
        frames: uint8 ``[P, H, W, 3]``.
        audio: float32 ``[N]``, as long as ``span`` frames.
        span: pixel frames that it lasts; fewer are there where some came too late to be sent.
        turn: how many times the session was interrupted before.
    """

    frame: int
    frames: np.ndarray
    audio: np.ndarray
    span: int
    turn: int

    def until(self, frame: int) -> Piece:
        """What lies before a pixel frame."""
        keep = min(max(frame - self.frame, 0), self.span)
        samples = len(self.audio) * keep // self.span if self.span else 0
        return self._replace(frames=self.frames[:keep], audio=self.audio[:samples], span=keep)


def pack(piece: Piece) -> bytes:
    """Return a piece as a binary message: :data:`HEADER`, RGB frames, s16le sound."""
    count, side = len(piece.frames), piece.frames.shape[1]
    head = HEADER.pack(MAGIC, piece.turn, piece.frame, piece.span, count, side, len(piece.audio))
    return b"".join((head, np.ascontiguousarray(piece.frames).tobytes(), pcm_bytes(piece.audio)))


def unpack(message: bytes) -> Piece:
    """Read what :func:`pack` wrote, as a program that talks to the server does.

    Raises:
        ValueError: it is something else.
    """
    magic, turn, frame, span, count, side, samples = HEADER.unpack_from(message)
    pixels = count * side * side * 3
    if magic != MAGIC or len(message) != HEADER.size + pixels + 2 * samples:
        raise ValueError("not a piece of video")
    frames = np.frombuffer(message, np.uint8, pixels, HEADER.size).reshape(count, side, side, 3)
    return Piece(frame, frames, pcm_float(message[HEADER.size + pixels :]), span, turn)


def to_json(kind: str, **values: Any) -> str:
    """Return a message of the server."""
    return json.dumps({"type": kind, **values})


def samples_of(frames: int, rate: int) -> int:
    """Samples that so many pixel frames last."""
    return frames * (rate // FPS)
