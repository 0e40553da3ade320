"""Wan's video VAE as the project's frozen encoder and decoder, driven one latent frame at a time.

Each stream (:class:`WanEncoderSession`, :class:`WanDecoderSession`) owns what its causal convolutions remember, and
whole clips go through the same path: streaming is bit-equal.

Shape legend: B batch, T latent frames, P pixel frames, C latent channels, H, W pixels, h = H/8, w = W/8.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from df_models.encoders.base import DecoderState
from df_models.encoders.video.stream import Stream, StreamedVAE
from df_models.encoders.video.wan_autoencoder import WAN_MEAN, WAN_STD, WanAutoencoder
from df_models.encoders.video.wan_layers import Memory, suit_device
from df_models.encoders.video.wan_vae_files import (
    EMBEDDED,
    UNNAMED,
    WAN,
    WEIGHTS,
    new_autoencoder,
    read_autoencoder,
)
from df_models.encoders.weights import Origin, locate
from df_models.errors import UserError, nearest

ASSETS = Path(__file__).parent / "assets"

TINY_CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "decoder_base_dim": 16,
    "z_dim": 16,
    "dim_mult": [2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "is_residual": True,
    "latents_mean": [0.0] * 16,
    "latents_std": [1.0] * 16,
}
"""``df-tiny``: Wan 2.2's form of the VAE (2x2 pixel patches in front, shortcuts around each scale) with Wan 2.1's
latents: three scales give 16 channels and the stride 4x8x8."""


class WanVAE(StreamedVAE):
    """A frozen Wan VAE: see :class:`df_models.encoders.base.VideoVAE` for the protocol."""

    def __init__(self, vae: WanAutoencoder, *, name: str, sha256: str, licence: str) -> None:
        self.id, self.sha256, self.licence = name, sha256, licence
        self.module = vae.eval().requires_grad_(False)
        self._settle()

    @classmethod
    def load(cls, name_or_path: str) -> WanVAE:
        """Load ``df-tiny``, what :meth:`read` takes, or a Hub id (``owner/name``).

        Raises:
            UserError: a file is missing or does not fit; the message names it and says how to get it.
        """
        embedded = ASSETS / name_or_path
        if "/" not in name_or_path and (embedded / WEIGHTS).is_file():
            return cls.read(EMBEDDED, embedded, name_or_path)
        if "/" not in name_or_path and not Path(name_or_path).exists():
            close = nearest(name_or_path, embedded_names())
            raise UserError(f"no video VAE {name_or_path!r}{close}: {UNNAMED.how_to_get}")
        origin = replace(UNNAMED, name=name_or_path)
        return cls.read(origin, locate(origin, name_or_path), name_or_path)

    @classmethod
    def read(cls, origin: Origin, path: Path, name: str) -> WanVAE:
        """Read the VAE at ``path`` (:func:`~df_models.encoders.video.wan_vae_files.read_autoencoder`) as ``name``.

        Raises:
            UserError: a file is missing or damaged, or does not fit.
        """
        vae, sha256 = read_autoencoder(origin, path)
        return cls(vae, name=name, sha256=sha256, licence=origin.licence)

    @classmethod
    def random(cls, seed: int) -> WanVAE:
        """Return a VAE of ``df-tiny``'s shape with seeded random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = new_autoencoder(TINY_CONFIG)
        return cls(vae, name=f"random-{seed}", sha256=f"random-{seed}", licence="Apache-2.0")

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> WanVAE:
        """Move the weights to a device or dtype; latents and pixels stay float32 outside."""
        torch.nn.Module.to(self.module, device=device, dtype=dtype)
        self._settle()
        return self

    def encoder_session(self) -> WanEncoderSession:
        """Start encoding a stream; sessions are independent of each other."""
        return WanEncoderSession(self)

    def decoder_session(self) -> WanDecoderSession:
        """Start decoding a stream; sessions are independent of each other."""
        return WanDecoderSession(self)

    def raw_pixels(self, video_BPCHW: Tensor) -> Tensor:
        """Stretch pixels to [-1, 1], in the module's dtype and layout ``[B, 3, P, H, W]``."""
        return self._cast(video_BPCHW.transpose(1, 2).float() * 2 - 1)

    def raw_latents(self, latents_BTChw: Tensor) -> Tensor:
        """Undo the normalisation, in the module's dtype and layout ``[B, 16, T, h, w]``."""
        return self._cast(latents_BTChw.transpose(1, 2).float().to(self._mean.device) * self._std + self._mean)

    def normalised(self, latents_BCThw: Tensor) -> Tensor:
        """Normalise the module's own latents to ``[B, T, 16, h, w]``, float32."""
        return ((latents_BCThw.float() - self._mean) / self._std).transpose(1, 2)

    def _cast(self, x: Tensor) -> Tensor:
        parameter = next(self.module.parameters())
        return x.to(device=parameter.device, dtype=parameter.dtype)

    def _settle(self) -> None:
        suit_device(self.module)
        device = next(self.module.parameters()).device
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(self.module.config.latents_mean, device=device).view(shape)
        self._std = torch.tensor(self.module.config.latents_std, device=device).view(shape)


class WanEncoderSession:
    """One stream through the encoder. Its causal state has a fixed size, however long the stream is."""

    def __init__(self, vae: WanVAE) -> None:
        self._vae, self._stream = vae, Stream()
        self._memory = Memory()

    @torch.no_grad()
    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode the next pixel frames: 1 + 4 n at first, then 4 n; a latent frame for the first and every 4 more.

        Raises:
            UserError: another number of frames, a size that is no multiple of 8, or another than the stream's.
        """
        stream, memory, latents = copy(self._stream), Memory(self._memory.held), []
        for frames in stream.split_pixels(video_BPCHW):
            moments = self._vae.module.encode_frames(self._vae.raw_pixels(frames), memory)
            latents.append(self._vae.normalised(moments.chunk(2, dim=1)[0]))
        self._stream, self._memory = stream, memory  # a call that fails changes nothing
        return torch.cat(latents, dim=1)


class WanDecoderSession:
    """One stream through the decoder. Its causal state has a fixed size, however long the stream is."""

    def __init__(self, vae: WanVAE) -> None:
        self._vae, self._stream = vae, Stream()
        self._memory = Memory()

    @torch.no_grad()
    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode the next latent frames; the first of the stream gives 1 pixel frame, any other gives 4.

        Raises:
            UserError: there is none, or it is of another size than the stream's.
        """
        stream, memory = copy(self._stream), Memory(self._memory.held)
        frames = stream.split_latents(latents_BTChw)
        pieces = [self._vae.module.decode_frames(self._vae.raw_latents(frame), memory) for frame in frames]
        self._stream, self._memory = stream, memory  # a call that fails changes nothing
        return ((torch.cat(pieces, dim=2).float().clamp(-1, 1) + 1) / 2).transpose(1, 2)

    def state(self) -> dict[str, Tensor]:
        """Return what the stream remembers: by convolution, its last frames."""
        return {str(place): held for place, held in enumerate(self._memory.held)}

    def restore(self, state: DecoderState) -> None:
        """Go on from a state of this stream, or of another of the same VAE."""
        self._memory = Memory([state[str(place)] for place in range(len(state))])
        self._stream = Stream(started=bool(state))


def embedded_names() -> tuple[str, ...]:
    """Return the names of the VAEs that the package carries."""
    return tuple(sorted(path.parent.name for path in ASSETS.glob(f"*/{WEIGHTS}")))


def load(name: str, location: str | None) -> WanVAE:
    """Load Wan 2.1's own VAE, in diffusers' layout or as ``Wan2.1_VAE.pth``; its name stands for its latents too.

    Raises:
        UserError: it cannot be found, does not fit, or has other latents than Wan 2.1's.
    """
    path = locate(WAN, location)
    vae = WanVAE.read(WAN, path, name)
    if (vae.module.config.latents_mean, vae.module.config.latents_std) != (WAN_MEAN, WAN_STD):
        raise UserError(
            f"{path} is not Wan 2.1's VAE: its latents have another mean or std; name it by its folder alone, {path}"
        )
    return vae
