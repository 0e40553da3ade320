"""Autoregressive generation: video and structure are denoised together, chunk by chunk, with a KV cache.

For each chunk the solver takes both streams from noise to clean, reading the cache; then one more pass with the
finished frames writes them into the cache, once. Noise is keyed by (seed, sample, latent frame, stream), so what is
generated does not depend on how the audio arrives, on the batch or on the device's random state. Memory and time
per frame do not depend on how much was generated before.

Shape legend: B batch, T latent frames, C latent frames of a chunk, L lookahead, S = 4 slots, D features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from df_infer.audio_feed import AudioFeed, lookahead_frames
from df_infer.config import RolloutConfig
from df_infer.drive import Drive, GivenChunk, GivenStructure, check_lengths, check_makes_structure
from df_infer.noise import FrameNoise
from df_infer.schedule import make_schedule, per_frame
from df_infer.whole_clip import check_levels, whole_clip
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.flow import euler_step, expand_sigma, guided, heun_step, interpolate
from df_models.text import pad_text

__all__ = ["Rollout", "RolloutConfig", "generate_latents", "stream_latents"]


class Rollout(NamedTuple):
    """Generated latents, normalised as the model sees them; a stream that the model lacks has width 0.

    Attributes:
        video: ``[B, T, 16, h, w]`` float32.
        structure: ``[B, T, 4, D_s]`` float32.
        frame: absolute index of the first latent frame.
    """

    video: Tensor
    structure: Tensor
    frame: int = 0


class _Pair(NamedTuple):
    """Something of both streams: states, velocities or noise levels."""

    video: Tensor
    structure: Tensor


@torch.no_grad()
def stream_latents(
    model: DualForce,
    audio: Tensor | Iterable[Tensor],
    reference_latent: Tensor | None = None,
    reference_tokens: Tensor | None = None,
    text: Tensor | None = None,
    *,
    config: RolloutConfig,
    seed: int = 0,
    sample_ids: Sequence[int] | None = None,
    drive: Drive | None = None,
) -> Iterator[Rollout]:
    """Generate for as long as the audio lasts; yield each chunk as soon as it is clean.

    Args:
        model: a trained model; it is run in eval mode and its mode is put back.
        audio: pooled features ``[B, T, 4, D_a]``, or an iterable of such pieces as they arrive; a model that hears
            nothing takes pieces of width 0, which say how long to generate.
        reference_latent: the portrait encoded alone, ``[B, 16, h, w]``; None for a model without video.
        reference_tokens: ``[B, N, D_r]`` if the model takes them.
        text: encoded prompts ``[B, L, D_t]``, L <= 512, if the model reads text (and only then); rows after a prompt
            are zeros, and more are appended up to 512.
        config: see :class:`RolloutConfig`.
        seed: keys all noise.
        sample_ids: the batch's own keys (default 0..B-1): a sample keeps its noise in any batch it stands in.
        drive: structure that is given, whole or in named fields; the rest is generated.

    Yields:
        One :class:`Rollout` per chunk; together they have as many latent frames as the audio.

    Raises:
        UserError: shapes that do not fit the model or each other, or a drive that it did not learn to be given.
    """
    reference_latent = reference_input(model.config, reference_latent, audio, sample_ids)
    ids = list(range(len(reference_latent))) if sample_ids is None else list(sample_ids)
    if len(ids) != len(reference_latent):
        raise UserError(f"{len(ids)} sample ids do not fit a batch of {len(reference_latent)} portraits")
    text = text_input(model.config, text, config)
    future = heard_ahead(model.config, config)
    check_levels(model.config, config)
    last = config.chunk is None
    if last:
        audio, config = whole_clip(audio, config)
        check_levels(model.config, config.model_copy(update={"chunk": None}), config.window)
    sampler = _Sampler(model, reference_latent, reference_tokens, text, config, FrameNoise(seed, ids))
    if drive is None:
        check_makes_structure(model.config)
    else:
        check_lengths(drive, audio)
        sampler.given = GivenStructure(model, drive, len(ids), sampler.device)
    feed = AudioFeed(audio, lookahead_frames(future))
    frame = 0
    assert config.chunk is not None
    while (taken := feed.take(config.chunk)) is not None:
        audio_CL, count = taken
        finished = sampler.next_chunk(audio_CL, frame, count, last=last)
        yield Rollout(finished.video, finished.structure, frame)
        frame += count


def generate_latents(
    model: DualForce,
    audio: Tensor | Iterable[Tensor],
    reference_latent: Tensor | None = None,
    reference_tokens: Tensor | None = None,
    text: Tensor | None = None,
    *,
    config: RolloutConfig,
    seed: int = 0,
    sample_ids: Sequence[int] | None = None,
    drive: Drive | None = None,
) -> Rollout:
    """Collect :func:`stream_latents` into one :class:`Rollout` of all frames."""
    chunks = list(
        stream_latents(
            model,
            audio,
            reference_latent,
            reference_tokens,
            text,
            config=config,
            seed=seed,
            sample_ids=sample_ids,
            drive=drive,
        )
    )
    if not chunks:
        raise UserError("there is no audio to generate from")
    return Rollout(torch.cat([c.video for c in chunks], dim=1), torch.cat([c.structure for c in chunks], dim=1))


def reference_input(
    model: DualForceConfig,
    reference_latent: Tensor | None,
    audio: Tensor | Iterable[Tensor],
    sample_ids: Sequence[int] | None,
) -> Tensor:
    """Return the portraits ``[B, 16, h, w]``, of width 0 for a model without video.

    Raises:
        UserError: the model makes video and there is none, or the other way round.
    """
    if model.has_video:
        if reference_latent is None:
            raise UserError("the model makes video, and needs a portrait (reference_latent)")
        return reference_latent
    if reference_latent is not None:
        raise UserError("a portrait was given, but the model makes structure alone (streams=structure); leave it out")
    batch = len(audio) if isinstance(audio, Tensor) else 1
    return torch.zeros(batch if sample_ids is None else len(sample_ids), 0, 0, 0)


def text_input(model: DualForceConfig, text: Tensor | None, config: RolloutConfig) -> Tensor | None:
    """Return the text as the model reads it, ``[B, 512, D_t]``, or None if it reads none.

    Raises:
        UserError: the model reads text and there is none, or the other way round; guidance on a text not read.
    """
    if model.text_dim and text is None:
        raise UserError("the model reads text, but there is none; give a prompt (df-infer generate --prompt '...')")
    if not model.text_dim and (text is not None or config.text_guidance != 1.0):
        what = "a text was given" if text is not None else f"text_guidance is {config.text_guidance}"
        raise UserError(f"{what}, but the model reads no text (text_dim=0); leave it out")
    return None if text is None else pad_text(text)


def heard_ahead(model: DualForceConfig, config: RolloutConfig) -> int:
    """Return how many slots of audio are heard ahead of each latent frame.

    Raises:
        UserError: more are asked for than the model can hear.
    """
    if not model.hears and (config.audio_future or config.audio_guidance != 1.0):
        told = "audio_future" if config.audio_future else "audio_guidance"
        raise UserError(f"rollout.{told} is given, but the model hears no audio; leave it out")
    if config.audio_future is None:
        return model.audio_future if model.hears else 0
    if config.audio_future > model.audio_future:
        raise UserError(
            f"rollout.audio_future={config.audio_future}, but the model hears {model.audio_future} slots ahead; give 0 "
            f"to {model.audio_future}, or null"
        )
    return config.audio_future


class _Sampler:
    """The state of one rollout: the model, its cache and the last frame's structure."""

    def __init__(
        self,
        model: DualForce,
        reference_latent: Tensor,
        reference_tokens: Tensor | None,
        text: Tensor | None,
        config: RolloutConfig,
        noise: FrameNoise,
    ) -> None:
        parameter = next(model.parameters())
        self.model, self.config, self.noise = model, config, noise
        self.device, self.dtype = parameter.device, parameter.dtype
        self.schedule = make_schedule(config, model.config.sigma_structure_max)
        self.reference = reference_latent.to(self.device, torch.float32)
        scales = {"audio": config.audio_guidance, "text": config.text_guidance}
        self.scales = {condition: scale for condition, scale in scales.items() if scale != 1.0}
        self.copies = 1 + len(self.scales)
        self.heard: dict[str, Any] = {} if config.audio_future is None else {"audio_future": config.audio_future}
        self.previous_structure: Tensor | None = None
        self.given: GivenStructure | None = None
        self.held: GivenChunk | None = None
        batch, _, height, width = self.reference.shape
        aligned = 0 if config.start == "reference" else -1
        aligned_B = torch.full((batch * self.copies,), aligned, dtype=torch.long, device=self.device)
        with _evaluating(model):
            self.cache = model.new_cache(
                batch * self.copies,
                height,
                width,
                config.window,
                config.sinks,
                reference_latent=self._model_input(self.reference),
                reference_tokens=None if reference_tokens is None else self._model_input(reference_tokens),
                text=None if text is None else self._without("text", text),
                reference_frame=aligned_B,
                device=self.device,
                dtype=self.dtype,
            )

    def next_chunk(self, audio: Tensor, frame: int, count: int, last: bool = False) -> _Pair:
        """Denoise latent frames ``frame .. frame+count-1``, write them into the cache (unless no frame will read it)
        and return them.
        """
        pinned = 1 if frame == 0 and self.config.start == "reference" else 0
        audio = self._audio_input(audio)
        self.held = None if self.given is None else self.given.take(count)
        with _evaluating(self.model):
            start = self._with_given(self._start_state(frame, count, pinned))
            finished = self._denoise(start, audio, frame, pinned)
            if not last:
                self._write(finished, audio, frame)
        self.previous_structure = finished.structure[:, -1:, -1:]
        return finished

    def _start_state(self, frame: int, count: int, pinned: int) -> _Pair:
        batch, channels, height, width = self.reference.shape
        dim = self.model.config.stream_entries
        noise = self._draw(frame, count, "video", (channels, height, width))
        video = torch.cat([self.reference[:, None].expand(-1, pinned, -1, -1, -1), noise[:, pinned:]], dim=1)
        structure_noise = self._draw(frame, count, "structure", (4, dim))
        guess = self.previous_structure
        if guess is None:
            guess = torch.zeros(batch, 1, 1, dim, device=self.device)
        sigma = per_frame(self.schedule.structure[0], batch, count).to(self.device)
        return _Pair(video, interpolate(guess.expand_as(structure_noise), structure_noise, sigma))

    def _denoise(self, state: _Pair, audio: Tensor, frame: int, pinned: int) -> _Pair:
        levels = [self._levels(step, state, pinned) for step in range(self.schedule.steps + 1)]
        for now, then in pairwise(levels):
            velocity = self._velocity(state, now, audio, frame)
            ahead = _Pair(*(euler_step(x, v, s, t) for x, v, s, t in zip(state, velocity, now, then)))
            if self.config.solver == "heun" and then is not levels[-1]:
                second = self._velocity(self._with_given(ahead), then, audio, frame)
                ahead = _Pair(*(_corrected(*each) for each in zip(state, velocity, second, now, then)))
            state = self._with_given(ahead)
        return state

    def _levels(self, step: int, state: _Pair, pinned: int) -> _Pair:
        batch, count = state.video.shape[:2]
        video = per_frame(self.schedule.video[step], batch, count, pinned)
        structure = per_frame(self.schedule.structure[step], batch, count)
        return _Pair(video.to(self.device), self._structure_level(structure.to(self.device)))

    def _structure_level(self, sigma_BC: Tensor) -> Tensor:
        """Return the structure's noise level: 0 where all of it is given."""
        whole = self.held is not None and self.held.known_V is None
        return torch.zeros_like(sigma_BC) if whole else sigma_BC

    def _with_given(self, state: _Pair) -> _Pair:
        return state if self.held is None else state._replace(structure=self.held.held(state.structure))

    @property
    def _known(self) -> dict[str, Any]:
        """What the model is told of entries that are given within noisy frames."""
        if self.held is None or self.held.known_V is None:
            return {}
        known = self.held.known_V.expand_as(self.held.structure)
        return {"structure_known": torch.cat([known] * self.copies)}

    def _velocity(self, state: _Pair, sigma: _Pair, audio: Tensor, frame: int) -> _Pair:
        raw = self._step(state, sigma, audio, frame, write=False)
        return _Pair(*(combined(*stream.chunk(self.copies), scales=self.scales.values()) for stream in raw))

    def _write(self, finished: _Pair, audio: Tensor, frame: int) -> None:
        batch, count = finished.video.shape[:2]
        sigma = per_frame(torch.tensor(self.config.context_noise), batch, count).to(self.device)
        levels = _Pair(sigma, self._structure_level(sigma))
        context = finished
        if self.config.context_noise > 0:
            named = zip(("context_video", "context_structure"), finished)
            noise = (self._draw(frame, count, name, tuple(x.shape[2:])) for name, x in named)
            context = self._with_given(_Pair(*(interpolate(x, n, s) for x, n, s in zip(finished, noise, levels))))
        self._step(context, levels, audio, frame, write=True)

    def _step(self, state: _Pair, sigma: _Pair, audio: Tensor, frame: int, write: bool) -> _Pair:
        velocity = self.model.step(
            self._model_input(state.video),
            self._model_input(state.structure),
            audio,
            torch.cat([sigma.video] * self.copies),
            torch.cat([sigma.structure] * self.copies),
            self.cache,
            frame=frame,
            write=write,
            **self.heard,
            **self._known,
        )
        return _Pair(velocity.video.float(), velocity.structure.float())

    def _draw(self, frame: int, count: int, stream: str, shape: tuple[int, ...]) -> Tensor:
        return self.noise.draw(frame, count, stream, shape).to(self.device)

    def _model_input(self, x: Tensor) -> Tensor:
        """Move to the model's device and dtype; the batch stands once, and again without each guided condition."""
        return torch.cat([x.to(self.device, self.dtype)] * self.copies)

    def _without(self, condition: str, x: Tensor) -> Tensor:
        """:meth:`_model_input` of a condition: zeros in the copy of the batch that lacks it."""
        x = x.to(self.device, self.dtype)
        return torch.cat([x, *(torch.zeros_like(x) if left == condition else x for left in self.scales)])

    def _audio_input(self, audio: Tensor) -> Tensor:
        if len(audio) != len(self.reference):
            raise UserError(f"audio for {len(audio)} samples does not fit {len(self.reference)} portraits")
        return self._without("audio", audio)


def combined(conditional: Tensor, *without: Tensor, scales: Iterable[float]) -> Tensor:
    """Return the prediction with all conditions, and what guidance on each adds to it.

    ``v + sum_i (s_i - 1) (v - v_i)``, with v_i the prediction without condition i.
    """
    total = conditional
    for other, scale in zip(without, scales, strict=True):
        total = total + (guided(conditional, other, scale) - conditional)
    return total


def _corrected(x: Tensor, velocity: Tensor, second: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Return Heun's step, but Euler's wherever a stream becomes clean: no velocity is learnt at sigma 0."""
    mean_of = torch.where(expand_sigma(sigma_next, x) > 0, second, velocity)
    return heun_step(x, velocity, mean_of, sigma, sigma_next)


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
