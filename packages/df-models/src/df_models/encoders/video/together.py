"""The next latent frames of several streams decoded in one batch: each with what its own stream remembers.

The streams' states are laid one after the other along the batch, and divided again. A batch changes how sums are
rounded, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from df_models.encoders.base import DecoderSession, DecoderState, VideoVAE

MOST_BYTES = 64 << 20
"""Of one stream's state: what it takes to copy a larger one, twice for each latent frame, was not measured to pay."""

_log = logging.getLogger(__name__)


def decode_together(
    vae: VideoVAE, streams: Sequence[DecoderSession], latents: Sequence[Tensor]
) -> list[Tensor | Exception]:
    """Return what :meth:`DecoderSession.decode` of each stream returns; an exception where it would raise one.

    Streams go into one batch that remember the same things in the same sizes: not those at their first frame with
    others. What a batch cannot do is tried one by one, so that one that fails fails alone.

    Args:
        streams: different ones of ``vae``.
        latents: of each, ``[B, T, 16, h, w]``.
    """
    batches: dict[Hashable, list[int]] = {}
    for place, (stream, frames) in enumerate(zip(streams, latents, strict=True)):
        batches.setdefault(_kind(stream.state(), frames) or place, []).append(place)
    found: dict[int, Tensor | Exception] = {}
    for places in batches.values():
        of, given = [streams[place] for place in places], [latents[place] for place in places]
        found |= zip(places, _batch(vae, of, given), strict=True)
    return [found[place] for place in range(len(streams))]


def _kind(state: DecoderState, latents: Tensor) -> Hashable:
    """What streams of one batch have in common; None for one whose state is too large."""
    if sum(held.numel() * held.element_size() for held in state.values()) > MOST_BYTES:
        return None
    return latents.shape[1:], tuple((name, held.shape[1:], held.dtype) for name, held in state.items())


def _batch(vae: VideoVAE, streams: list[DecoderSession], latents: list[Tensor]) -> list[Tensor | Exception]:
    if len(streams) > 1:
        try:
            pixels, states = _together(vae, [stream.state() for stream in streams], latents)
        except Exception as error:
            _log.warning("%d streams could not be decoded in one batch: %s", len(streams), error)
        else:
            for stream, state in zip(streams, states, strict=True):
                stream.restore(state)
            return pixels
    return [_alone(stream, frames) for stream, frames in zip(streams, latents, strict=True)]


def _alone(stream: DecoderSession, latents: Tensor) -> Tensor | Exception:
    try:
        return stream.decode(latents)
    except Exception as error:
        return error


def _together(
    vae: VideoVAE, states: list[DecoderState], latents: list[Tensor]
) -> tuple[list[Tensor | Exception], Sequence[DecoderState]]:
    """Return each stream's pixels, and what it remembers then, in memory of its own."""
    session, sizes = vae.decoder_session(), [len(frames) for frames in latents]
    session.restore({name: torch.cat([state[name] for state in states]) for name in states[0]})
    pixels = session.decode(torch.cat(latents)).split(sizes)
    divided = {name: held.split(sizes) for name, held in session.state().items()}
    parts = [{name: held[place].clone() for name, held in divided.items()} for place in range(len(sizes))]
    return list(pixels), parts
