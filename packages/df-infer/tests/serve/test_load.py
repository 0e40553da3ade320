"""Many who come and go, one who does not listen, and a microphone whose clock runs fast."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import time

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from df_infer.serve.conversation import Conversation
from df_infer.serve.engine import WHENEVER, Engine
from df_infer.serve.protocol import Piece, pcm_bytes, unpack
from df_infer.serve.seats import Full, Seats
from df_infer.serve.speaker import Speaker
from df_infer.serve.stream import LATE_FRAMES, Stream
from df_models.errors import UserError

from .conftest import FPS, FakeFace, Running, Serve

RATE = 16_000


async def come_and_go(server: Running, times: int) -> None:
    """Connections that break off at any point of their life, some of them rudely."""
    choose = random.Random(0)

    async def once() -> None:
        try:
            async with connect(server.ws) as socket:
                if choose.random() < 0.2:
                    return
                await socket.send(json.dumps({"type": "start", "microphone": True}))
                for _ in range(choose.randrange(6)):
                    await socket.recv()
                    await socket.send(choose.choice(["{}", bytes(640), "[", bytes(1)]))
                if choose.random() < 0.3:
                    socket.transport.abort()
        except ConnectionClosed:
            pass

    for _ in range(0, times, 20):
        await asyncio.gather(*(once() for _ in range(20)))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def live() -> list[object]:
    """What belongs to somebody's session, of all that there is in this process."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) in (Conversation, Speaker, Stream)]


def check_no_leak(serve: Serve, times: int) -> None:
    async def client() -> None:
        before = len(live())  # what other tests of this process may have left
        server = serve(sessions=4, waiting=40)
        await come_and_go(server, 20)
        await settled(server)
        tasks, files = server.tasks(), open_files()
        await come_and_go(server, times)
        await settled(server)
        assert server.tasks() <= tasks and open_files() <= files + 2
        until = time.monotonic() + 10
        while len(live()) > before and time.monotonic() < until:  # a task may hold the last one for a moment
            await asyncio.sleep(0.05)
        assert len(live()) <= before, live()
        async with connect(server.ws) as socket:
            await socket.send(json.dumps({"type": "start"}))
            assert json.loads(await socket.recv())["type"] == "ready"

    async def settled(server: Running) -> None:
        until = time.monotonic() + 10
        while (server.house.seats.taken or server.tasks() > 8) and time.monotonic() < until:
            await asyncio.sleep(0.05)

    asyncio.run(client())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_nothing_is_left_of_200_who_came_and_went(serve: Serve):
    check_no_leak(serve, 200)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_nothing_is_left_of_1000_who_came_and_went(serve: Serve):
    check_no_leak(serve, 1000)


def test_who_does_not_listen_loses_frames_and_no_sound(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("df_infer.serve.stream.time.monotonic", lambda: now[0])

    async def scene() -> None:
        stream, got = Stream(), []

        def show(first: int, count: int) -> None:
            sound = np.full(count * RATE // FPS, first, np.float32)
            stream.show(Piece(first, np.zeros((count, 2, 2, 3), np.uint8), sound, count, 0))

        show(0, 1)
        for first in range(1, 97, 4):
            show(first, 4)
        now[0] += 2.0
        while stream.behind:
            got.append(await stream.next())
        assert [piece.frame for piece in got] == [0, *range(1, 97, 4)] and sum(p.span for p in got) == 97
        assert all(len(piece.audio) == piece.span * RATE // FPS for piece in got)
        assert [len(piece.frames) for piece in got] == [1] * 11 + [4] * 14 and stream.dropped == 30
        for first in range(97, 97 + 4 * 187, 4):
            show(first, 4)
        with pytest.raises(UserError, match="behind"):
            show(97 + 4 * 187, 4)

    asyncio.run(scene())


def test_late_frames_that_wait_take_no_memory(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("df_infer.serve.stream.time.monotonic", lambda: now[0])
    stream = Stream()
    for first in range(0, 400, 4):
        sound = np.zeros(4 * RATE // FPS, np.float32)
        stream.show(Piece(first, np.zeros((4, 2, 2, 3), np.uint8), sound, 4, 0))
        now[0] += 4 / FPS
    waiting = [piece for piece in stream._out if isinstance(piece, Piece)]
    assert stream.behind == 400 and sum(len(piece.audio) for piece in waiting) == 400 * RATE // FPS
    held = sum((p.frames if p.frames.base is None else p.frames.base).nbytes for p in waiting)
    late = LATE_FRAMES // 4 + 2
    assert held <= (100 + 3 * late) * 2 * 2 * 3


def test_fast_microphone_builds_up_no_delay_and_loses_no_speech(server: Running):
    async def client() -> None:
        async with connect(server.ws) as socket:
            await socket.send(json.dumps({"type": "start", "rate": RATE, "microphone": True}))
            while json.loads(await socket.recv())["type"] != "ready":
                pass
            loud = (0.3 * np.sin(np.arange(RATE // 5) / 5)).astype(np.float32)
            wave = np.tile(np.concatenate((loud, np.zeros_like(loud))), 8)
            began, stats, heard = time.monotonic(), {}, []

            async def listen() -> None:
                async for message in socket:
                    if isinstance(message, bytes):
                        heard.append(unpack(message).audio)
                    elif (read := json.loads(message))["type"] == "stats":
                        stats.update(read)

            listening = asyncio.create_task(listen())
            for number, start in enumerate(range(0, len(wave), 320)):
                await asyncio.sleep(max(0.0, began + number * 0.02 / 1.4 - time.monotonic()))  # 1.4 times too fast
                await socket.send(pcm_bytes(wave[start : start + 320]))
            await socket.send(json.dumps({"type": "end"}))
            await listening
        assert stats["left_out_ms"] > 200 and (stats["heard"] - stats["seen"]) / FPS < 1.0
        sound = np.concatenate(heard)
        assert np.count_nonzero(np.abs(sound) > 0.01) >= 0.99 * np.count_nonzero(np.abs(wave) > 0.01)

    asyncio.run(client())


def test_engine_does_first_what_is_needed_first():
    engine, done = Engine(), []
    hold = engine.submit(0.0, time.sleep, 0.05)
    for deadline in (WHENEVER, 3.0, 1.0, 2.0, 1.0):
        engine.submit(deadline, done.append, deadline)
    dropped = engine.submit(0.5, done.append, "dropped")
    dropped.cancel()
    hold.result(5)
    with pytest.raises(ZeroDivisionError):
        engine.submit(WHENEVER, lambda: 1 / 0).result(5)
    assert done == [1.0, 1.0, 2.0, 3.0, WHENEVER]
    engine.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        engine.submit(0.0, print)


def test_seats_go_to_the_first_in_line_and_past_those_who_left():
    async def scene() -> None:
        seats, places = Seats(1, 3), {}

        async def guest(name: str, stay: asyncio.Event) -> None:
            async with seats.one(lambda position: places.update({name: position})):
                places[name] = 0
                await stay.wait()

        leave = {name: asyncio.Event() for name in "abcd"}
        tasks = {}
        for name in "abcd":
            tasks[name] = asyncio.create_task(guest(name, leave[name]))
            await asyncio.sleep(0)
        assert places == {"a": 0, "b": 1, "c": 2, "d": 3} and seats.full
        with pytest.raises(Full):
            await guest("e", asyncio.Event())
        tasks["b"].cancel()
        await asyncio.sleep(0.01)
        assert places["c"] == 1 and places["d"] == 2
        leave["a"].set()
        await asyncio.sleep(0.01)
        assert places["c"] == 0 and places["d"] == 1
        leave["c"].set(), leave["d"].set()
        await asyncio.gather(tasks["c"], tasks["d"])
        assert seats.taken == 0 and not seats.full

    asyncio.run(scene())


def test_fake_face_keeps_to_the_interface_of_session():
    from df_infer import Session

    for name in ("push", "idle", "make", "clear", "close"):
        assert callable(getattr(FakeFace, name)) and callable(getattr(Session, name))
    for name in ("rate", "latency_s"):
        assert hasattr(Session, name) and hasattr(FakeFace(RATE), name)
