"""Several clips made at once: one batch through the model, each as it would be alone.

Noise is keyed by each clip's own seed, and a clip whose audio ends sooner hears no more of what is not there than it
would alone; the batch only changes how sums are rounded.

Shape legend: B clips, C latent frames of a chunk, L lookahead, S = 4 slots, D features, N samples.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from df_infer.clip_decoder import ClipDecoder, GeneratedClip
from df_infer.hearing.speech import audio_pieces
from df_infer.pipeline import EncodedPortrait, Pipeline, pool_of
from df_infer.rollout import Rollout, RolloutConfig, heard_ahead, reference_input, text_input, warn_of_latency
from df_infer.sampling.audio_feed import AudioFeed, lookahead_frames
from df_infer.sampling.drive import check_makes_structure
from df_infer.sampling.guidance import check_guidance
from df_infer.sampling.noise import FrameNoise
from df_infer.sampling.sampler import Sampler
from df_infer.sampling.whole_clip import check_levels
from df_models.time import SLOTS, latent_length


@dataclass(frozen=True)
class Wanted:
    """One clip to make: its portrait as the model reads it, what the model hears, pixel frames (1 + 4 n), seed."""

    portrait: EncodedPortrait
    heard_N: np.ndarray
    num_frames: int
    seed: int


@torch.no_grad()
def stream_together(
    pipeline: Pipeline, clips: Sequence[Wanted], rollout: RolloutConfig
) -> Generator[list[GeneratedClip | None], None, None]:
    """Yield the next latent frame of every clip; None for a clip that is done.

    Clips of different lengths go together where frames are made one latent frame at a time; others must be alike.

    Raises:
        UserError: the model cannot make clips in this way.
    """
    model, config = pipeline.model, pipeline.model.config
    check_levels(config, rollout)
    check_guidance(config, rollout, pipeline.trained)
    check_makes_structure(config)
    warn_of_latency(config, rollout, pipeline.trained)
    assert rollout.chunk is not None and rollout.structure_from is None, "refused before"
    assert rollout.chunk == 1 or len({clip.num_frames for clip in clips}) == 1
    future = heard_ahead(config, rollout)
    reference = reference_input(config, _stacked([c.portrait.latent for c in clips]), torch.zeros(0), range(len(clips)))
    text = None if pipeline.prompt is None else pipeline.prompt.features_LD.expand(len(clips), -1, -1)
    noise = FrameNoise([clip.seed for clip in clips], [0] * len(clips))
    tokens = _stacked([clip.portrait.tokens for clip in clips])
    sampler = Sampler(model, reference, tokens, text_input(config, text), rollout, noise)
    decoder, lookahead = ClipDecoder(model, pipeline.vae), lookahead_frames(future)
    lengths = [latent_length(clip.num_frames) for clip in clips]
    feeds = [_feed(pipeline, clip, lookahead) for clip in clips]
    with pipeline.ahead(_chunks(sampler, feeds, max(lengths), future)) as chunks:
        for chunk in chunks:
            for index, batch in enumerate(decoder.batches(chunk)):
                yield [clip if chunk.frame + index < length else None for clip, length in zip(batch, lengths)]


@torch.no_grad()
def _chunks(sampler: Sampler, feeds: list[AudioFeed], length: int, future: int) -> Iterator[Rollout]:
    """Yield the latents of all clips, chunk by chunk, as far as the longest."""
    config, chunk, frame = sampler.model.config, sampler.config.chunk, 0
    assert chunk is not None, "refused before"
    while frame < length:
        audio, ahead_B = _heard(feeds, chunk, config.audio_dim)
        alike = bool((ahead_B == ahead_B[0]).all())  # then what is not there is not there for any of them
        heard_B = None if alike or not config.hears else ahead_B.clamp_max(future)
        made = sampler.next_chunk(audio, frame, min(chunk, length - frame), heard_B=heard_B)
        yield Rollout(made.video, made.structure, frame)
        frame += chunk


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _feed(pipeline: Pipeline, clip: Wanted, lookahead: int) -> AudioFeed:
    pool = pool_of(pipeline.model.config)
    return AudioFeed(audio_pieces(pipeline.audio_encoder, clip.heard_N, clip.num_frames, pool), lookahead)


def _heard(feeds: list[AudioFeed], chunk: int, width: int) -> tuple[Tensor, Tensor]:
    """Return what the next chunk hears ``[B, C + L, 4, D]``, and how many slots each clip has after its own frames.

    What a clip lacks, at its end or after it, is zeros.
    """
    taken = [feed.take(chunk) for feed in feeds]
    pieces = [torch.zeros(chunk, SLOTS, width) if piece is None else piece[0][0] for piece in taken]
    ahead = [0 if piece is None else SLOTS * (piece[0].shape[1] - piece[1]) for piece in taken]
    return pad_sequence(pieces, batch_first=True), torch.tensor(ahead)
