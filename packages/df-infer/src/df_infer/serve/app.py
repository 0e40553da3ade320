"""The routes of the server."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from df_infer import __version__
from df_infer.credentials import Credentials
from df_infer.serve.backend import Backend
from df_infer.serve.config import ServeConfig
from df_infer.serve.engine import WHENEVER
from df_infer.serve.fmp4 import MIMES
from df_infer.serve.guard import Guard
from df_infer.serve.house import PAGE, House
from df_infer.serve.jobs import Job, Jobs
from df_infer.serve.protocol import BROWSER_RATE, FaceSettings, Start, Wanted, first_fault
from df_infer.serve.rtc import Connections
from df_infer.serve.seats import Full
from df_infer.serve.sockets import talk
from df_models.errors import UserError
from df_models.time import FPS

_TOKEN: dict[int | str, dict[str, Any]] = {
    401: {"description": "the token is missing or wrong"},
    403: {"description": "the host or origin is not one that is served"},
}
_VIDEO = _TOKEN | {404: {"description": "no such video"}}
_FILE = _VIDEO | {409: {"description": "the video is not done; the line says what it is"}}
_ERRORS = _TOKEN | {
    400: {"description": "what was sent cannot be used; the line says why"},
    408: {"description": "the upload took too long"},
    413: {"description": "too large"},
    422: {"description": "a part of the request is missing or of another kind; the line says which"},
    429: {"description": "too many; try again later"},
}


_SETTINGS = f"JSON: {', '.join(FaceSettings.model_fields)}"


class Offer(BaseModel):
    """A browser's offer of a WebRTC connection, and what the session is to be."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(max_length=60_000)
    start: Wanted = Wanted()


class Answer(BaseModel):
    """The server's answer."""

    sdp: str


class Portrait(BaseModel):
    """An uploaded portrait: `id` names it in a start message; `warnings` tell what may spoil the picture."""

    id: str
    warnings: list[str]


class VideoState(BaseModel):
    """A whole video: `state` is waiting, running, done, failed or cancelled; `frames` of `of` are made."""

    id: str
    state: str
    frames: int
    of: int
    error: str | None
    warnings: list[str]


def build_app(
    config: ServeConfig,
    backend: Backend,
    example_HWC: np.ndarray,
    token: bytes | None = None,
    signer: Credentials | None = None,
) -> FastAPI:
    """Return the ASGI application; ``app.state.house`` is there once it has started.

    ``example_HWC``: see :func:`df_infer.serve.house.checked_example`. ``signer`` signs whole videos.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        house = House(config, backend, example_HWC, signer)
        app.state.house, app.state.connections = house, Connections(house)
        await house.engine.do(WHENEVER, house.warm_up)
        async with Jobs(house) as app.state.jobs:
            try:
                yield
            finally:
                house.stopping.set()
                await app.state.connections.close()
        house.engine.stop()

    app = FastAPI(
        title="DualForce",
        version=__version__,
        description="A talking head from one portrait and speech. Live sessions are described in docs/serving.md.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, config=config, token=token)
    app.add_exception_handler(UserError, _told)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(ClientDisconnect, _left)
    _add_pages(app)
    _add_state(app)
    _add_live(app)
    _add_videos(app)
    return app


async def _told(request: Request, error: Exception) -> Response:
    return _refusal(request, 429 if isinstance(error, Full) else 400, str(error))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _refusal(request, error.status_code, error.detail, error.headers)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _refusal(request, 422, first_fault(error.errors()))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


def _refusal(request: Request, status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as all are told: a status, one line, and a count."""
    request.app.state.house.metrics.refused.labels(str(status)).inc()
    return JSONResponse({"error": why}, status, headers=headers)


def _add_pages(app: FastAPI) -> None:
    with resources.as_file(PAGE) as folder:
        app.mount("/page", StaticFiles(directory=folder), name="page")

        @app.get("/", include_in_schema=False)
        async def index() -> FileResponse:
            return FileResponse(folder / "index.html")

        @app.get("/docs", include_in_schema=False)
        async def docs() -> FileResponse:
            return FileResponse(folder / "docs.html")


def _add_state(app: FastAPI) -> None:
    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether a further session would be taken or may wait")
    async def readyz(response: Response) -> dict[str, Any]:
        house: House = app.state.house
        ready = not house.stopping.is_set() and not house.seats.full
        response.status_code = 200 if ready else 503
        return {"ready": ready, "sessions": house.seats.taken, "waiting": house.seats.line}

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses=_TOKEN)
    async def metrics() -> Response:
        return Response(app.state.house.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/about", summary="The model, and what may be chosen", responses=_TOKEN)
    async def about() -> dict[str, Any]:
        house: House = app.state.house
        own = house.backend.about._asdict()
        own |= {"fps": FPS, "most_steps": house.config.most_steps, "turn": house.config.turn is not None}
        return own | {"rate": BROWSER_RATE, "mimes": MIMES}


def _add_live(app: FastAPI) -> None:
    image = {"schema": {"type": "string", "format": "binary", "description": "the image itself"}}
    body = {"requestBody": {"required": True, "content": {"image/*": image}}}

    @app.post("/v1/portraits", summary="Upload a portrait", responses=_ERRORS, openapi_extra=body)
    async def add_portrait(request: Request) -> Portrait:
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise HTTPException(400, "this is a form; send the image itself as the body (curl --data-binary @face.png)")
        with tempfile.TemporaryDirectory(prefix="df-infer-") as folder:
            path = Path(folder) / "portrait"
            with path.open("wb") as file:
                async for piece in request.stream():
                    file.write(piece)
            if not path.stat().st_size:
                raise HTTPException(400, "the body is empty; send the image itself (curl --data-binary @face.png)")
            try:
                name = await app.state.house.add_portrait(path, warnings := [])
                return Portrait(id=name, warnings=[_unnamed(line, path, "the portrait") for line in warnings])
            except UserError as error:
                raise HTTPException(400, _unnamed(error, path, "the portrait")) from error

    @app.get(
        "/v1/portraits/example",
        summary="The portrait that everybody may use",
        response_class=Response,
        responses=_TOKEN,
    )
    async def example() -> Response:
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(app.state.house.portrait("example")).save(file, "png")
        return Response(file.getvalue(), media_type="image/png")

    @app.post("/v1/webrtc", summary="Begin a live session over WebRTC", responses=_ERRORS)
    async def webrtc(offer: Offer) -> Answer:
        house: House = app.state.house
        if house.seats.full:
            raise Full(f"all {house.seats.limit} places are taken, and so is the line; try again later")
        start = Start(**dict(offer.start), rate=BROWSER_RATE, microphone=True)
        return Answer(sdp=await app.state.connections.answer(offer.sdp, start))

    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await talk(socket, app.state.house)


def _add_videos(app: FastAPI) -> None:
    @app.post("/v1/videos", summary="Have a whole video made", status_code=202, responses=_ERRORS)
    async def add_video(
        request: Request,
        image: Annotated[UploadFile, File(description="the portrait")],
        audio: Annotated[UploadFile, File(description="the speech: any audio or video file")],
        settings: Annotated[str, Form(description=_SETTINGS, max_length=2000)] = "{}",
    ) -> VideoState:
        for name in (await request.form()).keys() - {"image", "audio", "settings"}:
            known = "the parts are image, audio, settings"
            home = "give it in settings" if name in FaceSettings.model_fields else known
            raise HTTPException(400, f"unknown part {name[:40]!r} of the form; {home}")
        if app.state.jobs.full:
            raise HTTPException(429, "as many videos as may be held are there; delete one, or try again later")
        try:
            chosen = FaceSettings.model_validate_json(settings)
        except ValidationError as error:
            raise HTTPException(400, f"settings: {first_fault(error.errors(include_url=False))}") from error
        return VideoState(**(await app.state.jobs.add(image, audio, chosen)).told())

    def found(name: str) -> Job:
        job = app.state.jobs.get(name)
        if job is None:
            raise HTTPException(404, "no such video")
        return job

    @app.get("/v1/videos/{name}", summary="How far a video is", responses=_VIDEO)
    async def video(name: str) -> VideoState:
        return VideoState(**found(name).told())

    @app.get("/v1/videos/{name}/file", summary="The MP4, once it is done", response_class=FileResponse, responses=_FILE)
    async def file(name: str) -> FileResponse:
        job = found(name)
        if job.state != "done":
            raise HTTPException(409, f"the video is {job.state}")
        return FileResponse(job.file, media_type="video/mp4", filename="dualforce.mp4")

    @app.delete("/v1/videos/{name}", summary="Cancel or forget a video", status_code=204, responses=_VIDEO)
    async def remove(name: str) -> None:
        app.state.jobs.remove(found(name))


def _unnamed(told: UserError | str, path: Path, name: str) -> str:
    """A line without the server's own paths."""
    return str(told).replace(str(path), name)
