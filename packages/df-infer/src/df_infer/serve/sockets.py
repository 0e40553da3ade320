"""Live sessions over WebSocket: raw pieces for programs, fragmented MP4 for browsers."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from df_infer.serve.conversation import Conversation
from df_infer.serve.fmp4 import MIMES, OFFSET_S, Fragmenter
from df_infer.serve.guard import subprotocol
from df_infer.serve.house import House
from df_infer.serve.logs import failed
from df_infer.serve.protocol import Start, pack, pcm_float, read_start, to_json
from df_infer.serve.seats import Full
from df_infer.serve.stream import Stream
from df_models.errors import UserError

START_S = 10.0
"""A client that has not said what it wants after so long is closed."""
SEND_S = 30.0
"""A client that takes nothing for so long is gone."""
CLOSE_S = 5.0
"""Nor is one waited for that takes no farewell."""
NORMAL, GOING_AWAY, REFUSED, BROKEN, TRY_LATER = 1000, 1001, 1008, 1011, 1013
"""Codes of RFC 6455, 7.4.1."""


async def talk(socket: WebSocket, house: House) -> None:
    """Hold a session over a WebSocket that was not accepted yet."""
    await socket.accept(subprotocol(socket.scope))
    code, reason = NORMAL, ""
    try:
        async with asyncio.timeout(START_S):
            text = await _first_text(socket)
        code, reason = await _session(socket, house, read_start(text))
    except TimeoutError:
        code, reason = REFUSED, f"no start message came within {START_S:g} s"
        await _tell(socket, reason)
    except UserError as error:
        code, reason = REFUSED, str(error)
        house.metrics.refused.labels(str(code)).inc()
        await _tell(socket, reason)
    except _Broken as error:
        code, reason = BROKEN, str(error)
        await _tell(socket, reason)
    except (RuntimeError, WebSocketDisconnect):
        pass  # it left
    await _close(socket, code, reason)


class _Broken(Exception):
    """A session ended by the server's own failure."""


async def _tell(socket: WebSocket, reason: str) -> None:
    """Say why the connection closes, if anybody takes it."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await socket.send_text(to_json("error", message=reason))


async def _first_text(socket: WebSocket) -> str:
    try:
        return await socket.receive_text()
    except KeyError as error:  # Starlette's answer to bytes
        raise UserError("the first message must be text: the start message as JSON") from error


async def _session(socket: WebSocket, house: House, start: Start) -> tuple[int, str]:
    """Run reader, writer and the session itself until one of them ends.

    Raises:
        UserError: what the client sent could not be followed.
    """
    stream = Stream()
    session = Conversation(house, start, stream, stream.say, "websocket")
    writer = asyncio.create_task(_write(socket, stream, start, house))
    reader = asyncio.create_task(_read(socket, session))
    runner = asyncio.create_task(session.run())
    try:
        await asyncio.wait((writer, reader, runner), return_when=asyncio.FIRST_COMPLETED)
        if runner.done() and not writer.done():
            return await _wind_up(runner, stream, writer)
        for task in (reader, writer):
            error = task.exception() if task.done() else None
            if isinstance(error, UserError):
                raise error
            if error is not None and not isinstance(error, WebSocketDisconnect):
                failed("session failed", error, session=session.id)
                raise _Broken("the server failed")
        return NORMAL, "left"
    finally:
        for task in (writer, reader, runner):
            task.cancel()
        await asyncio.gather(writer, reader, runner, return_exceptions=True)
        house.metrics.dropped.inc(stream.dropped)


async def _wind_up(runner: asyncio.Task[str], stream: Stream, writer: asyncio.Task[None]) -> tuple[int, str]:
    """Send what is left after a session has ended, and say why it has."""
    error = runner.exception()
    if error is None:
        reason = runner.result()
        stream.say(to_json("ended", reason=reason))
        code = NORMAL if reason == "ended" else GOING_AWAY
    elif isinstance(error, UserError):
        code, reason = (TRY_LATER if isinstance(error, Full) else REFUSED), str(error)
        stream.say(to_json("error", message=reason))
    else:
        code, reason = BROKEN, "the server failed"
        stream.say(to_json("error", message=reason))
    stream.close()
    await asyncio.wait((writer,), timeout=SEND_S)
    if writer.done() and (broken := writer.exception()) is not None:
        failed("sending failed", broken)
    return code, reason


async def _read(socket: WebSocket, session: Conversation) -> None:
    """Hand what the client sends to the session until it leaves."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await session.control(message["text"])
        else:
            session.sound(pcm_float(message["bytes"]), live=session.microphone)


async def _write(socket: WebSocket, stream: Stream, start: Start, house: House) -> None:
    """Send what there is until the stream ends or the client is gone."""
    fmp4 = start.pictures == "fmp4"
    coder: Fragmenter | None = None
    turn = -1
    try:
        if fmp4:
            await socket.send_text(to_json("media", mime=MIMES[start.sound], offset_s=OFFSET_S))
        while (item := await stream.next()) is not None:
            async with asyncio.timeout(SEND_S):
                if isinstance(item, str):
                    await socket.send_text(item)
                    continue
                if not fmp4:
                    await socket.send_bytes(pack(item))
                    continue
                if item.turn != turn:
                    if coder is not None:
                        coder.close()
                    coder, turn = Fragmenter(house.backend.about.size, start.sound), item.turn
                assert coder is not None
                await socket.send_bytes(await asyncio.to_thread(coder.fragment, item))
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        return
    finally:
        if coder is not None:
            coder.close()


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.client_state is WebSocketState.CONNECTED and socket.application_state is WebSocketState.CONNECTED:
        try:
            async with asyncio.timeout(CLOSE_S):
                await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            return
