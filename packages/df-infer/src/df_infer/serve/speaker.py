"""The middle of a session: sound comes in at one end, pieces of video are made in time at the other.

The session's timeline is that of its sound: pixel frame f belongs to the samples from f/25 s on. Three places move
along it: what was *heard* (sound that came in, silence included), what was *made*, and what is *seen*. The sound that
lies between heard and seen is the delay. Silence is put in when nothing comes and the face would stop; it is left out
again, where a microphone is silent itself, when its clock or the network has let the delay grow. Speech never is.

Shape legend: N samples.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

import numpy as np

from df_infer.serve.engine import NOW, Engine, GivenUp, soon
from df_infer.serve.protocol import Piece, samples_of
from df_models.errors import UserError
from df_models.time import FPS

if TYPE_CHECKING:
    from df_infer import Segment, Session
    from df_infer.sampling.steps import Steps

TICK_S = 0.02
LIVE_PATIENCE_S = 0.25
"""A microphone that sends nothing for so long is taken for silent: above the jitter of networks that are of use."""
BURST_PATIENCE_S = 0.06
SLACK_S = 0.2
"""The delay may grow by so much before pauses are shortened: more than a late packet, less than one would notice."""
LONGEST_MARGIN_S = 0.4
"""Of the time that computing may take; what needs longer is not live."""
BLOCK_S = 0.02
QUIET = 1e-3
"""Root mean square of -60 dB: the noise of a quiet room in a microphone; below it nobody speaks."""
BACK_S = 1.0
"""Beside what is made ahead, an interruption can go back so far: a client may be later than it is taken to be."""


def keep_frames(ahead_s: float) -> int:
    """Pixel frames that a face must be able to undo, where so much is made ahead of what is seen."""
    return math.ceil((ahead_s + BACK_S) * FPS)


class Playout(Protocol):
    """Where pieces go to be seen.

    Attributes:
        dropped: pixel frames that came too late to be seen.
    """

    dropped: int

    def position(self) -> float:
        """Pixel frames seen so far."""
        ...

    def show(self, piece: Piece) -> None:
        """Take the next piece."""
        ...

    def hold(self, seen: int | None = None) -> None:
        """Stop at once, until :meth:`drop`; the client says that it has stopped after ``seen`` frames."""
        ...

    def drop(self, frame: int, turn: int) -> None:
        """Forget what lies from a pixel frame on; what comes next begins there."""
        ...


class Speaker:
    """Drives one face. All methods belong to the event loop; the face is touched by the engine's thread alone.

    Args:
        face: a session of the model, new.
        ahead_s: how far to make ahead of what is seen.
        sound_ahead_s: how much sound may wait.
        made: hears of each chunk its frames, how long it took in seconds, and whether the picture had to wait for it.

    Attributes:
        after_s: how much later than they are seen its chunks are due, seconds (:data:`df_infer.serve.engine.AFTER_S`).
        turn: how often what was not seen was dropped.
        left_out_s: silence that was left out.
    """

    def __init__(
        self,
        face: Session,
        engine: Engine,
        playout: Playout,
        *,
        ahead_s: float,
        sound_ahead_s: float,
        made: Callable[[int, float, bool], None],
    ) -> None:
        self._face, self._engine, self._playout, self._made_in = face, engine, playout, made
        self._live, self._ahead, self._most_ahead_s = False, ahead_s * FPS, sound_ahead_s
        self._keep = keep_frames(ahead_s)
        self._alone = asyncio.Lock()
        self._making: Future[tuple[Segment | None, float]] | None = None
        self._wake = asyncio.Event()
        self._waiting: deque[np.ndarray] = deque()
        self._waiting_samples = 0
        self._origin = self._made = 0
        self._handed = 0
        self._maybe_due = self._ending = False
        self._last_sound = self._spoken = time.monotonic()
        self._spoken_to = 0.0
        self._took_s = 0.0
        self.after_s = 0.0
        self.turn = 0
        self.left_out_s = 0.0

    @property
    def heard(self) -> float:
        """Place of the last sound that came, in pixel frames."""
        return self._origin + (self._handed + self._waiting_samples) * FPS / self._face.rate

    @property
    def quiet_s(self) -> float:
        """For how long nobody has spoken, nor was anything that was spoken left to be seen; to be asked regularly."""
        if self._playout.position() < self._spoken_to:
            self._spoken = time.monotonic()
        return time.monotonic() - self._spoken

    def push(self, wave_N: np.ndarray, *, live: bool) -> None:
        """Take sound, float32 mono at the face's rate.

        Args:
            live: it is a microphone's, and comes at its own pace: what is late is caught up in its pauses. Otherwise
                it may come as fast as it likes, and every sample is spoken.

        Raises:
            UserError: more waits than may.
        """
        if not len(wave_N) or self._ending:
            return
        self._last_sound, self._live = time.monotonic(), live
        spoken = _loudness(wave_N) >= QUIET
        if live:
            wave_N = self._without_pauses(wave_N)
        self._waiting.append(wave_N)
        self._waiting_samples += len(wave_N)
        if spoken:
            self._spoken, self._spoken_to = self._last_sound, self.heard
        if self._waiting_samples > self._most_ahead_s * self._face.rate:
            raise UserError(f"more than {self._most_ahead_s:g} s of sound wait to be spoken; send it more slowly")
        self._wake.set()

    def end(self) -> None:
        """No more sound comes; :meth:`run` returns when the rest is made."""
        self._ending = True
        self._wake.set()

    async def clear(self, shown: int | None = None) -> int:
        """Drop what was not seen, from ``shown`` on (by default what is seen now); return the frame that comes next."""
        self._playout.hold(shown)
        self._forget_waiting()
        self._engine.give_up(self._making)  # it was not seen
        async with self._alone:
            place = math.ceil(self._playout.position())  # a frame that was begun is seen
            seen = min(max(place, self._origin, self._made - self._keep), self._made)
            frame = self._origin + await self._engine.do(NOW, self._face.clear, seen - self._origin)
            self._go_on_from(frame)
        return frame

    async def change(self, make: Callable[[], Session], after_s: float) -> int:
        """Drop what was not seen and go on with a new face, and its :attr:`after_s`; return its first frame."""
        self._playout.hold()
        self._forget_waiting()
        self._engine.give_up(self._making)
        async with self._alone:
            self._face, self.after_s = await self._engine.do(soon(), make), after_s
            self._origin = math.ceil(self._playout.position())
            self._go_on_from(self._origin)
        return self._origin

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_samples = 0

    def _go_on_from(self, frame: int) -> None:
        self._forget_waiting()
        self.turn += 1
        self._made = frame
        self._spoken_to = min(self._spoken_to, frame)
        self._handed = samples_of(frame - self._origin, self._face.rate)
        self._maybe_due = True
        self._last_sound = time.monotonic() - LIVE_PATIENCE_S
        self._playout.drop(frame, self.turn)
        self._wake.set()

    async def run(self) -> None:
        """Make what is due until the sound has ended."""
        while True:
            if self._made - self._playout.position() < self._ahead:
                async with self._alone:
                    sound, idle = self._next_sound()
                    last = self._ending and not self._waiting
                    if sound or idle or self._maybe_due or last:
                        try:
                            segment, took = await self._make(sound, idle, last)
                        except GivenUp:
                            continue  # whoever gave it up has the next turn
                        self._maybe_due = segment is not None
                        if segment is not None:
                            self._publish(segment, took)
                            continue
                        if last:
                            return
            self._wake.clear()
            await _wait(self._wake, TICK_S)

    async def _make(self, sound: list[np.ndarray], idle: int, last: bool) -> tuple[Segment | None, float]:
        """Have the next chunk made; what nobody waits for any more is given up."""
        self._making = self._engine.submit_steps(self._deadline(), self._turn, sound, idle, last)
        try:
            return await asyncio.wrap_future(self._making)
        finally:
            self._engine.give_up(self._making)

    def _turn(self, sound: list[np.ndarray], idle: int, last: bool) -> Steps[tuple[Segment | None, float]]:
        """Hand sound to the face and make the next chunk; in the engine's thread."""
        began = time.monotonic()
        for wave_N in sound:
            self._face.push(wave_N)
        if idle:
            self._face.idle(idle)
        if last:
            self._face.close()
        segment = yield from self._face.steps()
        return segment, time.monotonic() - began

    def _publish(self, segment: Segment, took: float) -> None:
        frame, span = self._origin + segment.frame, len(segment.frames)
        assert frame == self._made, "frames follow each other"
        self._took_s = max(took, 0.9 * self._took_s)
        waited = frame > self._origin + 1 and self._playout.position() > frame - 0.25
        self._made_in(span, took, waited)
        self._made = frame + span
        self._playout.show(Piece(frame, segment.frames, segment.audio, span, self.turn))

    def _deadline(self) -> float:
        return time.monotonic() + (self._made - self._playout.position()) / FPS + self.after_s

    def _needed(self) -> float:
        """Pixel frames that must lie between heard and seen, so that each chunk is made in time."""
        return (self._face.latency_s + min(self._took_s, LONGEST_MARGIN_S)) * FPS + 2

    def _next_sound(self) -> tuple[list[np.ndarray], int]:
        """Take what the next chunk must hear from what waits, and count the frames of silence to put in."""
        rate, latency = self._face.rate, self._face.latency_s
        wanted = samples_of(self._made - self._origin, rate) + round((latency + 4 / FPS) * rate) - self._handed
        idle = self._idle_frames()
        begun = self._made > self._origin
        if begun and not idle and not self._ending and self._waiting_samples < wanted - 4 * rate // FPS:
            return [], 0
        taken: list[np.ndarray] = []
        while self._waiting and (wanted > 0 or idle):
            piece = self._waiting.popleft()
            now = len(piece) if idle else min(len(piece), wanted)
            if now < len(piece):
                self._waiting.appendleft(piece[now:])
            taken.append(piece[:now])
            wanted -= now
            self._waiting_samples -= now
            self._handed += now
        self._handed += samples_of(idle, rate)
        return taken, idle

    def _idle_frames(self) -> int:
        patience = LIVE_PATIENCE_S if self._live else BURST_PATIENCE_S
        lacks = self._needed() - (self.heard - self._playout.position())
        if self._ending or time.monotonic() - self._last_sound < patience or lacks <= 0:
            return 0
        return max(4, int(np.ceil(lacks)))

    def _without_pauses(self, wave_N: np.ndarray) -> np.ndarray:
        """Leave out silent blocks while the delay is beyond what it must be."""
        late = (self.heard - self._playout.position() - self._needed()) / FPS
        if late < SLACK_S:
            return wave_N
        size, kept = round(BLOCK_S * self._face.rate), []
        for start in range(0, len(wave_N), size):
            block = wave_N[start : start + size]
            if late > 0 and _loudness(block) < QUIET:
                late -= len(block) / self._face.rate
                self.left_out_s += len(block) / self._face.rate
            else:
                kept.append(block)
        return np.concatenate(kept) if kept else wave_N[:0]


def _loudness(wave_N: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(wave_N))))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
