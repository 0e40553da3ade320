"""A session as voice stacks want it: speech is handed over in turns, frames are taken one by one with their sound.

The one who takes the frames sets the pace, by the clock of a call or a transport. Between the turns the session is
given silence, so the face lives on.

Shape legend: H, W pixels, N samples.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

import numpy as np

from df_infer.live.session import Session
from df_infer.live.sound import checked
from df_models.time import FPS

PATIENCE_S = 0.06
"""How long speech that has begun may be late before silence is put into it: above the jitter between pieces of a
speech synthesiser, below what would stop the picture."""
AHEAD_FRAMES = 5
"""Frames that wait to be taken before no more are made: a latent frame and one, so that the next is made meanwhile."""
IDLE_FRAMES = 4
"""Silence is given in latent frames of four: less could not be made, more would delay the speech that comes next."""


class Moment(NamedTuple):
    """One pixel frame.

    Attributes:
        image: uint8 ``[H, W, 3]``.
        audio: float32 ``[N]``, the speech of this frame; None while nobody speaks.
        ends: a turn of speech ends with it.
    """

    image: np.ndarray
    audio: np.ndarray | None
    ends: bool


class Talk:
    """Turns of speech in, moments out, from one event loop.

    Frames are made while others are being taken, :data:`AHEAD_FRAMES` at most; an interruption undoes them.

    Args:
        session: a new one; it belongs to the talk.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._moments: deque[Moment] = deque()
        self._turns: deque[list[int | None]] = deque()  # first sample and the one after the last, None: goes on
        self._taken = 0
        self._alone, self._closed, self._saying = asyncio.Lock(), False, False
        self._came, self._went, self._made = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._held_back: list[np.ndarray | None] | None = None  # what came during an interruption; None ends a turn
        self._interruptions = 0

    def push(self, pcm_N: np.ndarray) -> None:
        """Take the next piece of a turn: mono, float32 or int16, at the session's rate.

        Raises:
            UserError: it is no such sound.
        """
        if self._held_back is not None:
            self._held_back.append(checked(pcm_N))
            return
        first = self.session.samples
        self.session.push(pcm_N)
        if not self._turns or self._turns[-1][1] is not None:
            self._turns.append([first, None])
        self._came.set()

    def end_turn(self) -> bool:
        """Say that the turn is over, and return whether there was one; the moment of its last sound says so too."""
        if self._held_back is not None:
            begun = bool(self._held_back) and self._held_back[-1] is not None
            self._held_back += [None] if begun else []
            return begun
        begun = bool(self._turns) and self._turns[-1][1] is None
        if begun:
            self._turns[-1][1] = self.session.samples
        self._came.set()
        return begun

    async def spoken(self) -> None:
        """End the turn and wait until all of it was taken, and the moment after its last one is asked for."""
        self.end_turn()
        while not self._closed and (self._turns or self._saying or any(m.audio is not None for m in self._moments)):
            self._went.clear()
            await self._went.wait()

    async def interrupt(self) -> None:
        """Stop speaking: the frames that follow those taken are undone, but for the begun latent frame's, in silence.

        Speech that comes meanwhile is the next turn.
        """
        self._turns.clear()
        self._held_back = []  # what came during an earlier interruption is interrupted, too
        self._interruptions += 1
        try:
            async with self._alone:
                frame = await asyncio.to_thread(self.session.clear, self._taken)
                kept = [self._moments[place] for place in range(min(frame - self._taken, len(self._moments)))]
                self._moments = deque(moment._replace(audio=None, ends=False) for moment in kept)
        finally:
            self._interruptions -= 1
            if not self._interruptions:
                came, self._held_back = self._held_back, None
                for pcm_N in came:
                    self.end_turn() if pcm_N is None else self.push(pcm_N)
            self._came.set()
            self._went.set()

    def close(self) -> None:
        """End the moments after the one that is being made."""
        self._closed = True
        for event in (self._came, self._went, self._made):
            event.set()

    async def __aiter__(self) -> AsyncIterator[Moment]:
        """Yield moments for as long as they are taken, until :meth:`close`."""
        making = asyncio.create_task(self._make_ahead())
        making.add_done_callback(lambda _: self._made.set())
        try:
            while not self._closed:
                if self._moments:
                    self._taken += 1
                    moment = self._moments.popleft()
                    self._saying = moment.audio is not None
                    self._went.set()
                    yield moment
                    self._saying = False
                    self._went.set()
                elif making.done():
                    making.result()
                    return
                else:
                    self._made.clear()
                    await self._made.wait()
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _make_ahead(self) -> None:
        while not self._closed:
            if len(self._moments) >= AHEAD_FRAMES:
                self._went.clear()
                await self._went.wait()
            elif self.session.due:
                async with self._alone:
                    await self._make()
            elif self._turns and self._turns[-1][1] is None and await self._more_came():
                continue
            else:
                self.session.idle(IDLE_FRAMES)

    async def _make(self) -> None:
        segment = await asyncio.to_thread(self.session.make)
        if segment is None:
            return
        size = self.session.rate // FPS
        for place, image in enumerate(segment.frames):
            first = (segment.frame + place) * size
            spoken, ends = self._turn_at(first, first + size)
            audio = segment.audio[place * size : (place + 1) * size] if spoken else None
            self._moments.append(Moment(image, audio, ends))
        self._made.set()

    def _turn_at(self, first: int, last: int) -> tuple[bool, bool]:
        """Return whether somebody speaks in these samples, and whether a turn ends with them."""
        spoken = ends = False
        while self._turns and self._turns[0][0] is not None and self._turns[0][0] < last:
            spoken = True
            end = self._turns[0][1]
            if end is None or end > last:
                break
            self._turns.popleft()
            ends = True
        return spoken, ends

    async def _more_came(self) -> bool:
        """Wait a little for the turn to go on."""
        self._came.clear()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._came.wait()
        except TimeoutError:
            return False
        return True
