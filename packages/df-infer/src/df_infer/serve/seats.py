"""A limited number of places, and a line of those who wait for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

from df_models.errors import UserError

CONNECTING = 8
"""Those who may be connecting, by each way of coming in, beside those who talk or wait."""


class Full(UserError):
    """Nobody else may even wait."""


class Seats:
    """``limit`` places; those who come later wait in their order, ``waiting`` of them at most."""

    def __init__(self, limit: int, waiting: int) -> None:
        self._free, self._waiting = limit, waiting
        self._line: deque[tuple[asyncio.Future[None], Callable[[int], None]]] = deque()
        self.limit, self.taken = limit, 0

    @property
    def line(self) -> int:
        """How many wait."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """Whether the next one would be refused."""
        return self._free == 0 and len(self._line) >= self._waiting

    @contextlib.asynccontextmanager
    async def one(self, tell: Callable[[int], None]) -> AsyncIterator[None]:
        """Hold a place; while waiting for it, ``tell`` hears one's position in the line, from 1, when it changes.

        Raises:
            Full: the line is full too.
        """
        await self._take(tell)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._give()

    async def _take(self, tell: Callable[[int], None]) -> None:
        if self._free:
            self._free -= 1
            return
        if self.full:
            raise Full(f"all {self.limit} places are taken and {self.line} others wait; try again later")
        mine = asyncio.get_running_loop().create_future()
        self._line.append((mine, tell))
        tell(len(self._line))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._give()
            else:
                self._line = deque(entry for entry in self._line if entry[0] is not mine)
                self._tell_all()
            raise

    def _give(self) -> None:
        """Hand a place on to the first who waits."""
        while self._line:
            first, _ = self._line.popleft()
            if not first.done():
                first.set_result(None)
                self._tell_all()
                return
        self._free += 1

    def _tell_all(self) -> None:
        for position, (_, tell) in enumerate(self._line, 1):
            tell(position)
