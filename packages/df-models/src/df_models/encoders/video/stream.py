"""What the video VAEs share: whole clips by way of streams, and the checks and divisions of a stream.

Shape legend: B batch, T latent frames, P pixel frames, C = 16 latent channels, H, W pixels, h = H/8, w = W/8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from df_models.encoders.base import DecoderSession, EncoderSession
from df_models.errors import UserError
from df_models.time import SPATIAL_STRIDE, TEMPORAL_STRIDE, latent_length

IMAGE_CHANNELS = 3
LATENT_CHANNELS = 16


class StreamedVAE(ABC):
    """Whole clips through a VAE's streams, so that clip and stream are the same to the bit."""

    @abstractmethod
    def encoder_session(self) -> EncoderSession:
        """Start encoding a stream."""

    @abstractmethod
    def decoder_session(self) -> DecoderSession:
        """Start decoding a stream."""

    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode ``[B, P, 3, H, W]`` in [0, 1] to normalised latents ``[B, T, 16, h, w]``, float32.

        Raises:
            UserError: P is not 1 + 4 n, or H or W is not a multiple of 8.
        """
        return self.encoder_session().encode(video_BPCHW)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Encode single images ``[B, 3, H, W]`` in [0, 1], each alone, to ``[B, 16, h, w]``."""
        return self.encode(image_BCHW[:, None])[:, 0]

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode normalised latents ``[B, T, 16, h, w]`` to ``[B, P, 3, H, W]`` in [0, 1], float32."""
        return self.decoder_session().decode(latents_BTChw)


class Stream:
    """How far one stream is and what it consists of. Its first call fixes the batch and the image's size.

    Attributes:
        started: whether the first frame is past.
    """

    def __init__(self, *, started: bool = False) -> None:
        self.started = started
        self._shape: tuple[int, ...] | None = None

    def split_pixels(self, video_BPCHW: Tensor) -> list[Tensor]:
        """Divide ``[B, P, 3, H, W]`` into what each latent frame covers: 1 pixel frame at the start, then 4 each.

        Raises:
            UserError: P is not 1 + 4 n (4 n after the first call), H or W is not a multiple of 8, or the shape is
                another than the stream's.
        """
        self._check(video_BPCHW, "pixel frames [B, P, 3, H, W]", IMAGE_CHANNELS)
        count, height, width = (video_BPCHW.shape[axis] for axis in (1, 3, 4))
        if height % SPATIAL_STRIDE or width % SPATIAL_STRIDE:
            raise UserError(f"the image size {(height, width)} is not a multiple of {SPATIAL_STRIDE}")
        sizes = _later_groups(count) if self.started else _first_groups(count)
        self._keep(video_BPCHW)
        return list(video_BPCHW.split(sizes, dim=1))

    def split_latents(self, latents_BTChw: Tensor) -> list[Tensor]:
        """Divide ``[B, T, 16, h, w]`` into single latent frames.

        Raises:
            UserError: there is none, or the shape is another than the stream's.
        """
        self._check(latents_BTChw, "latent frames [B, T, 16, h, w]", LATENT_CHANNELS)
        if latents_BTChw.shape[1] == 0:
            raise UserError("there is no latent frame to decode; give at least one")
        self._keep(latents_BTChw)
        return list(latents_BTChw.split(1, dim=1))

    def _check(self, frames: Tensor, wanted: str, channels: int) -> None:
        if frames.ndim != 5 or frames.shape[2] != channels:
            raise UserError(f"a tensor of shape {list(frames.shape)} holds no {wanted}")
        if self._shape is not None and self._shape != _without_time(frames):
            raise UserError(
                f"frames of shape {list(_without_time(frames))} cannot continue a stream of {list(self._shape)}; "
                f"start another session for them"
            )

    def _keep(self, frames: Tensor) -> None:
        self._shape, self.started = _without_time(frames), True


def _first_groups(count: int) -> list[int]:
    return [1] + [TEMPORAL_STRIDE] * (latent_length(count) - 1)


def _later_groups(count: int) -> list[int]:
    if count == 0 or count % TEMPORAL_STRIDE:
        near = max(count // TEMPORAL_STRIDE, 1) * TEMPORAL_STRIDE
        raise UserError(
            f"{count} pixel frames do not continue a stream, which takes 1 + 4 n at first and then 4 n; "
            f"use {near} or {near + TEMPORAL_STRIDE}"
        )
    return [TEMPORAL_STRIDE] * (count // TEMPORAL_STRIDE)


def _without_time(frames: Tensor) -> tuple[int, ...]:
    return (frames.shape[0], *frames.shape[2:])
