"""Everything hostile at once, over and over, beside a session that must not notice: nothing may be left of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import os
import socket
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import InvalidStateError, RTCPeerConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from df_infer.serve.conversation import Conversation
from df_infer.serve.player import Player
from df_infer.serve.protocol import pcm_bytes, unpack
from df_infer.serve.rtc import INBOX
from df_infer.serve.speaker import Speaker
from df_infer.serve.stream import Stream

from .conftest import Running, Serve
from .test_http import bomb
from .test_rtc import Browser
from .test_sockets import RATE, begin, tone

TOKEN = b"a token of many characters"
AUTHORISED = {"Authorization": f"Bearer {TOKEN.decode()}"}
SPOKEN = ["dualforce.v1", "token." + base64.urlsafe_b64encode(TOKEN).decode().rstrip("=")]
GROWTH = 1 << 20
"""Bytes that a number of rounds may leave: caches of libraries; one session holds more."""
Act = Callable[[Running], None]
Siege = Callable[[Running], Awaitable[None]]
KINDS = (Conversation, Speaker, Stream)
PEERS = (RTCPeerConnection, Player)
"""Of WebRTC: none is left when its session has ended."""


def raw(server: Running, data: bytes) -> socket.socket:
    """A connection on which some bytes were sent."""
    line = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    line.sendall(data)
    return line


def garbage(server: Running) -> None:
    for data in (b"\x16\x03\x01\x02\x00" + os.urandom(200), os.urandom(500) + b"\r\n\r\n", b"\0" * 70_000):
        with raw(server, data) as line, contextlib.suppress(ConnectionError):
            line.recv(1000)


def half_header(server: Running) -> None:
    """One that says half a sentence and hangs up without a word."""
    line = raw(server, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ")
    time.sleep(0.05)
    line.close()


def half_upload(server: Running) -> None:
    head = "\r\n".join(f"{name}: {value}" for name, value in AUTHORISED.items())
    begun = f"POST /v1/portraits HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\nContent-Length: 9000\r\n\r\nabc".encode()
    with raw(server, begun) as line:
        assert b" 408 " in line.recv(4096)
    raw(server, begun).close()


def endless_upload(server: Running) -> None:
    with contextlib.suppress(httpx.WriteError):  # where it was cut off while it sent on
        endless = (bytes(10_000) for _ in range(1000))
        assert httpx.post(f"{server.http}/v1/portraits", content=endless, headers=AUTHORISED).status_code == 413


def large_json(server: Running) -> None:
    large = b'{"sdp": "' + b"v" * 10_000_000 + b'"}'
    assert httpx.post(f"{server.http}/v1/webrtc", content=large, headers=AUTHORISED).status_code == 413


def portrait_bomb(server: Running) -> None:
    answer = httpx.post(f"{server.http}/v1/portraits", content=bomb(2000), headers=AUTHORISED)
    assert answer.status_code == 400 and "megapixels" in answer.json()["error"]


def wrong_token(server: Running) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.post(f"{server.http}/v1/webrtc", json={"sdp": "v=0"}, headers=headers).status_code == 401


async def wrong_token_on_a_socket(server: Running) -> None:
    with pytest.raises(InvalidStatus):
        await connect(server.ws, subprotocols=["dualforce.v1", "token.d3Jvbmc"])  # pyright: ignore[reportArgumentType]


async def large_message(server: Running) -> None:
    async with talking(server) as line:
        with contextlib.suppress(ConnectionClosed):
            await line.send('{"type": "start", "portrait": "' + "x" * 10_000_000 + '"}')
            while True:
                await line.recv()


async def silent_reader(server: Running) -> None:
    """One whose line is open and who takes nothing and answers nothing; it is let go."""
    path = f"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    keys = f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
    start = json.dumps({"type": "start", "rate": RATE}).encode()
    framed = bytes([0x81, 0x80 | len(start), 0, 0, 0, 0]) + start  # a text, masked by zeros
    asked = f"{path}{keys}Authorization: {AUTHORISED['Authorization']}\r\n\r\n".encode()
    before = server.house.seats.taken
    with raw(server, asked) as line:
        assert b" 101 " in await asyncio.to_thread(line.recv, 4096)
        line.sendall(framed)
        await until(lambda: server.house.seats.taken > before, "it has a place")
        await until(lambda: server.house.seats.taken == before, "its place is free again")


async def webrtc_that_hangs_up(server: Running) -> None:
    """One that is answered, maybe has a place, and goes without a word."""
    async with Browser(server, None, headers=AUTHORISED) as browser, asyncio.timeout(10):
        await browser.messages.get()


async def webrtc_that_never_comes(server: Running) -> None:
    """One that asks, is answered, and is not heard of again."""
    browser = Browser(server, None, headers=AUTHORISED)
    await browser.offer()
    await browser.peer.close()


async def webrtc_flood(server: Running) -> None:
    """One that sends more than anybody reads; it is cut off."""
    async with Browser(server, None, headers=AUTHORISED) as browser, asyncio.timeout(10):
        await browser.messages.get()
        with contextlib.suppress(InvalidStateError):  # where it was cut off while it sent on
            for _ in range(2 * INBOX):
                browser.channel.send('{"type": "clear"}')
        while browser.peer.connectionState == "connected":
            await asyncio.sleep(0.05)


async def webrtc_garbage(server: Running) -> None:
    async with httpx.AsyncClient(headers=AUTHORISED) as http:
        for sdp in ("", "v=0\r\nm=audio x", os.urandom(500).hex()):
            assert (await http.post(f"{server.http}/v1/webrtc", json={"sdp": sdp})).status_code == 400


async def webrtc(server: Running) -> None:
    """One round of WebRTC's, at the same time."""
    acts = webrtc_that_hangs_up, webrtc_that_never_comes, webrtc_flood, webrtc_garbage
    await asyncio.gather(*(act(server) for act in acts))


def talking(server: Running) -> Any:
    return connect(server.ws, subprotocols=SPOKEN)  # pyright: ignore[reportArgumentType]


async def until(true: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    while time.monotonic() < began + 15:
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"it never came about that {what}")


async def siege(server: Running) -> None:
    """One round of everything, at the same time."""
    acts: tuple[Act, ...] = garbage, half_header, half_upload, endless_upload, large_json, portrait_bomb, wrong_token
    await asyncio.gather(
        *(asyncio.to_thread(act, server) for act in acts),
        wrong_token_on_a_socket(server),
        large_message(server),
        silent_reader(server),
    )


def living(kinds: tuple[type, ...]) -> int:
    gc.collect()
    return sum(type(thing) in kinds for thing in gc.get_objects())


def traced() -> int:
    """Bytes that Python holds, where that is counted."""
    return tracemalloc.get_traced_memory()[0]


def check_siege(serve: Serve, temporary: Path, rounds: int, siege: Siege) -> None:
    async def client() -> None:
        server = serve(TOKEN, sessions=3, waiting=4, upload_bytes=100_000, upload_s=0.3, portrait_pixels=1_000_000)
        async with talking(server) as quiet:
            await begin(quiet)
            pieces: list[tuple[int, int, int]] = []
            listening = asyncio.create_task(listen(quiet, pieces))
            await siege(server)
            await settled(server)
            tasks, files, memory = server.tasks(), len(os.listdir("/proc/self/fd")), traced()
            before = len(pieces)
            for _ in range(rounds):
                await siege(server)
            await settled(server)
            assert server.tasks() <= tasks and len(os.listdir("/proc/self/fd")) <= files + 2
            assert len(pieces) > before, "the face lives on"
            grown = traced() - memory
            assert grown < GROWTH, grown
            speech = tone(1.0)
            await quiet.send(pcm_bytes(speech))
            await quiet.send(json.dumps({"type": "end"}))
            await listening
        assert all(a + span == b for (a, span, _), (b, _, _) in pairwise(pieces)), "no frame is missing"
        assert sum(loud for _, _, loud in pieces) >= 0.99 * (abs(speech) > 0.01).sum()
        await settled(server, talking=0)
        assert not list(temporary.glob("df-infer-*/*")), "no upload is left"

    async def listen(line: Any, pieces: list[tuple[int, int, int]]) -> None:
        """Note of each piece its first frame, how many it lasts, and how many samples are loud."""
        async for message in line:
            if isinstance(message, bytes):
                piece = unpack(message)
                pieces.append((piece.frame, piece.span, int((abs(piece.audio) > 0.01).sum())))

    async def settled(server: Running, talking: int = 1) -> None:
        await until(lambda: server.house.seats.taken == talking, "the others have left")
        await until(lambda: living(KINDS) <= talking * len(KINDS), "nothing holds their sessions")
        await until(lambda: not living(PEERS), "nothing holds their connections")

    asyncio.run(client())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server's files lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers nothing on a socket is let go soon."""
    monkeypatch.setattr("df_infer.serve.server.PING_S", 4.0)  # the clients that answer share a busy machine


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_a_siege_leaves_nothing_and_the_others_do_not_notice(serve: Serve, temporary: Path, impatient: None):
    check_siege(serve, temporary, 1, siege)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_a_siege_by_webrtc_leaves_nothing_and_the_others_do_not_notice(
    serve: Serve, temporary: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("df_infer.serve.rtc.CONNECT_S", 1.0)
    check_siege(serve, temporary, 1, webrtc)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_a_long_siege_leaves_nothing_and_the_others_do_not_notice(serve: Serve, temporary: Path, impatient: None):
    tracemalloc.start()
    try:
        check_siege(serve, temporary, 40, siege)
    finally:
        tracemalloc.stop()
