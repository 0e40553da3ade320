"""From latents to what is seen: frames and structure at the pixel rate, one latent frame at a time.

Shape legend: H, W pixels, P pixel frames, C latent frames of a chunk, S = 4 slots, D structure entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from df_infer.rollout import Rollout
from df_infer.sampling.steps import Decoding, Steps
from df_models import DualForce
from df_models.encoders import DecoderSession, VideoVAE
from df_models.encoders.base import DecoderState
from df_models.time import SLOTS


class GeneratedClip(NamedTuple):
    """A piece of the result.

    Attributes:
        frames: uint8 ``[P, H, W, 3]``; without pixels from a model that has no video.
        structure: float32 ``[P, D_s]`` in its own units (degrees for angles); of width 0 without structure.
    """

    frames: np.ndarray
    structure: np.ndarray


class ClipDecoder:
    """One stream being decoded; in constant memory, however long it is.

    Args:
        vae: None for a model without video.
    """

    def __init__(self, model: DualForce, vae: VideoVAE | None) -> None:
        self._model, self._vae = model, vae
        self._session: DecoderSession | None = None if vae is None else vae.decoder_session()

    def clips(self, chunk: Rollout) -> Iterator[GeneratedClip]:
        """Yield the frames of a chunk of one sample, a latent frame at a time; chunks come in their order."""
        return (clip for (clip,) in self.batches(chunk))

    def batches(self, chunk: Rollout) -> Iterator[list[GeneratedClip]]:
        """Yield the frames of a chunk, of every sample, a latent frame at a time."""
        for index, motions in self._motions(chunk):
            pixels = None
            if self._session is not None:
                with record_function("df: decode"):
                    pixels = self._session.decode(chunk.video[:, index : index + 1])
            yield _clips(pixels, motions)

    def by_steps(self, chunk: Rollout) -> Steps[list[GeneratedClip]]:
        """Return the frames of a chunk of one sample, decoded with those of others (:mod:`df_infer.sampling.steps`)."""
        clips = []
        for index, motions in self._motions(chunk):
            pixels = None
            if self._session is not None and self._vae is not None:
                pixels = yield Decoding(self._vae, self._session, chunk.video[:, index : index + 1])
            clips += _clips(pixels, motions)
        return clips

    def _motions(self, chunk: Rollout) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield each latent frame's place in the chunk, and every sample's structure at the pixel rate."""
        structure_BCSD = self._model.denormalize_structure(chunk.structure).float().cpu()
        for index in range(chunk.structure.shape[1]):
            first = chunk.frame + index == 0
            yield index, [_pixel_rate(structure_CSD[index], first) for structure_CSD in structure_BCSD]

    def state(self) -> DecoderState:
        """Return what the stream remembers."""
        return {} if self._session is None else self._session.state()

    def wanted(self, latent_BChw: Tensor) -> DecoderState:
        """Return tensors of the names and shapes that a state has after latent frames of this size."""
        if self._vae is None:
            return {}
        stream = self._vae.decoder_session()
        stream.decode(torch.zeros_like(latent_BChw)[:, None])
        return stream.state()

    def restore(self, state: DecoderState) -> None:
        """Go on from a state of :meth:`state`."""
        if self._session is not None:
            self._session.restore(state)


def _clips(pixels_BPCHW: Tensor | None, motions: list[np.ndarray]) -> list[GeneratedClip]:
    """Return every sample's frames; without pixels, of no size."""
    if pixels_BPCHW is None:
        return [GeneratedClip(np.zeros((len(motion), 0, 0, 3), np.uint8), motion) for motion in motions]
    return [GeneratedClip(_to_uint8(frames), motion) for frames, motion in zip(pixels_BPCHW, motions, strict=True)]


def _to_uint8(pixels_PCHW: Tensor) -> np.ndarray:
    return (pixels_PCHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _pixel_rate(structure_SD: Tensor, first: bool) -> np.ndarray:
    return structure_SD[SLOTS - 1 if first else 0 :].numpy()
