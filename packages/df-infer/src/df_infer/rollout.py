"""Autoregressive generation: video and structure are denoised together, chunk by chunk, with a KV cache.

For each chunk the solver takes both streams from noise to clean, reading the cache; then one more pass with the
finished frames writes them into the cache, once. Noise is keyed by (seed, sample, latent frame, stream), so what is
generated does not depend on how the audio arrives, on the batch or on the device's random state. Memory and time
per frame do not depend on how much was generated before.

Shape legend: B batch, T latent frames, C latent frames of a chunk, L lookahead, S = 4 slots, D features.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from df_infer.config import RolloutConfig
from df_infer.run_dir import Trained
from df_infer.sampling.audio_feed import AudioFeed, lookahead_frames
from df_infer.sampling.drive import Drive, GivenStructure, check_lengths, check_makes_structure
from df_infer.sampling.noise import FrameNoise
from df_infer.sampling.sampler import Sampler
from df_infer.sampling.whole_clip import check_levels, whole_clip
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.text import pad_text

__all__ = ["Rollout", "RolloutConfig", "generate_latents", "stream_latents"]

_log = logging.getLogger(__name__)


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
    text = text_input(model.config, text)
    future = heard_ahead(model.config, config)
    check_levels(model.config, config)
    last = config.chunk is None
    if last:
        audio, config = whole_clip(audio, config)
        check_levels(model.config, config.model_copy(update={"chunk": None}), config.window)
    sampler = Sampler(model, reference_latent, reference_tokens, text, config, FrameNoise(seed, ids))
    given = None
    if drive is None:
        check_makes_structure(model.config)
    else:
        check_lengths(drive, audio)
        given = GivenStructure(model, drive, len(ids), sampler.device)
    feed = AudioFeed(audio, lookahead_frames(future))
    frame = 0
    assert config.chunk is not None
    while (taken := feed.take(config.chunk)) is not None:
        audio_CL, count = taken
        held = None if given is None else given.take(count)
        finished = sampler.next_chunk(audio_CL, frame, count, given=held, last=last)
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


def text_input(model: DualForceConfig, text: Tensor | None) -> Tensor | None:
    """Return the text as the model reads it, ``[B, 512, D_t]``, or None if it reads none.

    Raises:
        UserError: the model reads text and there is none, or the other way round.
    """
    if model.text_dim and text is None:
        raise UserError("the model reads text, but there is none; give a prompt (df-infer generate --prompt '...')")
    if not model.text_dim and text is not None:
        raise UserError("a text was given, but the model reads no text (text_dim=0); leave it out")
    return None if text is None else pad_text(text)


def heard_ahead(model: DualForceConfig, config: RolloutConfig) -> int:
    """Return how many slots of audio are heard ahead of each latent frame.

    Raises:
        UserError: more are asked for than the model can hear.
    """
    if not model.hears and config.audio_future:
        raise UserError("rollout.audio_future is given, but the model hears no audio; leave it out")
    if config.audio_future is None:
        return model.audio_future if model.hears else 0
    if config.audio_future > model.audio_future:
        raise UserError(
            f"rollout.audio_future={config.audio_future}, but the model hears {model.audio_future} slots ahead; give 0 "
            f"to {model.audio_future}, or null"
        )
    return config.audio_future


def latency_note(model: DualForceConfig, config: RolloutConfig, trained: Trained) -> str | None:
    """Return a line for the user if less (or, by a student, more) audio is heard ahead than in any clip of training.

    Raises:
        UserError: as :func:`heard_ahead`.
    """
    heard, always = heard_ahead(model, config), model.audio_future
    if trained.distilled:
        always, cure = always if trained.audio_future is None else trained.audio_future, "a student learns one: its own"
    elif trained.shorten_audio == 0:
        cure = "set objective.shorten_audio above 0 to train it for less"
    else:
        return None
    if heard == always or not model.hears:
        return None
    return (
        f"rollout.audio_future={heard}, but in this run's training the model always hears {always} slots ahead; {cure}"
    )


@lru_cache
def _warn_once(note: str) -> None:
    _log.warning(note)


def warn_of_latency(model: DualForceConfig, config: RolloutConfig, trained: Trained) -> None:
    """Log :func:`latency_note`, if there is one, once in a process.

    Raises:
        UserError: as :func:`heard_ahead`.
    """
    if note := latency_note(model, config, trained):
        _warn_once(note)
