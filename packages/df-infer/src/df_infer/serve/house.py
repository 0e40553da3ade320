"""What all sessions of a server share.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from importlib import resources
from pathlib import Path

import numpy as np

from df_infer.credentials import Credentials
from df_infer.sampling.steps import together
from df_infer.serve.backend import Backend
from df_infer.serve.config import ServeConfig
from df_infer.serve.engine import Engine
from df_infer.serve.logs import noticing
from df_infer.serve.metrics import Metrics
from df_infer.serve.protocol import RATES, FaceSettings
from df_infer.serve.seats import Seats
from df_infer.serve.speaker import keep_frames
from df_models.errors import UserError
from df_models.time import FPS

EXAMPLE = "example"
PAGE = resources.files("df_infer.serve") / "page"
MOST_PORTRAITS = 64
"""Portraits are kept as the square that the model sees, 0.8 MB at 512 pixels; the oldest goes first."""


def checked_example(config: ServeConfig, backend: Backend) -> np.ndarray:
    """Return the portrait that everybody may use, cropped, uint8 ``[H, W, 3]``.

    A face of each kind is opened with it, so that what model, files or settings lack is told before anybody comes in.

    Raises:
        UserError: no face can be made.
    """
    from df_models.media import read_image

    with resources.as_file(PAGE / "face.png") as own:
        example_HWC = backend.portrait(read_image(config.portrait or own))
    for drive in (False, True) if backend.about.drive else (False,):
        backend.open(example_HWC, RATES[0], FaceSettings(drive=drive), keep_frames(config.ahead_s))
    return example_HWC


class House:
    """The model, its engine, the places, and the portraits that were uploaded.

    Args:
        example_HWC: the portrait that everybody may use, as :func:`checked_example` returns it.
        signer: signs whole videos as generated, or None.
    """

    def __init__(
        self, config: ServeConfig, backend: Backend, example_HWC: np.ndarray, signer: Credentials | None = None
    ) -> None:
        self.config, self.backend, self.signer = config, backend, signer
        self.engine = Engine(config.together)
        self.seats = Seats(config.sessions, config.waiting)
        self.stopping = asyncio.Event()
        self.jobs = 0
        self.metrics = Metrics(self.engine, self.seats, lambda: self.jobs)
        self.decoding = asyncio.Semaphore(2)
        self._cropping = asyncio.Lock()  # a face detector is no two threads'
        self._example = example_HWC
        self._portraits: OrderedDict[str, np.ndarray] = OrderedDict()

    def warm_up(self) -> None:
        """Make two chunks that nobody sees: the first ones of a process take longer.

        A compiled model makes two of each number of faces, too, that its steps go together in
        (:mod:`df_models.model.together`): each compiles anew.
        """
        self._two_chunks(1)
        faces = 2
        while self.backend.compiled and faces <= min(self.config.together, self.config.sessions):
            self._two_chunks(faces)
            faces *= 2

    def _two_chunks(self, count: int) -> None:
        """Make two chunks of some faces, in step."""
        keep = keep_frames(self.config.ahead_s)
        faces = [self.backend.open(self._example, RATES[0], FaceSettings(), keep) for _ in range(count)]
        for face in faces:
            face.idle(4 * FPS)
        for _ in range(2):
            for _, made in together([face.steps() for face in faces]):
                if isinstance(made, Exception):
                    raise made

    def portrait(self, name: str) -> np.ndarray:
        """A portrait, uint8 ``[S, S, 3]``, by its id or as the example.

        Raises:
            UserError: it is not, or no longer, known.
        """
        if name == EXAMPLE:
            return self._example
        if name not in self._portraits:
            raise UserError("the portrait is not known, or was replaced by newer ones; upload it again")
        return self._portraits[name]

    async def add_portrait(self, path: Path, warnings: list[str]) -> str:
        """Read and crop an uploaded image; return its id.

        Args:
            warnings: takes what is warned of.

        Raises:
            UserError: it is no image, too large, or shows no face.
        """
        square = await self.read_portrait(path, warnings)
        name = secrets.token_urlsafe(12)
        self._portraits[name] = square
        while len(self._portraits) > MOST_PORTRAITS:
            self._portraits.popitem(last=False)
        return name

    async def read_portrait(self, path: Path, warnings: list[str]) -> np.ndarray:
        """Read and crop an image, beside the engine; a few at a time, since a small file may hold many pixels.

        Args:
            warnings: takes what is warned of.
        """
        from df_models.media import read_image

        async with self.decoding:
            most = self.config.portrait_pixels
            image = await asyncio.to_thread(noticing, warnings, read_image, path, most_pixels=most)
            async with self._cropping:
                return await asyncio.to_thread(noticing, warnings, self.backend.portrait, image)

    def check(self, settings: FaceSettings) -> None:
        """Refuse settings beyond the server's own limits.

        Raises:
            UserError: they are.
        """
        if settings.steps is not None and settings.steps > self.config.most_steps:
            raise UserError(f"steps {settings.steps}: this server allows {self.config.most_steps}")
        if self.backend.about.structure_guidance is None and settings.structure_guidance not in (None, 1.0):
            raise UserError("structure_guidance: this server's model cannot be guided by its structure; leave it out")
        if settings.drive and not self.backend.about.drive:
            raise UserError("this server has no motion track to drive a head with (--motion)")
