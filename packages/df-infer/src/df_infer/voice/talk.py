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
from df_models.time import FPS

PATIENCE_S = 0.06
"""How long speech that has begun may be late before silence is put into it: above the jitter between pieces of a
speech synthesiser, below what would stop the picture."""
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

    Args:
        session: a new one; it belongs to the talk.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._moments: deque[Moment] = deque()
        self._turns: deque[list[int | None]] = deque()  # first sample and the one after the last, None: goes on
        self._taken = 0
        self._alone, self._came, self._went = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._closed = False

    def push(self, pcm_N: np.ndarray) -> None:
        """Take the next piece of a turn: mono, float32 or int16, at the session's rate.

        Raises:
            UserError: it is no such sound.
        """
        first = self.session.samples
        self.session.push(pcm_N)
        if not self._turns or self._turns[-1][1] is not None:
            self._turns.append([first, None])
        self._came.set()

    def end_turn(self) -> None:
        """Say that the turn is over; the moment in which its last sound is heard says so too."""
        if self._turns and self._turns[-1][1] is None:
            self._turns[-1][1] = self.session.samples
        self._came.set()

    async def spoken(self) -> None:
        """End the turn and wait until all of it was taken."""
        self.end_turn()
        while not self._closed and (self._turns or self._moments):
            self._went.clear()
            await self._went.wait()

    async def interrupt(self) -> None:
        """Stop speaking: what was not taken is undone, and the face goes on from what was."""
        async with self._alone:
            await asyncio.to_thread(self.session.clear, self._taken)
            self._moments.clear()
            self._turns.clear()
            self._taken = min(self._taken, self.session.frame)
        self._came.set()
        self._went.set()

    def close(self) -> None:
        """End the moments after the one that is being made."""
        self._closed = True
        self._came.set()
        self._went.set()

    async def __aiter__(self) -> AsyncIterator[Moment]:
        """Yield moments for as long as they are taken, until :meth:`close`."""
        while not self._closed:
            if self._moments:
                self._taken += 1
                yield self._moments.popleft()
                self._went.set()
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
        self._taken = max(self._taken, segment.frame)
        for place, image in enumerate(segment.frames):
            first = (segment.frame + place) * size
            spoken, ends = self._turn_at(first, first + size)
            audio = segment.audio[place * size : (place + 1) * size] if spoken else None
            self._moments.append(Moment(image, audio, ends))

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
