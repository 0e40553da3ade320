"""One generation in progress: the model, its cache and the last frame's structure; denoises chunk after chunk.

Shape legend: B batch, C latent frames of a chunk, L lookahead, S = 4 slots, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from df_infer.config import RolloutConfig
from df_infer.sampling.blinks import natural_blinks
from df_infer.sampling.drive import GivenChunk
from df_infer.sampling.guidance import check_guidance, combined, guidance_scales
from df_infer.sampling.noise import FrameNoise
from df_infer.sampling.schedule import make_schedule, per_frame
from df_infer.sampling.steps import Asked, Steps, alone, evaluating
from df_models import DualForce
from df_models.errors import UserError
from df_models.flow import euler_step, expand_sigma, heun_step, interpolate
from df_models.model.cache import Mark
from df_models.model.together import StepCall
from df_models.model.tower import Noise


class Pair(NamedTuple):
    """Something of both streams: states, velocities or noise levels."""

    video: Tensor
    structure: Tensor


class Levels(NamedTuple):
    """The noise levels of one denoising step.

    Attributes:
        sigma: of both streams, ``[B, C]``.
        repeated: of all copies of the batch.
        noise: what the model's layers read of these.
    """

    sigma: Pair
    repeated: Pair
    noise: Noise


class Moment(NamedTuple):
    """A moment of a generation, to come back to: see :meth:`Sampler.moment`."""

    cache: Mark
    structure: Tensor | None


class Sampler:
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
        self.blinks = natural_blinks(model, config.blinks, noise)
        self.schedule = make_schedule(config, model.config.sigma_structure_max)
        self.reference = reference_latent.to(self.device, torch.float32)
        check_guidance(model.config, config)
        self.scales = guidance_scales(config)
        self.copies = 1 + len(self.scales)
        self.heard: dict[str, Any] = {}
        self._levels_made: dict[tuple[object, ...], Levels] = {}
        self.previous_structure: Tensor | None = None
        self.held: GivenChunk | None = None
        batch, _, height, width = self.reference.shape
        aligned = 0 if config.start == "reference" else -1
        aligned_B = torch.full((batch * self.copies,), aligned, dtype=torch.long, device=self.device)
        with evaluating(model):
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

    def next_chunk(
        self,
        audio: Tensor,
        frame: int,
        count: int,
        *,
        given: GivenChunk | None = None,
        heard_B: Tensor | None = None,
        last: bool = False,
    ) -> Pair:
        """Denoise latent frames ``frame .. frame+count-1`` and return them.

        They are written into the cache, unless they are the ``last`` and no frame will read it.

        Args:
            heard_B: slots that each sample hears ahead, where its audio ends before that of the others.
        """
        with evaluating(self.model):
            return alone(self.chunk(audio, frame, count, given=given, heard_B=heard_B, last=last))

    def chunk(
        self,
        audio: Tensor,
        frame: int,
        count: int,
        *,
        given: GivenChunk | None = None,
        heard_B: Tensor | None = None,
        last: bool = False,
    ) -> Steps[Pair]:
        """:meth:`next_chunk` by steps of the model, which others may make together with those of other generations."""
        self.heard = {} if self.config.audio_future is None else {"audio_future": self.config.audio_future}
        if heard_B is not None:
            self.heard = {"audio_future": torch.cat([heard_B.to(self.device)] * self.copies)}
        pinned = 1 if frame == 0 and self.config.start == "reference" else 0
        audio = self._audio_input(audio)
        self.held = given if self.blinks is None else self.blinks.added(given, frame, count, self.device)
        self.heard["heard"] = self.model.hear(audio, self.cache, frame=frame, count=count, **self.heard)
        start = self._with_given(self._start_state(frame, count, pinned))
        finished = yield from self._denoise(start, audio, frame, pinned)
        if not last:
            yield from self._write(finished, audio, frame)
        self.previous_structure = finished.structure[:, -1:, -1:]
        return finished

    def moment(self, count: int) -> Moment:
        """Remember this moment, before the next chunk of ``count`` latent frames."""
        return Moment(self.cache.mark(count), self.previous_structure)

    def rewind(self, moment: Moment) -> None:
        """Come back to a moment from right after its chunk; several are taken back from the latest to the earliest."""
        self.cache.rewind(moment.cache)
        self.previous_structure = moment.structure

    def state(self) -> dict[str, Tensor]:
        """Return all that the next chunk depends on beside the settings, by name."""
        held = {"audio_past": self.cache.audio_past_BAF}
        for place, ring in enumerate(self.cache.rings):
            held |= {f"{place}.keys": ring.keys, f"{place}.values": ring.values}
        return held if self.previous_structure is None else held | {"structure": self.previous_structure}

    def wanted(self, length: int) -> dict[str, Tensor]:
        """Return tensors of the names and shapes that a state has after so many latent frames."""
        batch, dim = len(self.reference), self.model.config.stream_entries
        structure = torch.zeros(batch, 1, 1, dim, device=self.device)
        return {**self.state(), **({"structure": structure} if length else {})}

    def restore(self, state: Mapping[str, Tensor], length: int) -> None:
        """Go on after ``length`` latent frames from a state of a generation with the same model and settings."""
        self.cache.audio_past_BAF.copy_(state["audio_past"])
        for place, ring in enumerate(self.cache.rings):
            ring.keys.copy_(state[f"{place}.keys"])
            ring.values.copy_(state[f"{place}.values"])
        self.cache.length, self.cache.plan = length, None
        structure = state.get("structure")
        self.previous_structure = None if structure is None else structure.to(self.device)

    def _start_state(self, frame: int, count: int, pinned: int) -> Pair:
        batch, channels, height, width = self.reference.shape
        dim = self.model.config.stream_entries
        noise = self._draw(frame, count, "video", (channels, height, width))
        video = torch.cat([self.reference[:, None].expand(-1, pinned, -1, -1, -1), noise[:, pinned:]], dim=1)
        structure_noise = self._draw(frame, count, "structure", (4, dim))
        guess = self.previous_structure
        if guess is None:
            guess = torch.zeros(batch, 1, 1, dim, device=self.device)
        sigma = per_frame(self.schedule.structure[0], batch, count).to(self.device)
        return Pair(video, interpolate(guess.expand_as(structure_noise), structure_noise, sigma))

    def _denoise(self, state: Pair, audio: Tensor, frame: int, pinned: int) -> Steps[Pair]:
        count = state.video.shape[1]
        pairs = zip(self.schedule.video.tolist(), self.schedule.structure.tolist())
        levels = [self._levels(video, structure, count, pinned) for video, structure in pairs]
        if "structure" in self.scales:
            self.unknown = self._draw(frame, count, "unknown_structure", tuple(state.structure.shape[2:]))
        for now, then in pairwise(levels):
            velocity = yield from self._velocity(state, now, audio, frame)
            sigmas = now.sigma, then.sigma
            ahead = Pair(*(euler_step(x, v, s, t) for x, v, s, t in zip(state, velocity, *sigmas)))
            if self.config.solver == "heun" and then is not levels[-1]:
                second = yield from self._velocity(self._with_given(ahead), then, audio, frame)
                ahead = Pair(*(_corrected(*each) for each in zip(state, velocity, second, *sigmas)))
            state = self._with_given(ahead)
        return state

    def _levels(self, video: float, structure: float, count: int, pinned: int, *, context: bool = False) -> Levels:
        """Return the noise levels of a step for ``count`` latent frames; the structure's is 0 where all of it is given.

        The model embeds them once: every chunk goes through the same.
        """
        whole = self.held is not None and self.held.known_V is None
        key = video, 0.0 if whole else structure, count, pinned, context
        if key not in self._levels_made:
            batch = len(self.reference)
            sigma = Pair(
                per_frame(torch.tensor(key[0]), batch, count, pinned).to(self.device),
                per_frame(torch.tensor(key[1]), batch, count).to(self.device),
            )
            unknown = sigma.structure if context else torch.ones_like(sigma.structure)
            repeated = Pair(self._copies(sigma.video), self._copies(sigma.structure, structure=unknown))
            self._levels_made[key] = Levels(sigma, repeated, self.model.embed_noise(*repeated))
        return self._levels_made[key]

    def _with_given(self, state: Pair) -> Pair:
        return state if self.held is None else state._replace(structure=self.held.held(state.structure))

    def _known(self, *, context: bool) -> dict[str, Any]:
        """What the model is told of entries that are given within noisy frames."""
        if self.held is None or self.held.known_V is None:
            return {}
        known = self.held.known_V.expand_as(self.held.structure)
        unknown = known if context else torch.zeros_like(known)
        return {"structure_known": self._copies(known, structure=unknown)}

    def _velocity(self, state: Pair, levels: Levels, audio: Tensor, frame: int) -> Steps[Pair]:
        unknown = {"structure": self.unknown} if "structure" in self.scales else {}
        inputs = Pair(self._copies(state.video), self._copies(state.structure, **unknown))
        raw = yield from self._step(inputs, levels, audio, frame)
        video, structure = (stream.chunk(self.copies) for stream in raw)
        # the structure is not asked what it would be without itself
        without = [copy for copy, condition in zip(structure[1:], self.scales) if condition != "structure"]
        scales = [scale for condition, scale in self.scales.items() if condition != "structure"]
        return Pair(combined(*video, scales=self.scales.values()), combined(structure[0], *without, scales=scales))

    def _write(self, finished: Pair, audio: Tensor, frame: int) -> Steps[None]:
        count = finished.video.shape[1]
        levels = self._levels(self.config.context_noise, self.config.context_noise, count, 0, context=True)
        context = finished
        if self.config.context_noise > 0:
            named = zip(("context_video", "context_structure"), finished)
            noise = (self._draw(frame, count, name, tuple(x.shape[2:])) for name, x in named)
            context = self._with_given(Pair(*(interpolate(x, n, s) for x, n, s in zip(finished, noise, levels.sigma))))
        yield from self._step(Pair(*(self._copies(x) for x in context)), levels, audio, frame, write=True)

    def _step(self, inputs: Pair, levels: Levels, audio: Tensor, frame: int, *, write: bool = False) -> Steps[Pair]:
        streams = inputs.video.to(self.dtype), inputs.structure.to(self.dtype), audio
        call = StepCall(*streams, *levels.repeated, self.cache, frame, write, noise=levels.noise)
        velocity = yield Asked(self.model, call._replace(**self.heard, **self._known(context=write)))
        return Pair(velocity.video.float(), velocity.structure.float())

    def _draw(self, frame: int, count: int, stream: str, shape: tuple[int, ...]) -> Tensor:
        return self.noise.draw(frame, count, stream, shape).to(self.device)

    def _model_input(self, x: Tensor) -> Tensor:
        """Move to the model's device and dtype; the batch stands once, and again without each guided condition."""
        return self._copies(x.to(self.device, self.dtype))

    def _without(self, condition: str, x: Tensor) -> Tensor:
        """:meth:`_model_input` of a condition: zeros in the copy of the batch that lacks it."""
        x = x.to(self.device, self.dtype)
        return self._copies(x, **{condition: torch.zeros_like(x)})

    def _copies(self, x: Tensor, **without: Tensor) -> Tensor:
        """The batch once, and once more for each guided condition: what stands in for ``x`` without it, if given."""
        return torch.cat([x, *(without.get(condition, x) for condition in self.scales)])

    def _audio_input(self, audio: Tensor) -> Tensor:
        if len(audio) != len(self.reference):
            raise UserError(f"audio for {len(audio)} samples does not fit {len(self.reference)} portraits")
        return self._without("audio", audio)


def _corrected(x: Tensor, velocity: Tensor, second: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Return Heun's step, but Euler's wherever a stream becomes clean: no velocity is learnt at sigma 0."""
    mean_of = torch.where(expand_sigma(sigma_next, x) > 0, second, velocity)
    return heun_step(x, velocity, mean_of, sigma, sigma_next)
