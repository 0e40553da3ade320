"""A session: speech is pushed as it comes, frames are made as soon as they can be, what is not seen can be undone.

What it makes of speech is what `df-infer generate` makes of the same recording, to the bit on a CPU, however the speech
is divided (:meth:`Session.push`); but for rounding where its chunks go in a batch with those of others
(:meth:`Session.steps`). It remembers the last moments of its generation, so that an interruption goes on from what was
seen (:meth:`Session.clear`). All that it holds is of constant size, however long it lasts.

Shape legend: H, W pixels, P pixel frames, N samples, T latent frames, C of a chunk, L lookahead, S = 4 slots,
D structure entries.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from df_infer.clip_decoder import ClipDecoder
from df_infer.config import RolloutConfig
from df_infer.live.making import Making
from df_infer.live.saved import SessionState, check_tensors, checked_facts, fingerprint, settings_of
from df_infer.live.sound import LiveSound, SoundState
from df_infer.pipeline import EncodedPortrait, Pipeline, pool_of
from df_infer.rollout import heard_ahead, reference_input, text_input, warn_of_latency
from df_infer.sampling.audio_feed import lookahead_frames
from df_infer.sampling.drive import Drive, GivenChunk, GivenStructure, check_saw_clean
from df_infer.sampling.guidance import check_guidance
from df_infer.sampling.noise import FrameNoise
from df_infer.sampling.sampler import Sampler
from df_infer.sampling.steps import HeldUp, Steps, alone
from df_infer.sampling.whole_clip import check_levels
from df_models import DualForce
from df_models.errors import UserError
from df_models.model.describe import latency_of
from df_models.motion import Motion, motion_slots
from df_models.time import (
    FPS,
    SAMPLE_RATE,
    SLOTS,
    from_slots,
    latent_length,
    latent_of_pixel,
    pixel_length,
    pixels_of_latent,
    to_slots,
    valid_pixel_length,
)

KEEP = 16
"""Chunks that can be undone: 2.6 s of frames that were made ahead of what is seen, at one latent frame each."""


class Segment(NamedTuple):
    """A chunk that was made.

    Attributes:
        frame: index of its first pixel frame, from the session's start.
        frames: uint8 ``[P, H, W, 3]``: 1 pixel frame for the session's first latent frame, 4 for any other.
        audio: float32 ``[N]`` at the session's rate, the sound of these frames.
        structure: float32 ``[P, D]`` in its own units.
    """

    frame: int
    frames: np.ndarray
    audio: np.ndarray
    structure: np.ndarray


class Session:
    """One face that speaks for as long as it is given sound.

    Its methods may be called from different threads; :meth:`make` computes, all others return at once or, as
    :meth:`clear`, when the chunk that is being made is done.

    Args:
        pipeline: the model; sessions share it.
        portrait: uint8 RGB ``[H, W, 3]``, or as :meth:`df_infer.pipeline.Pipeline.encoded` returns it; None for a model
            without video.
        rate: of the sound that is pushed, samples a second.
        seed: keys all noise.
        rollout: settings instead of the run's own.
        cropped: the portrait is cropped already.
        gain_db: by how much louder the model hears the sound; it is played as it is. (A file's level is measured as a
            whole, which live sound cannot be.)
        motion: a track that the structure is given from, beginning with the session; after its end the model moves by
            itself.
        fields: names of the fields to give of it; none: all.
        keep: chunks that can be undone.

    Attributes:
        rate: see above.
        size: side of the frames in pixels.
        frame: pixel frames made so far, less what was undone.

    Raises:
        UserError: an argument does not fit the model, or the model cannot be live.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        portrait: np.ndarray | EncodedPortrait | None,
        *,
        rate: int = SAMPLE_RATE,
        seed: int = 0,
        rollout: RolloutConfig | None = None,
        cropped: bool = False,
        gain_db: float = 0.0,
        motion: Motion | None = None,
        fields: tuple[str, ...] = (),
        keep: int = KEEP,
    ) -> None:
        self._pipeline, self._model = pipeline, pipeline.model
        config = self._model.config
        settled = _live_rollout(pipeline, rollout or pipeline.rollout)
        self._settings = settings = settings_of(rate=rate, seed=seed, rollout=settled, gain_db=gain_db, keep=keep)
        self._chunk, self._future = self._rollout.chunk or 1, heard_ahead(config, self._rollout)
        self._sound = LiveSound(pipeline.audio_encoder, pool_of(config), settings.rate, gain_db=settings.gain_db)
        self._fields, self._motion_TSD, self._given = fields, _motion(self._model, motion, fields), None
        if self._motion_TSD is not None:
            if not fields:
                check_saw_clean(pipeline.trained)
            self._given = GivenStructure(self._model, Drive(self._motion_TSD, fields), 1, self._model.device)
        if not (portrait is None or isinstance(portrait, EncodedPortrait | np.ndarray)):
            raise UserError(
                f"the portrait must be an array, not {type(portrait).__name__}; df_models.media.read_image reads one"
            )
        self._portrait = portrait if isinstance(portrait, EncodedPortrait) else pipeline.encoded(portrait, cropped)
        latent = reference_input(config, self._portrait.latent, torch.zeros(1, 1, SLOTS, 0), None)
        text = None if pipeline.prompt is None else pipeline.prompt.features_LD[None]
        text = text_input(config, text)
        noise = FrameNoise(settings.seed, [0])
        sampler = Sampler(self._model, latent, self._portrait.tokens, text, self._rollout, noise)
        self._making = Making(sampler, ClipDecoder(self._model, pipeline.vae), settings.keep)
        self._computing, self._hearing = threading.Lock(), threading.Lock()
        self._maker: int | None = None

    @property
    def _rollout(self) -> RolloutConfig:
        return self._settings.rollout

    @property
    def rate(self) -> int:
        """Samples a second of the sound that is pushed and played."""
        return self._sound.rate

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""
        return self._pipeline.size

    @property
    def frame(self) -> int:
        """Pixel frames made so far, less what was undone: the index of the next one."""
        return 0 if self._making.latent == 0 else pixel_length(self._making.latent)

    @property
    def samples(self) -> int:
        """Samples of the session's sound so far, less what was undone."""
        with self._hearing:
            return self._sound.samples

    @property
    def latency_s(self) -> float:
        """Seconds of sound that a frame waits for, computing apart."""
        total = latency_of(self._model.config, self._chunk, self._rollout.audio_future).total
        assert total is not None, "an encoder that hears everything was refused"
        return total

    @property
    def bytes(self) -> int:
        """Memory of the session beside the model's, once it can undo as much as it may; it does not grow."""
        return self._making.bytes + self._sound.bytes

    def push(self, pcm_N: np.ndarray) -> None:
        """Take the next samples: mono float32 in [-1, 1] or int16 at the session's rate, any number of them.

        Raises:
            UserError: the session is closed, or samples of another kind.
        """
        with self._hearing:
            self._sound.push(pcm_N)

    def idle(self, frames: int) -> None:
        """Take silence that lasts so many pixel frames: the face lives on, its mouth closed.

        Raises:
            UserError: the session is closed, or fewer than no frames.
        """
        if frames < 0:
            raise UserError(f"a face can be idle for 0 frames or more, not for {frames}")
        self.push(np.zeros(frames * (self.rate // FPS), np.float32))

    def close(self) -> None:
        """Say that no sound will follow; what lacks to the last latent frame is silence."""
        with self._hearing:
            self._sound.end()

    @property
    def due(self) -> bool:
        """Whether the next chunk can be made of the sound that is there."""
        with self._hearing:
            return self._next_count() > 0

    @property
    def done(self) -> bool:
        """Whether the session is closed and all of it is made."""
        with self._hearing:
            return self._sound.ended and self._next_count() == 0

    def make(self) -> Segment | None:
        """Make the next chunk; None if too little sound was pushed for it, or all is made."""
        return alone(self.steps())

    def steps(self) -> Steps[Segment | None]:
        """:meth:`make` by steps of the model, to run with those of others (:func:`df_infer.sampling.steps.together`).

        Until it has ended or is closed, :meth:`clear` and :meth:`state` of other threads wait.

        Raises:
            RuntimeError: another chunk of this session is being made in the same thread, which would wait for ever.
        """
        self._check_not_within()
        while not self._computing.acquire(blocking=False):
            yield HeldUp(self._computing)
        try:
            self._maker = threading.get_ident()
            return (yield from self._next_segment())
        finally:
            self._maker = None
            self._computing.release()

    def _check_not_within(self) -> None:
        if self._maker == threading.get_ident():
            raise RuntimeError(
                "a chunk of this session is being made in this thread: what must come after it would wait for ever; "
                "end its steps first"
            )

    def _next_segment(self) -> Steps[Segment | None]:
        with self._hearing:
            count = self._next_count()
            if count == 0:
                return None
            audio = self._audio(count)
        first = self.frame
        clips = yield from self._making.make(audio, count, self._given_chunk(count))
        with self._hearing:
            played_N = self._sound.played(first, self.frame)
            self._sound.let_go(pixels_of_latent(self._making.earliest)[0])
        return Segment(
            first,
            np.concatenate([clip.frames for clip in clips]),
            played_N,
            np.concatenate([clip.structure for clip in clips]),
        )

    def segments(self) -> Iterator[Segment]:
        """Yield what can be made by now."""
        while (segment := self.make()) is not None:
            yield segment

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames that can be made by now, uint8 ``[H, W, 3]``."""
        return (frame for segment in self.segments() for frame in segment.frames)

    async def stream(self, poll_s: float = 0.005) -> AsyncIterator[Segment]:
        """Yield segments as they can be made, until the session is closed and all is made.

        Chunks are computed in a thread of their own. ``poll_s``: how often the sound is looked at.
        """
        while not self.done:
            segment = await asyncio.to_thread(self.make) if self.due else None
            if segment is None:
                await asyncio.sleep(poll_s)
            else:
                yield segment

    def clear(self, shown: int) -> int:
        """Interrupt: undo what was made after the first ``shown`` pixel frames, and forget the sound after it.

        Frames come in latent frames of four, chunks of one or more: what was begun to be seen is kept to the end of its
        chunk. The next sound that is pushed belongs to the frame that follows.

        Returns:
            The index of the next pixel frame.

        Raises:
            UserError: more was shown than was made, or what was shown lies further back than can be undone.
            RuntimeError: between two :meth:`steps` of a chunk, in the thread that makes them.
        """
        self._check_not_within()
        with self._computing:
            if not 0 <= shown <= self.frame:
                raise UserError(f"clear: {shown} pixel frames cannot have been shown, of {self.frame} that were made")
            first_unseen = 0 if shown == 0 else latent_of_pixel(shown - 1) + 1
            self._making.undo(first_unseen)
            with self._hearing:
                self._sound.cut(self.frame)
            return self.frame

    def state(self) -> SessionState:
        """Return all that the session is at this moment, to go on from later (:meth:`resumed`).

        Raises:
            RuntimeError: between two :meth:`steps` of a chunk, in the thread that makes them.
        """
        self._check_not_within()
        with self._computing, self._hearing:
            tensors, making = self._making.state()
            sound = self._sound.state()
            tensors |= {"sound.pushed": sound.pushed_N, "sound.heard": sound.heard_N}
            given = {"motion": self._motion_TSD, **self._portrait._asdict()}
            tensors |= {f"given.{name}": x for name, x in given.items() if x is not None}
            facts = {
                "model": fingerprint(self._model),
                "settings": self._settings.model_dump(),
                "fields": list(self._fields),
                "making": making,
                "sound": {"first": sound.first, "resampled_from": sound.resampled_from, "ended": sound.ended},
                "prompt": None if self._pipeline.prompt is None else self._pipeline.prompt.words,
            }
            return SessionState({name: x.detach().clone() for name, x in tensors.items()}, facts)

    @classmethod
    def resumed(cls, pipeline: Pipeline, state: SessionState) -> Session:
        """Open a session that goes on from a state as if it had never stopped, to the bit on a CPU.

        What was made before the state can no longer be undone.

        Raises:
            UserError: it is of another model, or damaged.
        """
        tensors, facts = state.tensors, checked_facts(state.facts)
        if facts.model != fingerprint(pipeline.model):
            raise UserError("the saved session is of another model; take it up with the one that it was made with")
        words = None if pipeline.prompt is None else pipeline.prompt.words
        if facts.prompt != words:
            raise UserError(f"the saved session was told {facts.prompt!r}, the model {words!r}; give it that prompt")
        given = _given(pipeline, tensors)
        session = cls(pipeline, **given, **dict(facts.settings), fields=tuple(facts.fields))
        sound = ("sound.pushed", "sound.heard")
        wanted = session.state().tensors | session._making.wanted(facts.making.latent)
        wanted |= {name: torch.zeros(tensors[name].numel()) for name in sound if name in tensors}  # of any length
        check_tensors(tensors, wanted)
        session._making.restore(tensors, facts.making.latent)
        heard = SoundState(tensors["sound.pushed"], tensors["sound.heard"], **dict(facts.sound))
        session._sound.restore(heard, session.frame)
        return session

    def _next_count(self) -> int:
        """Latent frames of the next chunk; 0 if it cannot be made yet."""
        known = self._sound.known
        if self._sound.ended:
            total = latent_length(known) if known else 0
            return max(0, min(self._chunk, total - self._making.latent))
        return self._chunk if pixel_length(self._making.latent + self._chunk) + self._future <= known else 0

    def _audio(self, count: int) -> Tensor:
        """Return what the chunk's frames and the lookahead hear, ``[1, C + L, 4, D]``.

        Slots of the lookahead that the model does not hear are zeros: the last latent frame need not be whole.
        """
        first, end = self._making.latent, self._making.latent + count + lookahead_frames(self._future)
        begin, heard = pixels_of_latent(first)[0], pixel_length(first + count) + self._future
        if self._sound.ended:
            heard = min(pixel_length(end), self._sound.known)
            end = latent_length(heard)
        features_PD = self._sound.features(begin, heard)
        missing = pixel_length(end) - heard
        features_PD = torch.cat([features_PD, features_PD.new_zeros(missing, features_PD.shape[1])])
        slots_TSD = to_slots(features_PD) if first == 0 else features_PD.unflatten(0, (-1, SLOTS))
        return slots_TSD[None]

    def _given_chunk(self, count: int) -> GivenChunk | None:
        """What is given of the next chunk; nothing once the track ends within it."""
        if self._given is None or self._motion_TSD is None:
            return None
        raw = self._motion_TSD[:, self._making.latent : self._making.latent + count]
        return self._given.chunk(raw) if raw.shape[1] == count else None


def _given(pipeline: Pipeline, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return portrait and motion of a saved session.

    Raises:
        UserError: they are not what the model takes.
    """
    held = {name: x for name, x in tensors.items() if name.startswith("given.")}
    blank = None if pipeline.vae is None else np.zeros((pipeline.size, pipeline.size, 3), np.uint8)
    wanted = {f"given.{name}": x for name, x in pipeline.encoded(blank, cropped=True)._asdict().items()}
    layout, track = pipeline.model.config.structure_layout, held.get("given.motion")
    if track is not None:
        dim = 0 if layout is None else layout.dim
        wanted["given.motion"] = torch.zeros(1, max(1, track.shape[1] if track.ndim > 1 else 0), SLOTS, dim)
    check_tensors(held, {name: x for name, x in wanted.items() if x is not None})
    motion = None if track is None else Motion(from_slots(track)[0].numpy(), layout)
    return {"portrait": EncodedPortrait(held.get("given.latent"), held.get("given.tokens")), "motion": motion}


def _motion(model: DualForce, motion: Motion | None, fields: tuple[str, ...]) -> Tensor | None:
    """Return a track as slots ``[1, T, 4, D]``, as many latent frames as are whole.

    Raises:
        UserError: it does not fit the model, or the model could not go on after it.
    """
    if model.config.structure_given == "always":
        raise UserError(
            "the model takes structure as a condition and makes none, and a session outlasts any motion; take a model "
            "that makes its own structure"
        )
    if not isinstance(motion, Motion | None):
        raise UserError(f"motion must be a Motion, not {type(motion).__name__}; df_models.motion.read_motion reads one")
    if motion is None:
        if fields:
            raise UserError("fields name what to give of a motion, but there is no motion; give one")
        return None
    return motion_slots(motion, model.config, valid_pixel_length(len(motion.structure_PD)), "the given motion")


def _live_rollout(pipeline: Pipeline, rollout: RolloutConfig) -> RolloutConfig:
    """Return settings that a live session can have.

    Raises:
        UserError: they make whole clips, or take the structure from elsewhere.
    """
    check_levels(pipeline.model.config, rollout)
    check_guidance(pipeline.model.config, rollout, pipeline.trained)
    warn_of_latency(pipeline.model.config, rollout, pipeline.trained)
    if rollout.chunk is None:
        raise UserError("a live session makes chunks, and rollout.chunk=null makes a whole clip; give chunk=1")
    if rollout.structure_from is not None:
        raise UserError(
            f"rollout.structure_from={rollout.structure_from}: a live session cannot take its structure from another "
            "model; use one that makes its own"
        )
    return rollout
