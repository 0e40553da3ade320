"""One protocol per role of a frozen encoder.

Shape legend: B batch, T latent frames, P = 1 + 4 (T - 1) pixel frames, C = 16 latent channels, H, W pixels,
h = H/8, w = W/8, N samples of 16 kHz sound, D features, K reference tokens.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class DecoderSession(Protocol):
    """One stream of latent frames being decoded; holds the decoder's causal state, so many can run at once."""

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode the next latent frames to ``[B, P, 3, H, W]`` in [0, 1]: 1 pixel frame for the first, then 4 each."""
        ...


@runtime_checkable
class VideoVAE(Protocol):
    """Pixels to latents and back, causal in time. Latents are normalised by the VAE's own mean and std.

    Attributes:
        id: name to write into manifests and configs.
        sha256: hash of the weights file that was loaded.
        licence: SPDX name of the weights' licence.
    """

    id: str
    sha256: str
    licence: str

    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode ``[B, P, 3, H, W]`` in [0, 1] to normalised latents ``[B, T, 16, h, w]``, float32."""
        ...

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Encode single pictures ``[B, 3, H, W]`` in [0, 1], each alone, to ``[B, 16, h, w]``, float32."""
        ...

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode normalised latents ``[B, T, 16, h, w]`` to ``[B, P, 3, H, W]`` in [0, 1], float32."""
        ...

    def decoder_session(self) -> DecoderSession:
        """Start decoding a stream, some latent frames at a time; bit-equal to :meth:`decode` of the whole."""
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> VideoVAE:
        """Move the weights; returns itself."""
        ...


@runtime_checkable
class AudioEncoder(Protocol):
    """Sound to features at 50 Hz: exactly two per pixel frame.

    Attributes:
        dim: width of a feature.
        pool: how the model pools two features to one slot (:func:`df_models.time.pool_audio`).
    """

    id: str
    sha256: str
    licence: str
    dim: int
    pool: Literal["mean", "concat"]

    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> Tensor:
        """Encode 16 kHz mono sound to ``[2 * num_pixel_frames, dim]``, float32. Missing sound is silence."""
        ...


@runtime_checkable
class ReferenceEncoder(Protocol):
    """The reference picture to a few tokens that the video tower attends to in every layer."""

    id: str
    sha256: str
    licence: str
    dim: int
    num_tokens: int

    def encode(self, reference_latent_BChw: Tensor) -> Tensor:
        """Encode the reference's latent ``[B, 16, h, w]`` to tokens ``[B, num_tokens, dim]``, float32."""
        ...
