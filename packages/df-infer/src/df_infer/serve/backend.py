"""What the server needs of a model: faces that speak as sound comes, and whole videos.

Shape legend: P H, W pixels, N samples, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from df_infer.serve.protocol import FaceSettings
from df_models.errors import UserError
from df_models.time import SAMPLE_RATE, SLOTS

if TYPE_CHECKING:
    from df_infer import Segment, Session
    from df_infer.config import RolloutConfig
    from df_infer.pipeline import Pipeline
    from df_infer.sampling.steps import Steps
    from df_models.motion import Motion


class About(NamedTuple):
    """What a page may offer.

    Attributes:
        model: its name, for people.
        size: side of the video in pixels.
        steps, audio_guidance, structure_guidance: the model's own settings; the last is None where its video cannot be
            guided by its structure.
        drive: whether the server has a motion track that may move the head.
        face: whether a portrait is cropped around its face; else its middle square is taken.
        latency_s: chunk and lookahead, without computing.
    """

    model: str
    size: int
    steps: int
    audio_guidance: float
    structure_guidance: float | None
    drive: bool
    face: bool
    latency_s: float


class Video(NamedTuple):
    """A whole video to be made.

    Attributes:
        count: pixel frames of it.
        chunk: makes its next frames by steps; None after the last.
    """

    count: int
    chunk: Callable[[], Steps[Segment | None]]


class Backend(Protocol):
    """A model as the server sees it; all but its properties is called in the engine's thread."""

    @property
    def about(self) -> About: ...

    @property
    def compiled(self) -> bool:
        """Whether each size of a batch compiles anew, which takes long."""
        ...

    def portrait(self, image_HWC: np.ndarray) -> np.ndarray:
        """Crop an image to the face, uint8 ``[S, S, 3]``; UserError where there is none."""
        ...

    def open(self, portrait_HWC: np.ndarray, rate: int, settings: FaceSettings, keep: int) -> Session:
        """Begin a session with a portrait that is cropped already, that can undo ``keep`` pixel frames."""
        ...

    def video(self, portrait_HWC: np.ndarray, wave_N: np.ndarray, settings: FaceSettings) -> Video:
        """Prepare a whole video of speech at 16 kHz; UserError where the track that is to drive it is shorter."""
        ...

    def takes_more(self, settings: FaceSettings) -> bool:
        """Whether a chunk takes more work than with the model's own settings."""
        ...


class PipelineBackend:
    """A trained model.

    Args:
        name: of the model, for people.
        motion, fields: a track that may drive the head.

    Raises:
        UserError: the model makes no video, makes whole clips only, or cannot be given such a motion.
    """

    def __init__(
        self, pipeline: Pipeline, name: str, motion: Motion | None = None, fields: tuple[str, ...] = ()
    ) -> None:
        from df_infer.rollout import warn_of_latency
        from df_infer.sampling.drive import check_saw_clean
        from df_infer.sampling.guidance import why_no_structure_guidance
        from df_models.model.describe import latency_of

        config, rollout = pipeline.model.config, pipeline.rollout
        if not config.has_video or not config.hears:
            raise UserError("the server shows people who speak: it needs a model that makes video and hears audio")
        if rollout.chunk is None:
            raise UserError("the model makes whole clips at once (rollout.chunk=null), and nothing of it can be live")
        if motion is not None and not fields:
            check_saw_clean(pipeline.trained)
        warn_of_latency(config, rollout, pipeline.trained)
        self._pipeline, self._motion, self._fields = pipeline, motion, fields
        self._chunk = rollout.chunk
        latency = latency_of(config, rollout.chunk, rollout.audio_future)
        if latency.total is None:
            raise UserError(f"the audio encoder {config.audio_encoder!r} hears whole recordings only, nothing live")
        self.about = About(
            name,
            pipeline.size,
            rollout.steps,
            rollout.audio_guidance,
            None if why_no_structure_guidance(config, pipeline.trained) else rollout.structure_guidance,
            motion is not None,
            pipeline.looks_for_faces,
            latency.total,
        )

    @property
    def compiled(self) -> bool:
        """See :class:`Backend`."""
        return self._pipeline.model.compiled_step

    def portrait(self, image_HWC: np.ndarray) -> np.ndarray:
        """See :class:`Backend`."""
        return self._pipeline.portrait(image_HWC)

    def open(self, portrait_HWC: np.ndarray, rate: int, settings: FaceSettings, keep: int) -> Session:
        """See :class:`Backend`."""
        from df_infer import Session

        return Session(
            self._pipeline,
            portrait_HWC,
            rate=rate,
            cropped=True,
            keep=math.ceil(keep / (SLOTS * self._chunk)) + 1,  # the first chunk is shorter
            **self._chosen(settings),
        )

    def video(self, portrait_HWC: np.ndarray, wave_N: np.ndarray, settings: FaceSettings) -> Video:
        """See :class:`Backend`."""
        from df_infer import Session
        from df_infer.hearing.loudness import gain_db
        from df_infer.hearing.speech import frames_covering
        from df_models.motion import motion_slots

        config, count = self._pipeline.model.config, frames_covering(wave_N)
        if settings.drive and self._motion is not None:
            motion_slots(self._motion, config, count, "the server's motion track")
        gain = gain_db(wave_N, config.speech_level)
        face = Session(self._pipeline, portrait_HWC, cropped=True, gain_db=gain, keep=0, **self._chosen(settings))
        pieces = iter(np.array_split(wave_N, math.ceil(len(wave_N) / SAMPLE_RATE)))

        def chunk() -> Steps[Segment | None]:
            while not face.due and not face.done:
                if (piece := next(pieces, None)) is None:
                    face.close()
                else:
                    face.push(piece)
            return (yield from face.steps())

        return Video(count, chunk)

    def takes_more(self, settings: FaceSettings) -> bool:
        """See :class:`Backend`."""
        own = self._pipeline.rollout
        return _predictions(rollout_with(own, settings)) > _predictions(own)

    def _chosen(self, settings: FaceSettings) -> dict[str, Any]:
        chosen: dict[str, Any] = {"seed": settings.seed, "rollout": rollout_with(self._pipeline.rollout, settings)}
        if settings.drive and self._motion is not None:
            chosen |= {"motion": self._motion, "fields": self._fields}
        return chosen


def _predictions(rollout: RolloutConfig) -> int:
    """Predictions that a chunk takes: at each step one, and one without each condition that is guided."""
    from df_infer.sampling.guidance import guidance_scales

    return rollout.steps * (1 + len(guidance_scales(rollout)))


def rollout_with(own: RolloutConfig, settings: FaceSettings) -> RolloutConfig:
    """A model's own settings with those that a user chose; steps of the structure keep their share of all steps.

    Raises:
        UserError: they do not fit together.
    """
    from df_infer.config import RolloutChanges

    changes: dict[str, Any] = {}
    if settings.steps is not None:
        changes["steps"] = settings.steps
        if own.structure_steps is not None:
            changes["structure_steps"] = max(1, round(own.structure_steps * settings.steps / own.steps))
    for name in ("audio_guidance", "structure_guidance"):
        if (scale := getattr(settings, name)) is not None:
            changes[name] = scale
    return RolloutChanges(**changes).applied_to(own)
