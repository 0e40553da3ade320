"""One protocol per role of a frozen encoder.

Shape legend: B batch, T latent frames, P = 1 + 4 (T - 1) pixel frames, C = 16 latent channels, H, W pixels,
h = H/8, w = W/8, N samples of 16 kHz audio, D features, K reference tokens, L text tokens.

Every encoder has an ``id`` (its name in configs and manifests), the ``sha256`` of the weights that it was loaded from,
and the ``licence`` of those weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from df_models.encoders.registry import AudioWindow
from df_models.structure import VectorLayout

DecoderState = Mapping[str, Tensor]
"""What a stream through a decoder remembers, by name. Empty before its start."""


class DecoderSession(Protocol):
    """One stream of latent frames being decoded; holds the decoder's causal state, so many can run at once."""

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode the next latent frames to ``[B, P, 3, H, W]`` in [0, 1]: 1 pixel frame for the first, then 4 each."""
        ...

    def state(self) -> DecoderState:
        """Return what the stream remembers; later calls leave it as it is."""
        ...

    def restore(self, state: DecoderState) -> None:
        """Go on from a state of this stream, or of another of the same VAE."""
        ...


class EncoderSession(Protocol):
    """One stream of pixel frames being encoded; holds the encoder's causal state, so many can run at once."""

    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode the next ``[B, P, 3, H, W]`` in [0, 1] to ``[B, T, 16, h, w]``.

        The stream's first call takes 1 + 4 n pixel frames, every other 4 n; a latent frame comes for the first pixel
        frame and for every four after it.
        """
        ...


@runtime_checkable
class VideoVAE(Protocol):
    """Pixels to latents and back, causal in time. Latents are normalised by the VAE's own mean and std."""

    id: str
    sha256: str
    licence: str

    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode ``[B, P, 3, H, W]`` in [0, 1] to normalised latents ``[B, T, 16, h, w]``, float32."""
        ...

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Encode single images ``[B, 3, H, W]`` in [0, 1], each alone, to ``[B, 16, h, w]``, float32."""
        ...

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode normalised latents ``[B, T, 16, h, w]`` to ``[B, P, 3, H, W]`` in [0, 1], float32."""
        ...

    def decoder_session(self) -> DecoderSession:
        """Start decoding a stream, some latent frames at a time; bit-equal to :meth:`decode` of the whole."""
        ...

    def encoder_session(self) -> EncoderSession:
        """Start encoding a stream, some pixel frames at a time; bit-equal to :meth:`encode` of the whole."""
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights; returns itself. Latents and pixels stay float32."""
        ...


@runtime_checkable
class AudioEncoder(Protocol):
    """Audio to features at 50 Hz: exactly two per pixel frame.

    Attributes:
        id: with the window in it, where the encoder has one (``hubert-large@4+2``).
        dim: width of a feature.
        pool: how a model pools two features to one slot unless it says otherwise (:func:`df_models.time.pool_audio`).
        lookahead_s: seconds of audio after a pixel frame that its features may depend on; None: all of it.
        window: on what grid it is shown a recording; None: a pixel frame's features depend on less than a frame around
            it (or, without ``lookahead_s``, on everything).
    """

    id: str
    sha256: str
    licence: str
    dim: int
    pool: Literal["mean", "concat"]
    lookahead_s: float | None
    window: AudioWindow | None

    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> Tensor:
        """Encode a recording of 16 kHz mono audio to ``[2 * num_pixel_frames, dim]``, float32.

        Missing audio is silence, audio past the end is not heard.
        """
        ...

    def encode_span(self, wave_N: np.ndarray, num_pixel_frames: int, first: int, last: int) -> Tensor:
        """Return the features of pixel frames ``first .. last - 1``, ``[2 * (last - first), dim]``, float32.

        They are those of :meth:`encode` at the cost of these frames, save the last bits.
        """
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights, if there are any; returns itself. Outputs are float32, where the weights are."""
        ...


@runtime_checkable
class ReferenceEncoder(Protocol):
    """The reference image to a few tokens that the video tower attends to in every layer."""

    id: str
    sha256: str
    licence: str
    dim: int
    num_tokens: int

    def encode(self, image_BCHW: Tensor, latent_BChw: Tensor) -> Tensor:
        """Encode images ``[B, 3, H, W]`` in [0, 1] and their latents ``[B, 16, h, w]``: each encoder reads one.

        Returns:
            Tokens ``[B, num_tokens, dim]``, float32.
        """
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights, if there are any; returns itself. Outputs are float32, where the weights are."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to the features that text cross-attention reads."""

    id: str
    sha256: str
    licence: str
    dim: int
    num_tokens: int

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts to ``[B, num_tokens, dim]``, float32, with zero rows past each prompt's length."""
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights, if there are any; returns itself. Outputs are float32, where the weights are."""
        ...


@runtime_checkable
class FaceEncoder(Protocol):
    """Face crops to one vector each: the motion (LivePortrait) or FLAME parameters (DECA, EMOCA) of the face.

    Attributes:
        layout: names of the vector's fields.
        size: side of the crop in pixels.
        crop_scale: side of the crop as a multiple of the larger side of the face's box.
        crop_offset_y: shift of the crop's centre, in sides of the crop, downward positive.
    """

    id: str
    sha256: str
    licence: str
    layout: VectorLayout
    size: int
    crop_scale: float
    crop_offset_y: float

    def encode(self, faces_BCHW: Tensor) -> Tensor:
        """Encode crops ``[B, 3, size, size]`` in [0, 1] to raw vectors ``[B, layout.dim]``, float32."""
        ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights, if there are any; returns itself. Outputs are float32, where the weights are."""
        ...
