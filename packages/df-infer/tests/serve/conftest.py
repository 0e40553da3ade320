"""A model that costs nothing, whose frames tell their number and their sound, and a server of it on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from df_infer.serve.app import build_app
from df_infer.serve.backend import About, Video
from df_infer.serve.config import ServeConfig
from df_infer.serve.house import House, checked_example
from df_infer.serve.protocol import FaceSettings
from df_infer.serve.server import make_server
from df_models.time import FPS

SIZE = 64
AHEAD = 4
BITS = 16
MOUTH = slice(26, 38)
"""Columns of the mouth."""
LIPS, LOWEST = 28, 60
"""Rows between which it opens."""


class FakeSegment(NamedTuple):
    frame: int
    frames: np.ndarray
    audio: np.ndarray
    structure: np.ndarray


def draw(number: int, wave_N: np.ndarray, base: int = 0) -> np.ndarray:
    """A frame: its number as bright and dark squares on top, a white mouth as open as its sound is loud."""
    image = np.full((SIZE, SIZE, 3), 60 + base, np.uint8)
    for bit in range(BITS):
        image[:8, 4 * bit : 4 * bit + 4] = 255 if number >> bit & 1 else 0
    loud = float(np.sqrt(np.mean(np.square(wave_N)))) if len(wave_N) else 0.0
    image[LIPS : LIPS + round(min(1.0, 4 * loud) * (LOWEST - LIPS)), MOUTH] = 255
    return image


def number_of(image_HWC: np.ndarray) -> int:
    """Read a frame's number."""
    return sum(1 << bit for bit in range(BITS) if image_HWC[2:6, 4 * bit + 1 : 4 * bit + 3].mean() > 128)


def opening_of(image_HWC: np.ndarray) -> float:
    """Read how far the mouth is open, from 0 to 1."""
    return float((image_HWC[LIPS:LOWEST, 30:34].mean(axis=(1, 2)) > 160).mean())


class FakeFace:
    """Keeps to the interface of `df_infer.Session`: one frame, then four at a time, 160 ms of sound ahead."""

    latency_s = (4 + AHEAD) / FPS

    def __init__(self, rate: int, base: int = 0, keep: int = 64) -> None:
        self.rate, self._base, self._per, self._keep = rate, base, rate // FPS, keep
        self._sound, self._first = np.zeros(0, np.float32), 0
        self._next, self._closed = 0, False

    def push(self, pcm_N: np.ndarray) -> None:
        assert not self._closed
        self._sound = np.concatenate((self._sound, pcm_N))

    def idle(self, frames: int) -> None:
        self.push(np.zeros(frames * self._per, np.float32))

    def make(self) -> FakeSegment | None:
        count, known = (4 if self._next else 1), self._first + len(self._sound)
        end = self._next + count
        if known < (self._next * self._per + 1 if self._closed else (end + AHEAD) * self._per):
            return None
        audio = self._sound[self._next * self._per - self._first :][: count * self._per]
        audio = np.pad(audio, (0, count * self._per - len(audio)))
        sounds = audio.reshape(count, self._per)
        frames = np.stack([draw(self._next + i, sound, self._base) for i, sound in enumerate(sounds)])
        made = FakeSegment(self._next, frames, audio, np.zeros((count, 0), np.float32))
        self._next = end
        old = max(0, (end - self._keep - 4) * self._per - self._first)
        self._sound, self._first = self._sound[old:], self._first + old
        return made

    def steps(self) -> Generator[Any, Any, FakeSegment | None]:
        yield from ()
        return self.make()

    def clear(self, shown: int) -> int:
        assert 0 <= shown <= self._next and self._next - shown <= self._keep
        self._next = 0 if shown == 0 else 1 + -(-(shown - 1) // 4) * 4
        self._sound = self._sound[: self._next * self._per - self._first]
        return self._next

    def close(self) -> None:
        self._closed = True


class FakeBackend:
    about = About("fake", SIZE, 4, 2.0, None, False, False, FakeFace.latency_s)
    compiled = False

    def __init__(self) -> None:
        self.opened: list[FaceSettings] = []

    def portrait(self, image_HWC: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(image_HWC[:SIZE, :SIZE])

    def open(self, portrait_HWC: np.ndarray, rate: int, settings: FaceSettings, keep: int) -> FakeFace:
        self.opened.append(settings)
        return FakeFace(rate, settings.seed, keep)

    def video(self, portrait_HWC: np.ndarray, wave_N: np.ndarray, settings: FaceSettings) -> Video:
        count, face = 1 + -(-(len(wave_N) // 640 - 1) // 4) * 4, FakeFace(16_000)
        face.push(wave_N)
        face.close()
        return Video(count, face.steps)  # pyright: ignore[reportArgumentType]

    def takes_more(self, settings: FaceSettings) -> bool:
        return (settings.steps or self.about.steps) > self.about.steps


@dataclasses.dataclass
class Running:
    """A server in a thread of its own."""

    port: int
    loop: asyncio.AbstractEventLoop
    house: House
    backend: Any
    server: Any

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/live"

    def tasks(self) -> int:
        """Tasks of the server's loop."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)


Serve = Callable[..., Running]


@contextlib.contextmanager
def running(backend: Any, token: bytes | None = None, **settings: Any) -> Iterator[Running]:
    """Serve a backend on a free port of loopback."""
    config = ServeConfig(port=0, **settings)
    app = build_app(config, backend, checked_example(config, backend), token)
    server = make_server(app, config)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()))
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(port, loop, app.state.house, backend, server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
        loop.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers, with settings of their own; they stop with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda token=None, **settings: stack.enter_context(running(FakeBackend(), token, **settings))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server as it is by default, for all tests of a file."""
    with running(FakeBackend(), sessions=4) as started:
        yield started


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http) as http:
        yield http
