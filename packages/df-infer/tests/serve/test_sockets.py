"""Live sessions over WebSocket, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from df_infer.serve.engine import AFTER_S
from df_infer.serve.protocol import Piece, Start, pcm_bytes, unpack
from df_infer.serve.seats import CONNECTING
from df_infer.serve.sockets import _wind_up, _write
from df_infer.serve.stream import Stream

from .conftest import FPS, FakeFace, Running, Serve, number_of, opening_of

RATE = 16_000
EXAMPLES = Path(__file__).parents[4] / "examples"


def tone(seconds: float, level: float = 0.2, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 200 / rate) * np.sqrt(2)).astype(np.float32)


async def begin(socket: ClientConnection, **start: Any) -> dict[str, Any]:
    await socket.send(json.dumps({"type": "start", "rate": RATE, **start}))
    return await told(socket, "ready")


async def told(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind; others are passed over."""
    async with asyncio.timeout(10):
        while True:
            message = await socket.recv()
            if isinstance(message, str) and (read := json.loads(message))["type"] == kind:
                return read


async def rest(socket: ClientConnection) -> tuple[list[Piece], list[dict[str, Any]]]:
    """All that still comes."""
    pieces, messages = [], []
    try:
        async with asyncio.timeout(15):
            async for message in socket:
                if isinstance(message, bytes):
                    pieces.append(unpack(message))
                else:
                    messages.append(json.loads(message))
    except ConnectionClosed:
        pass
    return pieces, messages


def test_all_sound_comes_back_with_its_frames_ahead_of_time(server: Running):
    async def client() -> None:
        async with connect(server.ws) as socket:
            ready = await begin(socket)
            assert ready["fps"] == FPS and ready["size"] == 64 and ready["latency_s"] == pytest.approx(0.32)
            sent = np.concatenate((tone(0.4), tone(0.4, 0.0), tone(0.4)))
            for start in range(0, len(sent), 1000):
                await socket.send(pcm_bytes(sent[start : start + 1000]))
            await socket.send(json.dumps({"type": "end"}))
            pieces, messages = await rest(socket)
        assert messages[-1] == {"type": "ended", "reason": "ended"}
        numbers = [number_of(image) for piece in pieces for image in piece.frames]
        assert numbers == list(range(len(numbers)))
        sound = np.concatenate([piece.audio for piece in pieces])
        begins = next(i for i, value in enumerate(np.abs(sound)) if value > 0.01) - 1  # idle before the first of it
        np.testing.assert_allclose(sound[begins : begins + len(sent)], sent, atol=1e-3)
        assert len(sound) == len(numbers) * RATE // FPS
        loud = [opening_of(image) for piece in pieces for image in piece.frames]
        assert max(loud) > 0.7 and min(loud[-20:-11]) == 0

    asyncio.run(client())


def test_face_lives_on_without_sound(server: Running):
    async def client() -> None:
        async with connect(server.ws) as socket:
            await begin(socket)
            seen = 0
            async with asyncio.timeout(5):
                while seen < 25:
                    message = await socket.recv()
                    if isinstance(message, bytes):
                        piece = unpack(message)
                        assert piece.frame == seen, "frames follow each other"
                        seen += piece.span

    asyncio.run(client())


def test_interruption_goes_on_from_the_very_frame_that_was_seen(server: Running):
    async def client() -> None:
        async with connect(server.ws) as socket:
            await begin(socket)
            await socket.send(pcm_bytes(tone(5.0)))
            got = 0
            while got < 17:
                message = await socket.recv()
                got += unpack(message).span if isinstance(message, bytes) else 0
            await socket.send(json.dumps({"type": "clear", "shown": 10}))
            asked = asyncio.get_running_loop().time()
            cleared = await told(socket, "cleared")
            assert 10 <= cleared["frame"] <= 13 and cleared["turn"] == 1
            async with asyncio.timeout(5):
                while not isinstance(message := await socket.recv(), bytes):
                    pass
            piece = unpack(message)
            assert (piece.frame, piece.turn) == (cleared["frame"], 1)
            assert not piece.audio.any() and opening_of(piece.frames[0]) == 0
            assert asyncio.get_running_loop().time() - asked < 0.2

    asyncio.run(client())


def test_generation_runs_only_a_bound_ahead(serve: Serve):
    async def client() -> None:
        async with connect(serve(ahead_s=0.5).ws) as socket:
            await begin(socket)
            await socket.send(pcm_bytes(tone(10.0)))
            await asyncio.sleep(0.6)
            await socket.send(json.dumps({"type": "clear"}))
            made = 0
            while isinstance(message := await socket.recv(), bytes) or json.loads(message)["type"] != "cleared":
                made += unpack(message).span if isinstance(message, bytes) else 0
            assert 20 <= made <= (0.6 + 0.5 + 0.4) * FPS

    asyncio.run(client())


def test_settings_begin_the_face_anew(server: Running):
    async def client() -> None:
        async with connect(server.ws) as socket:
            await begin(socket)
            await asyncio.sleep(0.3)
            await socket.send(json.dumps({"type": "settings", "settings": {"steps": 2, "seed": 100}}))
            cleared = await told(socket, "cleared")
            async with asyncio.timeout(5):
                while not isinstance(message := await socket.recv(), bytes):
                    pass
            piece = unpack(message)
            assert piece.frame == cleared["frame"] and len(piece.frames) == 1
            assert piece.frames[0, 20, 5, 0] == 160
        assert server.backend.opened[-1].steps == 2

    asyncio.run(client())


@pytest.mark.parametrize("sound", ["opus", "aac"])
def test_fragments_play_as_one_stream(server: Running, sound: str):
    import av

    async def client() -> bytes:
        data = b""
        async with connect(server.ws) as socket:
            await begin(socket, pictures="fmp4", rate=48_000, sound=sound)
            await socket.send(pcm_bytes(np.concatenate((tone(0.6, rate=48_000), tone(0.6, 0.0, 48_000)))))
            await socket.send(json.dumps({"type": "end"}))
            async for message in socket:
                data += message if isinstance(message, bytes) else b""
        return data

    file = io.BytesIO(asyncio.run(client()))
    with av.open(file) as container:
        images = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    file.seek(0)
    with av.open(file) as container:
        heard = [(frame.time, frame.to_ndarray()) for frame in container.decode(audio=0)]
    assert [number_of(image) for _, image in images] == list(range(len(images)))
    np.testing.assert_allclose([time for time, _ in images], 1 + np.arange(len(images)) / FPS, atol=1e-3)
    wave = np.concatenate([np.atleast_2d(block)[0].astype(np.float32) for _, block in heard])
    if wave.max() > 2:
        wave /= 32768
    start = round((heard[0][0] - 1) * 48_000)
    openings = np.array([opening_of(image) for _, image in images])
    levels = np.array([np.sqrt(np.mean(wave[max(0, n * 1920 - start) :][:1920] ** 2)) for n in range(len(images) - 4)])
    assert np.corrcoef(openings[: len(levels)], levels)[0, 1] > 0.9


def test_sockets_beyond_the_limit_are_refused_before_they_are_accepted(serve: Serve):
    async def client() -> None:
        server = serve(sessions=1, waiting=1)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2 + CONNECTING):
                last = await stack.enter_async_context(connect(server.ws))
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.ws)
            assert refused.value.response.status_code == 429
            await last.close()
            await asyncio.sleep(0.05)
            async with connect(server.ws) as again:
                await begin(again)

    asyncio.run(client())


def test_who_cannot_be_served_does_not_wait_first(serve: Serve):
    async def client() -> None:
        url = serve(sessions=1, waiting=1).ws
        async with connect(url) as first, connect(url) as second:
            await begin(first)
            await second.send(json.dumps({"type": "start", "portrait": "nobody"}))
            assert "portrait" in (await told(second, "error"))["message"]

    asyncio.run(client())


def test_speech_that_is_still_being_played_is_not_idle(serve: Serve):
    async def client() -> None:
        async with connect(serve(idle_s=0.5).ws) as socket:
            await begin(socket)
            began = asyncio.get_running_loop().time()
            await socket.send(pcm_bytes(tone(2.0)))
            _, messages = await rest(socket)
            assert messages[-1] == {"type": "ended", "reason": "idle"}
            assert asyncio.get_running_loop().time() - began > 2.0

    asyncio.run(client())


def test_interruption_goes_back_as_far_as_the_server_makes_ahead(serve: Serve):
    async def client() -> None:
        server = serve(ahead_s=2.0)
        async with connect(server.ws) as socket:
            await begin(socket)
            await socket.send(pcm_bytes(tone(4.0)))
            await asyncio.sleep(0.7)
            await socket.send(json.dumps({"type": "clear", "shown": 3}))
            assert (await told(socket, "cleared"))["frame"] == 5

    asyncio.run(client())


def test_those_beyond_the_limit_wait_and_are_told_their_place(serve: Serve):
    async def client() -> None:
        url = serve(sessions=1, waiting=1).ws
        async with connect(url) as first, connect(url) as second, connect(url) as third:
            await begin(first)
            await second.send(json.dumps({"type": "start"}))
            assert (await told(second, "waiting"))["position"] == 1
            await third.send(json.dumps({"type": "start"}))
            assert "places are taken" in (await told(third, "error"))["message"]
            await first.close()
            await told(second, "ready")

    asyncio.run(client())


@pytest.mark.parametrize(
    ("message", "told_why"),
    [
        ("{", "start"),
        ('{"type":"start","rate":44100}', "rate"),
        ('{"type":"start","portrait":"nobody"}', "portrait"),
        ('{"type":"start","what":1}', "what"),
        ('{"type":"start","settings":{"steps":999}}', "steps"),
        ('{"type":"start","settings":{"drive":true}}', "motion"),
        ('{"type":"start","settings":{"structure_guidance":1.5}}', "cannot be guided by its structure"),
        ('{"type":"start","settings":{"audio_guidance":1e9}}', "less than or equal to 20"),
    ],
)
def test_start_that_cannot_be_used_is_refused_in_a_line(server: Running, message: str, told_why: str):
    async def client() -> None:
        async with connect(server.ws) as socket:
            await socket.send(message)
            assert told_why in (await told(socket, "error"))["message"]
            with pytest.raises(ConnectionClosed):
                await told(socket, "ready")
            assert socket.close_code == 1008 and told_why in (socket.close_reason or "")

    asyncio.run(client())


def test_first_message_that_is_no_text_is_told(server: Running):
    async def client() -> None:
        async with connect(server.ws) as socket:
            await socket.send(b"\0\0")
            with pytest.raises(ConnectionClosed):
                await told(socket, "ready")
            assert socket.close_code == 1008 and "must be text" in (socket.close_reason or "")

    asyncio.run(client())


def test_who_says_nothing_is_closed(server: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("df_infer.serve.sockets.START_S", 0.2)

    async def client() -> None:
        async with connect(server.ws) as socket, asyncio.timeout(5):
            assert "no start message" in (await told(socket, "error"))["message"]
            await socket.wait_closed()
            assert socket.close_code == 1008 and "no start message" in (socket.close_reason or "")

    asyncio.run(client())


def test_who_asks_for_more_work_comes_after_all_others(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    server, due = serve(), []
    engine = server.house.engine
    submit = engine.submit_steps

    def noted(deadline: float, *call: Any) -> Any:
        due.append((len(server.backend.opened), deadline - time.monotonic() > AFTER_S / 2))
        return submit(deadline, *call)

    monkeypatch.setattr(engine, "submit_steps", noted)

    async def client() -> None:
        async with connect(server.ws) as socket:
            await begin(socket, settings={"steps": 40})
            await socket.send(pcm_bytes(tone(1.0)))
            await told(socket, "stats")
            first = len(server.backend.opened)
            assert set(due) == {(first, True)}
            await socket.send(json.dumps({"type": "settings", "settings": {"steps": 4}}))
            await told(socket, "cleared")
            await told(socket, "stats")
            assert set(due) == {(first, True), (first + 1, False)}, "from the new face's first chunk on"

    asyncio.run(client())


@pytest.mark.parametrize("message", [{"type": "clear"}, {"type": "settings", "settings": {"steps": 4}}])
def test_a_chunk_that_takes_long_is_given_up_for_an_interruption(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any]
):
    rounds = []

    def steps(self: FakeFace) -> Iterator[Any]:
        for _ in range(500):
            yield "a step"
        return self.make()

    def answered(asked: dict[int, Any], _makers: object) -> dict[int, Any]:
        rounds.append(len(asked))
        time.sleep(0.02)
        return dict.fromkeys(asked)

    server = serve()
    monkeypatch.setattr(FakeFace, "steps", steps)
    monkeypatch.setattr("df_infer.sampling.steps._answered", answered)

    async def client() -> None:
        async with connect(server.ws) as socket:
            await begin(socket)
            while len(rounds) < 10:
                await asyncio.sleep(0.01)
            async with asyncio.timeout(4):  # the chunk takes ten seconds
                await socket.send(json.dumps(message))
                await told(socket, "cleared")
        async with asyncio.timeout(4):
            while server.house.engine._begun:  # so is that of one who has left
                await asyncio.sleep(0.01)
        assert len(rounds) < 500, "no chunk was made to its end"

    asyncio.run(client())


def test_who_takes_nothing_is_gone(server: Running, monkeypatch: pytest.MonkeyPatch):
    """One whose line is open, and whose buffers are full."""
    monkeypatch.setattr("df_infer.serve.sockets.SEND_S", 0.1)

    class Stuck:
        async def send_bytes(self, _: bytes) -> None:
            await asyncio.Event().wait()

    async def scene() -> None:
        stream, runner = Stream(), asyncio.create_task(asyncio.sleep(0, "ended"))
        stream.show(Piece(0, np.zeros((1, 2, 2, 3), np.uint8), np.zeros(640, np.float32), 1, 0))
        async with asyncio.timeout(5):
            await _write(Stuck(), stream, Start(), server.house)  # pyright: ignore[reportArgumentType]
            await runner
            writer = asyncio.create_task(asyncio.Event().wait())
            assert await _wind_up(runner, stream, writer) == (1000, "ended")  # pyright: ignore[reportArgumentType]
            writer.cancel()

    asyncio.run(scene())


def test_face_that_cannot_be_opened_anew_is_the_servers_failure(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    server = serve()

    def broken(*_: object) -> None:
        raise RuntimeError("no memory is left")

    async def client() -> None:
        async with connect(server.ws) as socket:
            await begin(socket)
            monkeypatch.setattr(server.backend, "open", broken)
            await socket.send(json.dumps({"type": "settings", "settings": {"seed": 1}}))
            with pytest.raises(ConnectionClosed):
                await told(socket, "cleared")
            assert (socket.close_code, socket.close_reason) == (1011, "the server failed")

    asyncio.run(client())
    assert "session failed" in caplog.text and "no memory is left" in caplog.text


def test_garbage_in_a_session_ends_it_alone(serve: Serve):
    async def client() -> None:
        url = serve(sessions=5).ws
        async with connect(url) as well:
            await begin(well)
            for garbage in ("hello", '{"type":"fly"}', b"odd", '{"type":"clear","shown":-1}', "x" * 2_000_000):
                async with connect(url) as socket:
                    await begin(socket)
                    with contextlib.suppress(ConnectionClosed):  # it may be ended before it has sent all
                        await socket.send(garbage)
                    _, messages = await rest(socket)
                    assert socket.close_code in (1008, 1009)
                    if socket.close_code == 1008:
                        assert messages[-1]["type"] == "error" and messages[-1]["message"][:50] in socket.close_reason
            await told(well, "stats")

    asyncio.run(client())


def test_too_much_sound_and_too_many_messages_end_a_session(serve: Serve):
    async def client() -> None:
        url = serve(sound_ahead_s=2.0).ws
        async with connect(url) as socket:
            await begin(socket)
            await socket.send(pcm_bytes(tone(10.0)))
            await rest(socket)
            assert socket.close_code == 1008 and "sound" in (socket.close_reason or "")
        async with connect(url) as socket:
            await begin(socket)
            with pytest.raises(ConnectionClosed):  # noqa: PT012
                for _ in range(3000):
                    await socket.send(b"\0\0")
                await rest(socket)
                await socket.send(b"")
            assert socket.close_code == 1008 and "messages" in (socket.close_reason or "")

    asyncio.run(client())


def test_idle_and_long_sessions_end(serve: Serve):
    async def client() -> None:
        for settings, reason in (({"idle_s": 0.2}, "idle"), ({"session_s": 0.2}, "time")):
            async with connect(serve(**settings).ws) as socket:
                await begin(socket)
                _, messages = await rest(socket)
                assert messages[-1] == {"type": "ended", "reason": reason} and socket.close_code == 1001

    asyncio.run(client())


def test_sessions_are_told_that_the_server_stops(serve: Serve):
    async def client() -> None:
        server = serve()
        async with connect(server.ws) as socket:
            await begin(socket)
            server.server.handle_exit(signal.SIGTERM, None)
            _, messages = await rest(socket)
            assert messages[-1] == {"type": "ended", "reason": "the server stops"}

    asyncio.run(client())


@pytest.mark.parametrize(
    ("token", "arguments", "said"),
    [
        (None, ["--wait", "0", "--server", "ws://127.0.0.1:9"], "no server at ws://127.0.0.1:9"),
        (None, ["--out", "missing/live.mp4"], "the directory missing does not exist"),
        (b"a token of many characters", [], "answers 401; give its --token"),
        (None, [], "closed the connection"),
    ],
)
def test_the_example_client_says_in_one_line_what_is_wrong(
    serve: Serve, tmp_path: Path, capsys, token: bytes | None, arguments: list[str], said: str
):
    spec = importlib.util.spec_from_file_location("live_client", EXAMPLES / "live_client.py")
    assert spec is not None and spec.loader is not None
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    server = serve(token, message_bytes=2000)
    options = ["--server", server.ws.removesuffix("/v1/live"), "--audio", str(EXAMPLES / "speech.wav")]
    options += ["--out", str(tmp_path / "live.mp4"), *arguments]
    assert client.run_cli(client.main, "live_client.py", options) != 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and said in told[0]
