"""Live sessions over WebRTC: a microphone comes in, a face and its voice go out, a data channel has the messages."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Coroutine
from typing import Any

import aioice.ice
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from df_infer.serve.conversation import Conversation
from df_infer.serve.guard import turn_login
from df_infer.serve.house import House
from df_infer.serve.logs import failed, failure
from df_infer.serve.player import PictureTrack, Player, SoundTrack
from df_infer.serve.protocol import BROWSER_RATE, Start, pcm_float, to_json
from df_infer.serve.seats import CONNECTING, Full
from df_models.errors import UserError

CHANNEL = "control"
CONNECT_S = 20.0
"""A browser that has not connected after so long is given up."""
LAST_S = 0.2
"""What was sent last gets so long to arrive and be played: neither channel nor tracks have a flush."""
INBOX = 500
"""Messages that may wait; a client that sends more at once is cut off."""
ANY_ADDRESS = ("0.0.0.0", "::", "")


def listen_on(host: str) -> None:
    """Have WebRTC's UDP sockets opened at the server's own address only; at all addresses where it listens on all.

    aioice offers every address of the machine but the loopback ones, and has no setting for it.
    """
    if host not in ANY_ADDRESS:
        address = "127.0.0.1" if host == "localhost" else host
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [address]


class Connections:
    """The WebRTC sessions of a server."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = 0
        listen_on(house.config.host)

    async def answer(self, sdp: str, start: Start) -> str:
        """Begin a session from a browser's offer; return the answer.

        Raises:
            UserError: the offer is none, or lacks video, audio or the data channel; the start message cannot be used;
                too many connect.
        """
        most = self._house.config.sessions + self._house.config.waiting + CONNECTING
        if len(self._tasks) + self._answering >= most:
            raise Full("too many connections are being made; try again later")
        self._answering += 1
        try:
            return await self._answer(sdp, start)
        finally:
            self._answering -= 1

    async def _answer(self, sdp: str, start: Start) -> str:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=_servers(self._house.config.turn)))
        try:
            session = _Session(peer, self._house, start)
            answer = await session.answer(sdp)
        except BaseException:
            await peer.close()
            raise
        task = asyncio.create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    async def close(self) -> None:
        """Wait for the sessions, which are told that the server stops; end those that do not."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=5)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class _Session:
    """One peer connection."""

    def __init__(self, peer: RTCPeerConnection, house: House, start: Start) -> None:
        self._peer, self._house = peer, house
        self._player = Player(house.portrait(start.portrait))
        self._session = Conversation(house, start, self._player, self._say, "webrtc")
        self._inbox: asyncio.Queue[str | bytes] = asyncio.Queue(INBOX)
        self._ready, self._gone = asyncio.Event(), asyncio.Event()
        self._channel: Any = None
        self._microphone: Any = None
        self._fault: str | None = None
        peer.on("datachannel", self._take_channel)
        peer.on("track", self._take_track)
        peer.on("connectionstatechange", self._state)

    async def answer(self, sdp: str) -> str:
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # what aiortc raises for SDP that it cannot read has no common class
            raise UserError("the offer is no SDP that can be read") from error
        kinds = [transceiver.kind for transceiver in self._peer.getTransceivers()]
        if sorted(kinds) != ["audio", "video"] or "m=application" not in sdp:
            raise UserError("the offer must have one audio and one video track and a data channel")
        self._peer.addTrack(SoundTrack(self._player))
        self._peer.addTrack(PictureTrack(self._player))
        for transceiver in self._peer.getTransceivers():
            if transceiver.kind == "video":
                transceiver.direction = "sendonly"  # what came would be decoded into a queue that nobody reads
        try:
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception as error:
            raise UserError("the offer has no codec that is known here") from error
        return one_stream(self._peer.localDescription.sdp)

    def _take_channel(self, channel: Any) -> None:
        if channel.label == CHANNEL and self._channel is None:
            self._channel = channel
            channel.on("message", self._receive)
            self._ready.set()

    def _receive(self, message: str | bytes) -> None:
        most = self._house.config.message_bytes
        if len(message) > most:
            self._fault = f"a message is longer than {most} bytes"
        elif self._inbox.full():
            self._fault = f"more than {INBOX} messages wait; send sound in larger pieces"
        else:
            self._inbox.put_nowait(message)
            return
        self._gone.set()

    def _take_track(self, track: Any) -> None:
        if track.kind == "audio" and self._microphone is None:
            self._microphone = track

    def _state(self) -> None:
        if self._lost:
            self._gone.set()

    @property
    def _lost(self) -> bool:
        return self._peer.connectionState in ("failed", "closed", "disconnected")

    def _say(self, message: str) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(message)

    async def run(self) -> None:
        """Hold the session until it ends or the browser is gone."""
        try:
            await _first_of(CONNECT_S, self._ready.wait(), self._gone.wait(), self._house.stopping.wait())
            if self._ready.is_set():
                await self._hold()
        except Exception:
            failure("connection failed", session=self._session.id)
        finally:
            self._house.metrics.dropped.inc(self._player.dropped)
            with contextlib.suppress(Exception):
                await self._peer.close()

    async def _hold(self) -> None:
        tasks = [
            runner := asyncio.create_task(self._session.run()),
            reader := asyncio.create_task(self._read()),
            hearer := asyncio.create_task(self._hear()),
            asyncio.create_task(self._gone.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._fault is not None:
                self._say(to_json("error", message=self._fault))
            else:
                words = _last_words(runner, reader, hearer)
                for task in (reader, hearer):  # the session logs its own
                    error = task.exception() if task.done() else None
                    if error is not None and not isinstance(error, UserError):
                        failed("session failed", error, session=self._session.id)
                if runner.done() and not runner.exception() and runner.result() == "ended":
                    most_s = self._house.config.ahead_s + 1
                    await _first_of(most_s, self._player.finish(), self._gone.wait())
                self._say(words)
            await asyncio.sleep(0.0 if self._lost else LAST_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            message = await self._inbox.get()
            if isinstance(message, str):
                await self._session.control(message)
            else:
                self._session.sound(pcm_float(message), live=False)

    async def _hear(self) -> None:
        """Hand the microphone's sound to the session, once it is ready and while it is switched on; never end well."""
        import av

        resampler = av.AudioResampler("s16", "mono", BROWSER_RATE)
        with contextlib.suppress(MediaStreamError):
            while self._microphone is not None:
                for frame in resampler.resample(await self._microphone.recv()):
                    if self._session.microphone:
                        self._session.hear(pcm_float(frame.to_ndarray().tobytes()))
        await self._gone.wait()


async def _first_of(seconds: float, *waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them ends, and no longer than ``seconds``."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def one_stream(sdp: str) -> str:
    """Put both tracks into one media stream: browsers keep sound and picture together only within one (RFC 8830)."""
    return re.sub(r"(a=(?:ssrc:\d+ )?msid:)\S+", r"\1face", sdp)


def _last_words(runner: asyncio.Task[str], *others: asyncio.Task[None]) -> str:
    """What the client is told at the end."""
    for task in (runner, *others):
        if task.done():
            error = task.exception()
            if isinstance(error, UserError):
                return to_json("error", message=str(error))
            if error is not None:
                return to_json("error", message="the server failed")
    return to_json("ended", reason=runner.result() if runner.done() else "left")


def _servers(turn: str | None) -> list[RTCIceServer]:
    """TURN as configured; no STUN server of anybody else, which aiortc would ask by default."""
    return [] if turn is None else [RTCIceServer(turn, *turn_login())]
