"""Live sessions over WebRTC, with a client of aiortc on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import httpx
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from df_infer.serve import rtc
from df_infer.serve.config import ServeConfig
from df_infer.serve.engine import Engine
from df_infer.serve.player import BLOCK, PER_FRAME, Player
from df_infer.serve.protocol import BEGIN_FRAMES, BROWSER_RATE, Piece, Start, pcm_bytes
from df_infer.serve.seats import CONNECTING, Full
from df_infer.serve.speaker import Speaker

from .conftest import SIZE, FakeFace, Running, Serve, draw, number_of, opening_of

STILL = np.full((SIZE, SIZE, 3), 7, np.uint8)


def piece(first: int, count: int, level: float = 0.1, turn: int = 0) -> Piece:
    sound = np.full(count * PER_FRAME, level, np.float32)
    return Piece(first, np.stack([draw(first + i, sound) for i in range(count)]), sound, count, turn)


def test_player_begins_with_enough_and_stands_still_where_sound_is_lacking():
    player = Player(STILL)
    player.show(piece(0, 1))
    assert not player.sound(960).any() and player.position() == 0 and player.image()[0, 0, 0] != 7
    player.show(piece(1, 4))
    for _ in range(BEGIN_FRAMES * 2):
        assert player.sound(960).all()
    assert player.position() == 5 and number_of(player.image()) == 4
    assert not player.sound(960).any() and player.position() == 5 and player.stalls == 1
    player.show(piece(5, 4))
    assert player.sound(960).all() and number_of(player.image()) == 5


def test_frames_that_nobody_asks_for_are_let_go():
    """A browser may take the sound alone."""
    player = Player(STILL)
    for first in range(0, 400, 4):
        player.show(piece(first, 4))
        for _ in range(8):
            player.sound(960)
    assert len(player._frames) <= BEGIN_FRAMES + 4 and player.dropped == 0
    assert number_of(player.image()) == int(player.position())
    for _ in range(4):
        player.sound(960)
    player.image()
    assert player.dropped == 1, "of two frames that passed, the first was not asked for"


def test_player_drops_what_was_not_seen_and_goes_on():
    player = Player(STILL)
    player.show(piece(0, 1))
    player.show(piece(1, 4))
    player.show(piece(5, 4))
    for _ in range(6):
        player.sound(960)
    player.hold()
    assert not player.sound(960).any() and player.position() == 3
    player.drop(5, 1)
    player.show(piece(5, 4, level=0.2, turn=1))
    heard = np.concatenate([player.sound(960) for _ in range(12)])
    assert np.count_nonzero(heard == np.float32(0.1)) == 2 * PER_FRAME
    assert np.count_nonzero(heard == np.float32(0.2)) == 4 * PER_FRAME


@pytest.mark.parametrize("way", ["clear", "change"])
def test_picture_and_sound_stay_together_where_playing_was_cut_within_a_frame(way: str):
    async def scene() -> None:
        player, engine = Player(STILL), Engine()
        face = FakeFace(BROWSER_RATE)
        speaker = Speaker(face, engine, player, ahead_s=1.0, sound_ahead_s=9.0, made=lambda *_: None)
        speaker.push(np.full(2 * BROWSER_RATE, 0.1, np.float32), live=False)
        running = asyncio.create_task(speaker.run())
        while player.position() < 5.5:  # one is the first frame, and five would be the end of a chunk
            player.sound(BLOCK)
            await asyncio.sleep(0)
        if way == "clear":
            frame = await speaker.clear()
        else:
            frame = await speaker.change(lambda: FakeFace(BROWSER_RATE), 0.0)
        assert player.position() + player.waiting / PER_FRAME == frame == {"clear": 9, "change": 6}[way]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        engine.stop()

    asyncio.run(scene())


def test_player_that_finishes_plays_what_is_left_however_little():
    async def scene() -> None:
        player = Player(STILL)
        player.show(piece(0, 1))
        finished = asyncio.create_task(player.finish())
        await asyncio.sleep(0)
        assert player.sound(BLOCK).all() and not finished.done()
        assert player.sound(BLOCK).all() and player.position() == 1
        await asyncio.wait_for(finished, 1)

    asyncio.run(scene())


class Pulses(MediaStreamTrack):
    """A microphone: 0.4 s of a tone, 0.4 s of silence, and so on, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._sent, self._began = 0, 0.0

    async def recv(self) -> av.AudioFrame:
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        await asyncio.sleep(max(0.0, self._began + self._sent / 48_000 - now))
        at = np.arange(self._sent, self._sent + 960)
        wave = 8000 * np.sin(at * 2 * np.pi * 200 / 48_000) * (at // 19_200 % 2 == 0)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), self._sent
        self._sent += 960
        return frame


class Browser:
    """What a browser does, as far as the server can tell."""

    def __init__(
        self,
        server: Running,
        microphone: MediaStreamTrack | None,
        video: str = "recvonly",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.peer.createDataChannel("control")
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.tracks: dict[str, Any] = {}
        self.channel.on("message", lambda text: self.messages.put_nowait(json.loads(text)))
        self.peer.on("track", lambda track: self.tracks.update({track.kind: track}))
        self.peer.addTransceiver(microphone or "audio", direction="sendrecv")
        self.peer.addTransceiver("video", direction=video)
        self._server, self._headers = server, headers

    async def offer(self) -> None:
        """Make an offer, and have the server's answer."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        async with httpx.AsyncClient(headers=self._headers) as http:
            answer = await http.post(f"{self._server.http}/v1/webrtc", json={"sdp": self.peer.localDescription.sdp})
        assert answer.status_code == 200, answer.text
        self.sdp = answer.json()["sdp"]

    async def __aenter__(self) -> Browser:
        await self.offer()
        await self.peer.setRemoteDescription(RTCSessionDescription(self.sdp, "answer"))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.peer.close()

    async def told(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (message := await self.messages.get())["type"] != kind:
                pass
        return message


def test_microphone_comes_back_as_a_speaking_face(server: Running):
    async def client() -> None:
        async with Browser(server, Pulses()) as browser:
            assert "127.0.0.1" in browser.sdp
            candidates = [line for line in browser.sdp.splitlines() if line.startswith("a=candidate")]
            assert candidates and all(" 127.0.0.1 " in line for line in candidates)
            await browser.told("ready")
            seen: list[tuple[float, int, float]] = []
            heard: list[tuple[float, float]] = []

            async def look() -> None:
                while True:
                    image = await browser.tracks["video"].recv()
                    pixels = image.to_ndarray(format="rgb24")
                    seen.append((time.monotonic(), number_of(pixels), opening_of(pixels)))

            async def listen() -> None:
                while True:
                    block = await browser.tracks["audio"].recv()
                    heard.append((time.monotonic(), float(np.abs(block.to_ndarray()).mean())))

            tasks = [asyncio.create_task(look()), asyncio.create_task(listen())]
            await asyncio.sleep(3.0)
            for task in tasks:
                task.cancel()
            late = seen[len(seen) // 3 :]
            assert len(late) > 30
            numbers = [number for _, number, _ in late]
            steps = np.diff(numbers)  # a number is now and then misread: the coding is lossy
            assert np.median(steps) == 1 and np.mean((steps >= 0) & (steps <= 3)) > 0.9
            openings = np.array([opening for _, _, opening in late])
            times = np.array([at for at, *_ in late])
            lags = np.arange(0.0, 0.3, 0.02)  # the client holds 80 ms of sound back, and 0.4 s are one pulse
            levels = [np.interp(times + lag, *np.array(heard).T) for lag in lags]
            assert max(np.corrcoef(openings, level)[0, 1] for level in levels) > 0.8
            stats = await browser.told("stats")
            assert 0.2 < (stats["heard"] - stats["seen"]) / 25 < 1.0

    asyncio.run(client())


def test_interruption_and_end_by_the_data_channel(server: Running):
    async def client() -> None:
        async with Browser(server, None) as browser:
            await browser.told("ready")
            tone = (0.3 * np.sin(np.arange(48_000 * 3) / 30)).astype(np.float32)
            for start in range(0, len(tone), 9600):
                browser.channel.send(pcm_bytes(tone[start : start + 9600]))
            while opening_of((await browser.tracks["video"].recv()).to_ndarray(format="rgb24")) < 0.5:
                pass
            browser.channel.send(json.dumps({"type": "clear"}))
            asked = asyncio.get_running_loop().time()
            await browser.told("cleared")
            while opening_of((await browser.tracks["video"].recv()).to_ndarray(format="rgb24")) > 0:
                pass
            assert asyncio.get_running_loop().time() - asked < 0.5
            browser.channel.send(pcm_bytes(np.zeros(48_000, np.float32)))
            browser.channel.send(pcm_bytes(tone[:4800]))
            browser.channel.send(json.dumps({"type": "end"}))
            opened = []

            async def look() -> None:
                while True:
                    opened.append(opening_of((await browser.tracks["video"].recv()).to_ndarray(format="rgb24")))

            looking = asyncio.create_task(look())
            assert (await browser.told("ended"))["reason"] == "ended"
            looking.cancel()
            assert max(opened) > 0.5  # the very last sound of all was played before the end
        for _ in range(100):
            if not server.house.seats.taken:
                break
            await asyncio.sleep(0.05)
        assert not server.house.seats.taken

    asyncio.run(client())


def test_video_that_a_browser_would_send_is_not_taken(server: Running):
    async def client() -> None:
        async with Browser(server, None, video="sendrecv") as browser:
            directions = {way.kind: way.currentDirection for way in browser.peer.getTransceivers()}
            assert directions == {"audio": "sendrecv", "video": "recvonly"}

    asyncio.run(client())


def test_connections_are_counted_while_they_are_being_answered(monkeypatch: pytest.MonkeyPatch):
    class Slow:
        def __init__(self, *_: object) -> None: ...

        async def answer(self, sdp: str) -> str:
            await asyncio.sleep(0.05)
            return sdp

        async def run(self) -> None: ...

    async def scene() -> None:
        monkeypatch.setattr(rtc, "_Session", Slow)
        connections = rtc.Connections(SimpleNamespace(config=ServeConfig(sessions=1, waiting=0)))  # pyright: ignore
        asked = (connections.answer("v=0", Start()) for _ in range(CONNECTING + 3))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers[: CONNECTING + 1] == ["v=0"] * (CONNECTING + 1)
        assert all(isinstance(answer, Full) for answer in answers[CONNECTING + 1 :])
        assert await connections.answer("again", Start()) == "again"

    asyncio.run(scene())


def test_failure_of_the_server_is_told_and_logged(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object) -> None:
        raise RuntimeError("no memory is left")

    async def client() -> None:
        async with Browser(server, None) as browser:
            await browser.told("ready")
            monkeypatch.setattr(server.backend, "open", broken)
            browser.channel.send(json.dumps({"type": "settings", "settings": {"seed": 1}}))
            assert (await browser.told("error"))["message"] == "the server failed"

    asyncio.run(client())
    assert "session failed" in caplog.text and "no memory is left" in caplog.text


def test_what_webrtc_has_no_choice_of_is_refused(client: httpx.Client):
    answer = client.post("/v1/webrtc", json={"sdp": "", "start": {"rate": 8000}})
    assert answer.status_code == 422 and "rate" in answer.text


def test_client_that_floods_the_channel_is_told_why(serve: Serve):
    async def client() -> None:
        async with Browser(serve(message_bytes=1000), None) as browser:
            await browser.told("ready")
            browser.channel.send(bytes(2000))
            assert "longer than 1000 bytes" in (await browser.told("error"))["message"]

    asyncio.run(client())


@pytest.mark.parametrize("sdp", ["", "v=0\r\n", "garbage" * 1000, "v=0\r\nm=audio x"])
def test_offer_that_is_none_is_refused(client: httpx.Client, sdp: str):
    answer = client.post("/v1/webrtc", json={"sdp": sdp})
    assert answer.status_code == 400 and "offer" in answer.json()["error"]
