"""Whole videos, made while nobody live needs the engine: one after the other, each kept for a while."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import UploadFile

from df_infer.serve.backend import Video
from df_infer.serve.engine import WHENEVER
from df_infer.serve.house import House
from df_infer.serve.logs import event, failure, noticing
from df_infer.serve.protocol import FaceSettings
from df_models.errors import UserError

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class _Cancelled(Exception):
    """A video was cancelled while it was made."""


@dataclass
class Job:
    """A video to be made.

    Attributes:
        id: random, so that nobody can guess another's.
        portrait: what the face looks like, cropped, uint8 ``[H, W, 3]``; there once the job is taken.
        frames, of: pixel frames made, and all of them (0: not known yet).
        error: one line, where it failed.
        warnings: of the portrait, of the sound, and of what the model was given.
    """

    folder: Path
    settings: FaceSettings
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    frames: int = 0
    of: int = 0
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    portrait: np.ndarray | None = None
    ended: float | None = None

    @property
    def file(self) -> Path:
        """The MP4, where it is done."""
        return self.folder / "video.mp4"

    def unnamed(self, told: UserError | str) -> str:
        """A line without the server's own paths."""
        return str(told).replace(f"{self.folder}/", "the ")

    def told(self) -> dict[str, Any]:
        """What a client is told."""
        told = {name: getattr(self, name) for name in ("id", "state", "frames", "of", "error")}
        return told | {"warnings": [self.unnamed(line) for line in self.warnings]}


class Jobs:
    """The videos of a server; a context manager that owns their folder and the task that makes them."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()

    async def __aenter__(self) -> Jobs:
        self._root = Path(tempfile.mkdtemp(prefix="df-infer-"))
        self._maker = asyncio.create_task(self._make_all())
        self._keeper = asyncio.create_task(self._forget_old())
        return self

    async def __aexit__(self, *error: object) -> None:
        for job in self._jobs.values():
            self._cancel(job)
        for task in (self._maker, self._keeper):
            task.cancel()
        await asyncio.gather(self._maker, self._keeper, return_exceptions=True)
        shutil.rmtree(self._root, ignore_errors=True)

    @property
    def full(self) -> bool:
        """Whether no further video is taken."""
        return len(self._jobs) >= self._house.config.jobs

    async def add(self, image: UploadFile, audio: UploadFile, settings: FaceSettings) -> Job:
        """Take a video to be made.

        Raises:
            UserError: the settings are beyond the limits, or a file is not what it should be: no audio, no image, no
                face in it.
        """
        self._house.check(settings)
        job = Job(Path(tempfile.mkdtemp(dir=self._root)), settings)
        self._jobs[job.id] = job
        self._house.jobs = len(self._jobs)
        try:
            for upload, name in ((image, "image"), (audio, "audio")):
                with (job.folder / name).open("wb") as file:
                    await asyncio.to_thread(shutil.copyfileobj, upload.file, file)
            await asyncio.to_thread(_check_audio, job.folder / "audio")
            job.portrait = await self._house.read_portrait(job.folder / "image", job.warnings)
            (job.folder / "image").unlink()
        except BaseException as error:
            self.remove(job)
            if isinstance(error, UserError):
                raise UserError(job.unnamed(error)) from error
            raise
        self._queue.put_nowait(job)
        event("video taken", job=job.id)
        return job

    def get(self, name: str) -> Job | None:
        """A job by its id; None if there is none."""
        return self._jobs.get(name)

    def remove(self, job: Job) -> None:
        """Cancel what is not done, and forget it."""
        self._cancel(job)
        self._jobs.pop(job.id, None)
        self._house.jobs = len(self._jobs)
        if job.ended is not None:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _cancel(self, job: Job) -> None:
        if job.state == "waiting":
            job.ended = time.monotonic()
        if job.state in ("waiting", "running"):
            job.state = "cancelled"

    async def _forget_old(self) -> None:
        while True:
            await asyncio.sleep(min(10.0, self._house.config.keep_s))
            limit = time.monotonic() - self._house.config.keep_s
            for job in [job for job in self._jobs.values() if job.ended is not None and job.ended < limit]:
                self.remove(job)

    async def _make_all(self) -> None:
        while True:
            job = await self._queue.get()
            if job.state != "waiting":
                continue
            job.state = "running"
            try:
                await self._make(job)
                job.state = "done"
            except _Cancelled:
                job.state = "cancelled"
            except UserError as error:
                job.state, job.error = "failed", job.unnamed(error)
            except Exception:
                failure("video failed", job=job.id)
                job.state, job.error = "failed", "the server failed"
            finally:
                job.ended = time.monotonic()
                (job.folder / "audio").unlink(missing_ok=True)
                event("video ends", job=job.id, state=job.state, frames=job.frames)
                if job.id not in self._jobs:
                    shutil.rmtree(job.folder, ignore_errors=True)

    async def _make(self, job: Job) -> None:
        from df_models.media import AudioFile, read_audio, write_video

        house, audio = self._house, job.folder / "audio"
        async with house.decoding:
            wave = await asyncio.to_thread(noticing, job.warnings, read_audio, audio, most_s=house.config.audio_s)
        arguments = job.portrait, wave, job.settings
        video = await house.engine.do(WHENEVER, noticing, job.warnings, house.backend.video, *arguments)
        if job.warnings:
            event("video is warned of", job=job.id, warnings=job.warnings)
        job.of = video.count

        finished = None if house.signer is None else house.signer.sign

        def write() -> None:
            with AudioFile(audio) as track:
                write_video(job.file, self._paced(job, video), audio=track, finished=finished)

        await asyncio.to_thread(write)

    def _paced(self, job: Job, video: Video) -> Iterator[np.ndarray]:
        """Frames as the engine finds time for them, in the thread that writes them."""
        while True:
            if job.state == "cancelled":
                raise _Cancelled
            segment = self._house.engine.submit_steps(WHENEVER, video.chunk).result()
            if segment is None:
                return
            for frame in segment.frames:
                job.frames += 1
                yield frame


def _check_audio(path: Path) -> None:
    """Refuse what is no audio before anything waits for it; the whole of it is read when its turn comes.

    Raises:
        UserError: it is none.
    """
    from df_models.media import AudioFile

    with AudioFile(path):
        pass
