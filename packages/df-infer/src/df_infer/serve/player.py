"""The playout of WebRTC: sound and frames handed out on one clock, which the sound drives.

Shape legend: N samples, H, W pixels.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from fractions import Fraction
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack

from df_infer.serve.protocol import BEGIN_FRAMES, BROWSER_RATE, Piece
from df_models.time import FPS

PER_FRAME = BROWSER_RATE // FPS
BLOCK = BROWSER_RATE // 50
"""20 ms, the piece that Opus codes."""
VIDEO_CLOCK = 90_000
"""RFC 3551: the clock of video in RTP."""
LAG_S = 1.0
"""After a pause of the whole program as long as this, time is taken up anew instead of being run after."""


class Player:
    """Plays pieces: where sound is lacking, time stands still, in silence, with the last frame.

    Args:
        still_HWC: what is seen before the first frame.
    """

    def __init__(self, still_HWC: np.ndarray) -> None:
        self._image = still_HWC
        self._sound: deque[np.ndarray] = deque()
        self._samples = self._played = 0
        self._frames: deque[tuple[int, np.ndarray]] = deque()
        self._playing = self._held = self._ending = False
        self._anchor = time.monotonic()
        self._current = self._shown = -1
        self.dropped = self.stalls = 0

    def position(self) -> float:
        """See :class:`df_infer.serve.speaker.Playout`."""
        return self._played / PER_FRAME

    def show(self, piece: Piece) -> None:
        """See :class:`df_infer.serve.speaker.Playout`."""
        self._frames.extend(enumerate(piece.frames, piece.frame))
        self._sound.append(piece.audio)
        self._samples += len(piece.audio)

    def hold(self, seen: int | None = None) -> None:
        """See :class:`df_infer.serve.speaker.Playout`; this clock knows better than the client."""
        self._held = True

    def drop(self, frame: int, turn: int) -> None:
        """See :class:`df_infer.serve.speaker.Playout`."""
        wave_N = np.concatenate((*self._sound, np.zeros(0, np.float32)))
        keep = max(0, frame * PER_FRAME - self._played)
        self._sound = deque([wave_N[:keep]])
        self._samples = min(len(wave_N), keep)
        self._frames = deque((number, image) for number, image in self._frames if number < frame)
        self._held = False

    def sound(self, count: int) -> np.ndarray:
        """The next samples, float32 ``[count]``; time goes on by those that were there."""
        begun = self._playing or self._ending
        if self._held or self._samples < (count if begun else BEGIN_FRAMES * PER_FRAME):
            self.stalls += self._playing and not self._held and not self._ending
            return np.zeros(count, np.float32)
        self._playing = True
        taken, lacks = [], count
        while lacks:
            first = self._sound.popleft()
            if len(first) > lacks:
                self._sound.appendleft(first[lacks:])
            taken.append(first[:lacks])
            lacks -= len(taken[-1])
        self._samples -= count
        self._played += count
        self._pass_frames()
        return np.concatenate(taken)

    def _pass_frames(self) -> None:
        """Let go of the frames before now: nobody need ask for them, where a browser takes no video."""
        now = self._played // PER_FRAME
        while self._frames and self._frames[0][0] <= now:
            self._current, self._image = self._frames.popleft()

    @property
    def waiting(self) -> int:
        """Samples that wait to be played."""
        return self._samples

    async def finish(self) -> None:
        """Wait until all has been played: nothing else comes, and what there is begins however little it is."""
        self._ending = True
        while self._samples >= BLOCK:
            await asyncio.sleep(BLOCK / BROWSER_RATE)

    def image(self) -> np.ndarray:
        """The frame of now, uint8 ``[H, W, 3]``; those before it that were not asked for are dropped."""
        self._pass_frames()
        if self._shown >= 0:
            self.dropped += max(0, self._current - self._shown - 1)
        self._shown = self._current
        return self._image

    async def until(self, seconds: float) -> None:
        """Wait for a time of the connection's clock, which both tracks share."""
        late = time.monotonic() - (self._anchor + seconds)
        if late > LAG_S:
            self._anchor += late
        elif late < 0:
            await asyncio.sleep(-late)

    def clock(self) -> float:
        """Seconds of the connection's clock."""
        return time.monotonic() - self._anchor


class SoundTrack(MediaStreamTrack):
    """The player's sound as a track."""

    kind = "audio"

    def __init__(self, player: Player) -> None:
        super().__init__()
        self._player, self._sent = player, 0

    async def recv(self) -> Any:
        """Return the next 20 ms, when it is time for them."""
        import av

        await self._player.until(self._sent / BROWSER_RATE)
        wave_N = self._player.sound(BLOCK)
        pcm = (np.clip(wave_N, -1.0, 1.0) * 32767.0).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = BROWSER_RATE, Fraction(1, BROWSER_RATE), self._sent
        self._sent += BLOCK
        return frame


class PictureTrack(MediaStreamTrack):
    """The player's frames as a track."""

    kind = "video"

    def __init__(self, player: Player) -> None:
        super().__init__()
        self._player, self._number = player, -1

    async def recv(self) -> Any:
        """Return the frame of now, 25 times a second; one that would be late is left out."""
        import av

        self._number = max(self._number + 1, int(self._player.clock() * FPS))
        await self._player.until(self._number / FPS)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self._player.image()), format="rgb24")
        frame.time_base, frame.pts = Fraction(1, VIDEO_CLOCK), self._number * (VIDEO_CLOCK // FPS)
        return frame
