"""The Wan 2.1 video VAE (diffusers' ``AutoencoderKLWan``), driven one latent frame at a time.

diffusers keeps the causal feature caches in the module, so one module can serve one stream only. Here each stream
(:class:`WanEncoderSession`, :class:`WanDecoderSession`) owns its caches, and whole clips go through the same path:
streaming is bit-equal.

Shape legend: B batch, T latent frames, P pixel frames, C latent channels, H, W pixels, h = H/8, w = W/8.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from df_models.encoders.base import DecoderState
from df_models.encoders.video.convolutions import suit_device
from df_models.encoders.video.stream import Stream, StreamedVAE
from df_models.encoders.video.wan_vae_files import (
    EMBEDDED,
    UNNAMED,
    WAN,
    WEIGHTS,
    new_autoencoder,
    read_autoencoder,
    wan_statistics,
)
from df_models.encoders.weights import Origin, locate
from df_models.errors import UserError, nearest
from df_models.time import TEMPORAL_STRIDE

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
    """A frozen ``AutoencoderKLWan``: see :class:`df_models.encoders.base.VideoVAE` for the protocol."""

    def __init__(self, vae: Any, *, name: str, sha256: str, licence: str) -> None:
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
        self._cache = new_cache(vae.module.encoder)

    @torch.no_grad()
    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode the next pixel frames: 1 + 4 n at first, then 4 n; a latent frame for the first and every 4 more.

        Raises:
            UserError: another number of frames, a size that is no multiple of 8, or another than the stream's.
        """
        latents = []
        for frames in self._stream.split_pixels(video_BPCHW):
            moments = encode_frames(self._vae.module, self._vae.raw_pixels(frames), self._cache)
            latents.append(self._vae.normalised(moments.chunk(2, dim=1)[0]))
        return torch.cat(latents, dim=1)


class WanDecoderSession:
    """One stream through the decoder. Its causal state has a fixed size, however long the stream is."""

    def __init__(self, vae: WanVAE) -> None:
        self._vae, self._stream = vae, Stream()
        self._cache = new_cache(vae.module.decoder)

    @torch.no_grad()
    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode the next latent frames; the first of the stream gives 1 pixel frame, any other gives 4.

        Raises:
            UserError: there is none, or it is of another size than the stream's.
        """
        pieces, first = [], not self._stream.started
        for frame in self._stream.split_latents(latents_BTChw):
            pieces.append(decode_frames(self._vae.module, self._vae.raw_latents(frame), self._cache, first=first))
            first = False
        return ((torch.cat(pieces, dim=2).float().clamp(-1, 1) + 1) / 2).transpose(1, 2)

    def state(self) -> dict[str, Tensor | str]:
        """Return what the stream remembers: by convolution, its last frames, or diffusers' word for the first frame."""
        return {str(place): held for place, held in enumerate(self._cache) if held is not None}

    def restore(self, state: DecoderState) -> None:
        """Go on from a state of this stream, or of another of the same VAE."""
        self._cache = [state.get(str(place)) for place in range(len(self._cache))]
        self._stream = Stream(started=bool(state))


def encode_moments(vae: Any, video_BCPHW: Tensor, num_latent: int, *, at_once: int = 1) -> Tensor:
    """Return the posterior's mean and log variance ``[B, 32, T, h, w]`` of ``[B, 3, P, H, W]`` in [-1, 1].

    Frames go in as the VAE was trained: 1, then 4 at a time, with causal feature caches. ``at_once`` latent frames
    share a call after the first: the same values but for rounding, faster, in more memory.
    """
    cache = new_cache(vae.encoder)
    chunks = video_BCPHW[:, :, :1], *video_BCPHW[:, :, 1:].split(TEMPORAL_STRIDE * at_once, dim=2)
    moments = torch.cat([encode_frames(vae, chunk, cache) for chunk in chunks if chunk.shape[2]], dim=2)
    assert moments.shape[2] == num_latent
    return moments


def encode_frames(vae: Any, video_BCPHW: Tensor, cache: list[Any]) -> Tensor:
    """Encode the next pixel frames in [-1, 1] to moments ``[B, 32, T, h, w]``; updates ``cache``.

    The first frame of a stream goes alone, all others four (or a multiple of it) at a time.
    """
    patches = _patchify(video_BCPHW, vae.config.patch_size)
    return vae.quant_conv(vae.encoder(patches, feat_cache=cache, feat_idx=[0]))


def decode_latents(vae: Any, latents_BCThw: Tensor, *, at_once: int = 1) -> Tensor:
    """Decode a clip's latent frames (not normalised) to ``[B, 3, P, H, W]``: the first alone, then ``at_once`` each."""
    cache = new_cache(vae.decoder)
    chunks = latents_BCThw[:, :, :1], *latents_BCThw[:, :, 1:].split(at_once, dim=2)
    pieces = [decode_frames(vae, chunk, cache, first=i == 0) for i, chunk in enumerate(chunks) if chunk.shape[2]]
    return torch.cat(pieces, dim=2)


def decode_frames(vae: Any, latents_BCThw: Tensor, cache: list[Any], *, first: bool) -> Tensor:
    """Decode the next latent frames (not normalised) to ``[B, 3, P, H, W]`` in about [-1, 1]; updates ``cache``.

    The first frame of a stream goes alone and gives 1 pixel frame, every other gives 4.
    """
    assert not first or latents_BCThw.shape[2] == 1
    hidden = vae.post_quant_conv(latents_BCThw)
    pixels = vae.decoder(hidden, feat_cache=cache, feat_idx=[0], first_chunk=first)
    return _unpatchify(pixels, vae.config.patch_size)


def new_cache(module: torch.nn.Module) -> list[Any]:
    """Return the empty state of a stream through an encoder or decoder: one place for each causal convolution."""
    return [None for child in module.modules() if type(child).__name__ == "WanCausalConv3d"]


def _patchify(x: Tensor, patch: int | None) -> Tensor:
    return x if patch is None else rearrange(x, "b c t (h p) (w q) -> b (c q p) t h w", p=patch, q=patch)


def _unpatchify(x: Tensor, patch: int | None) -> Tensor:
    return x if patch is None else rearrange(x, "b (c q p) t h w -> b c t (h p) (w q)", p=patch, q=patch)


def embedded_names() -> tuple[str, ...]:
    """Return the names of the VAEs that the package carries."""
    return tuple(sorted(path.parent.name for path in ASSETS.glob(f"*/{WEIGHTS}")))


def load(name: str, location: str | None) -> WanVAE:
    """Load Wan 2.1's own VAE, in diffusers' layout or as ``Wan2.1_VAE.pth``; its name stands for its latents too.

    Raises:
        UserError: it cannot be found, does not fit, or has other latents than Wan 2.1's.
    """
    statistics = wan_statistics()
    path = locate(WAN, location)
    vae = WanVAE.read(WAN, path, name)
    if (vae.module.config.latents_mean, vae.module.config.latents_std) != statistics:
        raise UserError(
            f"{path} is not Wan 2.1's VAE: its latents have another mean or std; name it by its folder alone, {path}"
        )
    return vae
