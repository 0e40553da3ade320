"""What goes out over a socket, in order: pieces of video, and messages between them."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from df_infer.serve.protocol import BEGIN_FRAMES, Piece
from df_models.errors import UserError
from df_models.time import FPS

LATE_FRAMES = FPS // 2
"""Frames that should have been seen so long ago are dropped, all but the first of four."""
MOST_BEHIND = 30 * FPS
"""One that is further behind is cut off: it would never catch up, and its sound must not be dropped."""


class Stream:
    """The playout of a client with a clock of its own, which is guessed.

    It is taken to begin with :data:`BEGIN_FRAMES`, to play 25 frames a second of what was made for it, and to stop
    where nothing is left.
    """

    def __init__(self) -> None:
        self._out: deque[Piece | str] = deque()
        self._ready = asyncio.Event()
        self._made = self._turn = 0
        self._position, self._since = 0.0, time.monotonic()
        self._held = self._closed = False
        self.dropped = 0

    def position(self) -> float:
        """See :class:`df_infer.serve.speaker.Playout`."""
        now = time.monotonic()
        if not self._held and self._made >= BEGIN_FRAMES:
            self._position = min(float(self._made), self._position + (now - self._since) * FPS)
        self._since = now
        return self._position

    def show(self, piece: Piece) -> None:
        """See :class:`df_infer.serve.speaker.Playout`."""
        self.position()
        self._made = piece.frame + piece.span
        self._out = deque(self._thinned(item) for item in self._out)
        self._out.append(piece)
        if self.behind > MOST_BEHIND:
            raise UserError(f"the connection is more than {MOST_BEHIND // FPS} s behind")
        self._ready.set()

    def hold(self, seen: int | None = None) -> None:
        """See :class:`df_infer.serve.speaker.Playout`."""
        self._position = self.position() if seen is None else min(seen, self._made)
        self._held = True

    def drop(self, frame: int, turn: int) -> None:
        """See :class:`df_infer.serve.speaker.Playout`."""
        kept = [item.until(frame) if isinstance(item, Piece) else item for item in self._out]
        self._out = deque(item for item in kept if not isinstance(item, Piece) or item.span)
        self._made, self._turn, self._held = frame, turn, False
        self._position, self._since = min(self._position, float(frame)), time.monotonic()

    def say(self, message: str) -> None:
        """Send a message when what was made before it has gone."""
        self._out.append(message)
        self._ready.set()

    def close(self) -> None:
        """:meth:`next` ends when the rest has gone."""
        self._closed = True
        self._ready.set()

    @property
    def behind(self) -> int:
        """Pixel frames that wait to be sent."""
        return sum(item.span for item in self._out if isinstance(item, Piece))

    async def next(self) -> Piece | str | None:
        """Return what goes out next, of late pieces the first frame only; None at the end."""
        while not self._out:
            if self._closed:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._thinned(self._out.popleft())

    def _thinned(self, item: Piece | str) -> Piece | str:
        """A piece that is late with its first frame alone, as a copy, so that the others take no memory."""
        if isinstance(item, str) or len(item.frames) <= 1 or self.position() - item.frame <= LATE_FRAMES:
            return item
        self.dropped += len(item.frames) - 1
        return item._replace(frames=item.frames[:1].copy())
