"""What may come in over HTTP, and how much of it; whole videos."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import re
import socket
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from df_infer.serve.command import check_port
from df_infer.serve.config import ServeConfig
from df_infer.serve.engine import soon
from df_infer.serve.guard import Guard, read_token, turn_login
from df_infer.serve.protocol import read_start
from df_infer.serve.seats import CONNECTING
from df_models.errors import UserError
from df_models.media import read_audio, read_video, write_wav

from .conftest import SIZE, FakeBackend, Running, Serve, number_of, running

TOKEN = b"a token of many characters"


def png(width: int = 80, height: int = 80) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "png")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG that claims, and holds, `side` squared grey pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    write_wav(path, np.sin(np.arange(16_000) / 10) * 0.3)
    return path.read_bytes()


def test_pages_need_nothing_from_elsewhere(client: httpx.Client):
    for path in ("/", "/docs", "/page/app.js", "/page/rtc.js", "/page/socket.js", "/page/speech.wav"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        if not path.endswith("wav"):
            assert "https://" not in answer.text
    assert client.get("/page/../app.py").status_code == 404
    described = client.get("/openapi.json").json()["paths"]
    assert {"/v1/portraits", "/v1/webrtc", "/v1/videos", "/v1/videos/{name}/file", "/healthz"} <= set(described)
    assert {"200", "401", "404", "409"} <= set(described["/v1/videos/{name}/file"]["get"]["responses"])
    assert {"204", "401", "404"} <= set(described["/v1/videos/{name}"]["delete"]["responses"])


def test_page_offers_the_examples_of_the_repository(client: httpx.Client):
    folder = Path(__file__).parents[4] / "examples"
    for name in ("face.png", "speech.wav"):
        assert client.get(f"/page/{name}").content == (folder / name).read_bytes()


def test_probes_and_figures(client: httpx.Client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"ready": True, "sessions": 0, "waiting": 0}
    assert "df_sessions 0.0" in client.get("/metrics").text
    about = client.get("/v1/about").json()
    assert about["mimes"]["opus"].startswith("video/mp4") and about["rate"] == 48_000
    assert f"RATE = {about['rate']};" in client.get("/page/sound.js").text
    assert (about["model"], about["size"], about["fps"]) == ("fake", SIZE, 25)


def test_portrait_is_cropped_beside_the_engine(client: httpx.Client, server: Running, monkeypatch: pytest.MonkeyPatch):
    """The engine, which makes everybody's chunks, is free while a large image is cropped."""
    cropping, computed = threading.Event(), threading.Event()

    def crop(image_HWC: np.ndarray) -> np.ndarray:
        cropping.set()
        assert computed.wait(10), "the engine waits for the crop"
        return image_HWC[:SIZE, :SIZE]

    monkeypatch.setattr(server.backend, "portrait", crop)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/portraits", content=png())
        assert cropping.wait(10)
        asyncio.run_coroutine_threadsafe(server.house.engine.do(soon(), computed.set), server.loop).result(20)
        assert answer.result().status_code == 200


def test_oldest_portraits_go_first(client: httpx.Client, server: Running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("df_infer.serve.house.MOST_PORTRAITS", 1)
    first, second = (client.post("/v1/portraits", content=png()).json()["id"] for _ in range(2))
    assert server.house.portrait(second).shape == (SIZE, SIZE, 3)
    with pytest.raises(UserError, match="upload it again"):
        server.house.portrait(first)


def test_uploads_are_limited_in_number(client: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("df_infer.serve.guard.MOST_UPLOADS", 0)
    answer = client.post("/v1/portraits", content=png())
    assert answer.status_code == 429 and "uploads are under way" in answer.text


def test_portrait_is_cropped_and_named(client: httpx.Client):
    answer = client.post("/v1/portraits", content=png())
    assert answer.status_code == 200 and len(answer.json()["id"]) >= 16
    example = Image.open(io.BytesIO(client.get("/v1/portraits/example").content))
    assert example.size == (SIZE, SIZE)


@pytest.mark.parametrize(("body", "why"), [(b"no image", "image"), (b"", "image"), (bomb(9000), "megapixels")])
def test_portrait_that_is_none_or_a_bomb_is_refused(client: httpx.Client, body: bytes, why: str):
    answer = client.post("/v1/portraits", content=body)
    assert answer.status_code == 400 and why in answer.json()["error"] and "/" not in answer.json()["error"]


def test_bodies_are_limited_whatever_they_say_of_their_length(serve: Serve):
    server = serve(upload_bytes=100_000)
    with httpx.Client(base_url=server.http) as http:
        assert http.post("/v1/webrtc", content=b" " * 10_000_000).status_code == 413
        assert http.post("/v1/portraits", content=bytes(200_000)).status_code == 413
        endless = (bytes(10_000) for _ in range(1000))
        with contextlib.suppress(httpx.WriteError):  # where it was cut off while it sent on
            assert http.post("/v1/portraits", content=endless).status_code == 413
        assert http.get("/healthz").status_code == 200


def refused(http: httpx.Client, status: int) -> float:
    """How many requests were refused with a status."""
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("df_refused_total")]
    return sum(float(line.split()[-1]) for line in lines if f'"{status}"' in line)


def test_requests_of_another_form_are_refused_in_a_line_and_counted(client: httpx.Client):
    for ask, status in (
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
        ({"json": {"sdp": 3}}, 422),
        ({"json": {"sdp": "v=0", "start": {"portrait": "nobody"}}}, 400),
    ):
        before = refused(client, status)
        answer = client.post("/v1/webrtc", **ask)
        assert (
            answer.status_code == status and list(answer.json()) == ["error"] and answer.json()["error"].isprintable()
        )
        assert refused(client, status) == before + 1


def test_upload_that_is_broken_off_is_no_failure(
    client: httpx.Client, server: Running, caplog: pytest.LogCaptureFixture
):
    head = b"POST /v1/portraits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as rude:
        rude.sendall(head)
        time.sleep(0.1)
    time.sleep(0.1)
    assert client.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_port_that_was_taken_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "df_infer.serve")
    server = serve()
    told = [record.__dict__["fields"] for record in caplog.records if record.message == "serving"]
    assert told == [{"model": "fake", "host": "127.0.0.1", "port": server.port}]


def test_upload_that_never_ends_is_cut_off(serve: Serve):
    server = serve(upload_s=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
        slow.sendall(b"POST /v1/portraits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in slow.recv(4096)


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(FakeBackend(), TOKEN) as server:
        yield server


def test_token_is_asked_for(locked: Running):
    with httpx.Client(base_url=locked.http) as http:
        for path in ("/v1/about", "/v1/videos/x", "/metrics", "/v1/portraits/example"):
            for given in (None, b"Bearer wrong", b"Bearer \xe9", b"Basic " + TOKEN):
                headers = {} if given is None else {b"Authorization": given}
                assert http.get(path, headers=headers).status_code == 401
            assert http.get(path, headers={"Authorization": f"Bearer {TOKEN.decode()}"}).status_code in (200, 404)
        for free in ("/", "/healthz", "/readyz", "/page/app.js"):
            assert http.get(free).status_code == 200


def test_token_over_websocket_and_webrtc(locked: Running, caplog: pytest.LogCaptureFixture):
    import asyncio
    import base64

    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    assert httpx.post(f"{locked.http}/v1/webrtc", json={"sdp": "v=0"}).status_code == 401

    async def client() -> None:
        for wrong in (None, ["dualforce.v1"], ["dualforce.v1", "token.d3Jvbmc"], ["token.%%%"]):
            with pytest.raises(InvalidStatus) as refused:
                await connect(locked.ws, subprotocols=wrong)
            assert refused.value.response.status_code == 401
        coded = base64.urlsafe_b64encode(TOKEN).decode().rstrip("=")
        async with connect(locked.ws, subprotocols=["dualforce.v1", f"token.{coded}"]) as socket:
            assert socket.subprotocol == "dualforce.v1"
        async with connect(locked.ws, additional_headers={"Authorization": f"Bearer {TOKEN.decode()}"}):
            pass

    asyncio.run(client())
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert not errors, "a stranger could fill the log"


def test_other_names_and_other_sites_are_refused(serve: Serve):
    server = serve(allow_hosts="other.example, face.example")
    http = httpx.Client(base_url=server.http)
    for headers, status in (
        ({"Host": "evil.example"}, 403),
        ({"Host": "192.168.0.7"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "face.example"}, 200),
        ({"Host": "face.example", "Origin": "https://face.example"}, 200),
        ({"Host": f"localhost:{server.port}", "Origin": f"http://localhost:{server.port}"}, 200),
    ):
        assert http.get("/v1/about", headers=headers).status_code == status, headers


def test_the_servers_own_name_may_have_capitals():
    assert Guard(None, ServeConfig(host="MyHost.local"), None)._known("myhost.local")  # type: ignore[arg-type]


def test_connections_on_which_nothing_comes_are_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("df_infer.serve.server.FIRST_REQUEST_S", 0.5)
    server = serve()
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as silent,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as half,
        httpx.Client(base_url=server.http) as asks,
    ):
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert asks.get("/healthz").status_code == 200
        for line in (silent, half):
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(100) == b"", "closed"
        assert asks.get("/healthz").status_code == 200


def test_connections_beyond_twice_the_limit_are_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("df_infer.serve.server.MOST_CONNECTIONS", -CONNECTING)
    server = serve(sessions=1, waiting=1)
    with contextlib.ExitStack() as held:
        lines = [held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10)) for _ in range(5)]
        with contextlib.suppress(ConnectionResetError):
            assert lines[-1].recv(100) == b"", "closed"
        lines[1].sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 503 " in lines[1].recv(100), "beyond the limit"
        lines[0].settimeout(0.3)
        with pytest.raises(TimeoutError):
            lines[0].recv(100)


def test_open_address_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DF_INFER_TOKEN", raising=False)
    assert read_token(ServeConfig()) is None
    monkeypatch.delenv("DF_INFER_TURN_USER", raising=False)
    monkeypatch.setenv("DF_INFER_TURN_PASSWORD", "secret")
    with pytest.raises(UserError, match="DF_INFER_TURN_PASSWORD is set, and DF_INFER_TURN_USER is not"):
        turn_login()
    monkeypatch.setenv("DF_INFER_TURN_USER", "me")
    assert turn_login() == ("me", "secret")
    for variable in ("DF_INFER_TURN_USER", "DF_INFER_TURN_PASSWORD"):
        monkeypatch.setenv(variable, "")
    assert turn_login() == (None, None)
    with pytest.raises(UserError, match="token is needed"):
        read_token(ServeConfig(host="0.0.0.0"))
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(UserError, match="16 characters"):
        read_token(ServeConfig(token_file=str(tmp_path / "token")))
    (tmp_path / "token").write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(UserError, match="no text"):
        read_token(ServeConfig(token_file=str(tmp_path / "token")))
    (tmp_path / "token").write_text("ein langes Kennwort für alle")
    with pytest.raises(UserError, match="ASCII"):
        read_token(ServeConfig(token_file=str(tmp_path / "token")))
    (tmp_path / "token").write_text(TOKEN.decode() + "\n")
    assert read_token(ServeConfig(host="0.0.0.0", token_file=str(tmp_path / "token"))) == TOKEN
    monkeypatch.setenv("DF_INFER_TOKEN", TOKEN.decode())
    assert read_token(ServeConfig(host="0.0.0.0")) == TOKEN


def ended(http: httpx.Client, name: str) -> dict[str, object]:
    for _ in range(200):
        state = http.get(f"/v1/videos/{name}").json()
        if state["state"] not in ("waiting", "running"):
            return state
        time.sleep(0.05)
    raise AssertionError("it did not end")


def test_whole_video(client: httpx.Client, speech: bytes, tmp_path: Path):
    files = {"image": png(), "audio": speech}
    taken = client.post("/v1/videos", files=files, data={"settings": json.dumps({"steps": 3})})
    assert taken.status_code == 202
    name = taken.json()["id"]
    state = ended(client, name)
    assert (state["state"], state["frames"], state["of"]) == ("done", 25, 25)
    (tmp_path / "video.mp4").write_bytes(client.get(f"/v1/videos/{name}/file").content)
    frames, fps = read_video(tmp_path / "video.mp4")
    assert fps == 25 and [number_of(frame) for frame in frames] == list(range(25))
    assert len(read_audio(tmp_path / "video.mp4")) >= 16_000
    assert client.delete(f"/v1/videos/{name}").status_code == 204
    assert client.get(f"/v1/videos/{name}").status_code == 404


def test_what_a_video_was_warned_of_is_told_with_it(client: httpx.Client, server: Running, speech: bytes, monkeypatch):
    backend, own_read = type(server.backend), read_audio
    own_video, own_portrait = backend.video, backend.portrait

    def warning(says: str, of: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def work(*arguments: Any, **options: Any) -> Any:
            logging.getLogger(of).warning(says)
            return own(*arguments, **options)

        return work

    def of_a_file(path: Path, **options: Any) -> Any:
        logging.getLogger("df_models.media.audio").warning("broken off: %s", path)
        return own_read(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "video", warning("quiet", "df_infer.hearing.loudness", own_video))
        patch.setattr(backend, "portrait", warning("small", "df_infer.portrait", own_portrait))
        patch.setattr("df_models.media.read_audio", of_a_file)
        name = client.post("/v1/videos", files={"image": png(), "audio": speech}).json()["id"]
        assert ended(client, name)["warnings"] == ["small", "broken off: the audio", "quiet"]
        assert client.post("/v1/portraits", content=png()).json()["warnings"] == ["small"]
    assert client.post("/v1/portraits", content=png()).json()["warnings"] == []
    name = client.post("/v1/videos", files={"image": png(), "audio": speech}).json()["id"]
    assert ended(client, name)["warnings"] == []
    assert not [handler for handler in logging.getLogger("df_infer").handlers if type(handler).__name__ == "_Noticing"]


BOTH = {"image": b"x", "audio": b"x"}
MULTIPART = {"Content-Type": "Multipart/Form-Data; boundary=x"}


def test_curl_sends_a_portrait_as_the_documents_say(client: httpx.Client):
    """It calls every body a form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/v1/portraits", content=png(), headers=headers).json()["warnings"] == []


@pytest.mark.parametrize(
    ("path", "request_of", "why"),
    [
        ("/v1/portraits", {"files": {"image": b"x"}}, "this is a form; send the image itself"),
        ("/v1/portraits", {"files": {"image": b"x"}, "headers": MULTIPART}, "this is a form; send the image itself"),
        ("/v1/portraits", {"content": b""}, "the body is empty"),
        (
            "/v1/videos",
            {"files": BOTH, "data": {"seed": "3"}},
            "unknown part 'seed' of the form; give it in settings",
        ),
        (
            "/v1/videos",
            {"files": BOTH, "data": {"sid": "3"}},
            "the parts are image, audio, settings",
        ),
        ("/v1/videos", {"files": {"image": b"x"}}, "audio: is missing"),
    ],
)
def test_what_is_sent_the_wrong_way_is_told(client: httpx.Client, path: str, request_of: dict[str, Any], why: str):
    answer = client.post(path, **request_of)
    assert answer.status_code in (400, 422) and why in answer.json()["error"]


def test_a_video_is_kept_for_a_while(serve: Serve, speech: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = serve(keep_s=1.0)
    with httpx.Client(base_url=server.http) as http:
        name = http.post("/v1/videos", files={"image": png(), "audio": speech}).json()["id"]
        ended(http, name)
        assert http.get(f"/v1/videos/{name}/file").status_code == 200 and list(tmp_path.rglob("video.mp4"))
        until = time.monotonic() + 10
        while http.get(f"/v1/videos/{name}").status_code != 404:
            assert time.monotonic() < until, "it is kept"
            time.sleep(0.1)
        assert server.house.jobs == 0 and not list(tmp_path.rglob("video.mp4"))


def test_a_whole_video_is_signed(serve, speech: bytes):
    class Signer:
        def sign(self, path: Path) -> None:
            path.write_bytes(path.read_bytes() + b"signed")

    server = serve()
    server.house.signer = Signer()  # pyright: ignore
    with httpx.Client(base_url=server.http) as http:
        name = http.post("/v1/videos", files={"image": png(), "audio": speech}).json()["id"]
        assert ended(http, name)["state"] == "done"
        assert http.get(f"/v1/videos/{name}/file").content.endswith(b"signed")


def test_whole_video_that_cannot_be_made_says_why(client: httpx.Client, speech: bytes):
    for files, why in (
        ({"image": b"none", "audio": speech}, "image"),
        ({"image": png(), "audio": b"none"}, "audio"),
    ):
        answer = client.post("/v1/videos", files=files)
        assert answer.status_code == 400 and answer.json()["error"].startswith(f"the {why}"), "told at once"
    files = {"image": png(), "audio": speech}
    assert client.post("/v1/videos", files=files, data={"settings": '{"steps":0}'}).status_code == 400
    unknown = client.post("/v1/videos", files=files, data={"settings": '{"step":3}'})
    assert unknown.json()["error"] == "settings: step: unknown (did you mean 'steps'?)"
    for message, told in (
        ('{"type":"start","steps":4}', "steps: does not belong here; give it in settings"),
        ('{"type":"start","sounds":"aac"}', "sounds: unknown (did you mean 'sound'?)"),
        ('{"type":"start","shown":1}', "shown: does not belong here"),
    ):
        with pytest.raises(UserError, match=re.escape(told) + "$"):
            read_start(message)
    answer = client.post("/v1/videos", files={"image": png()})
    assert answer.status_code == 422 and "audio" in answer.json()["error"]


def test_whole_videos_are_limited_in_length_and_number(serve: Serve, speech: bytes):
    with httpx.Client(base_url=serve(audio_s=0.5, jobs=1).http) as http:
        files = {"image": png(), "audio": speech}
        name = http.post("/v1/videos", files=files).json()["id"]
        assert http.post("/v1/videos", files=files).status_code == 429
        state = ended(http, name)
        assert state["state"] == "failed" and "longer than 0.5 s" in str(state["error"])


def test_upload_that_cannot_be_copied_takes_no_place(serve: Serve, speech: bytes, monkeypatch: pytest.MonkeyPatch):
    server, files = serve(jobs=1), {"image": png(), "audio": speech}

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    with httpx.Client(base_url=server.http) as http, monkeypatch.context() as patched:
        patched.setattr("df_infer.serve.jobs.shutil.copyfileobj", full_disk)
        assert http.post("/v1/videos", files=files).status_code == 500
    assert server.house.jobs == 0
    with httpx.Client(base_url=server.http) as http:
        assert http.post("/v1/videos", files=files).status_code == 202


def test_running_video_can_be_cancelled(serve: Serve, speech: bytes, monkeypatch: pytest.MonkeyPatch):
    server = serve()
    whole = server.backend.video

    def slow(*args):
        video = whole(*args)
        return video._replace(chunk=lambda: time.sleep(0.2) or video.chunk())

    monkeypatch.setattr(server.backend, "video", slow)
    with httpx.Client(base_url=server.http) as http:
        name = http.post("/v1/videos", files={"image": png(), "audio": speech}).json()["id"]
        while http.get(f"/v1/videos/{name}").json()["frames"] < 2:
            time.sleep(0.01)
        assert http.get(f"/v1/videos/{name}/file").status_code == 409
        assert http.delete(f"/v1/videos/{name}").status_code == 204
        again = http.post("/v1/videos", files={"image": png(), "audio": speech}).json()["id"]
        assert ended(http, again)["state"] == "done"


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"nothing can listen on 127.0.0.1, port {port}: .*give another --port"):
            check_port(ServeConfig(port=port))
    check_port(ServeConfig(port=0))
