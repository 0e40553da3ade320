"""The Wan 2.1 video VAE (diffusers' ``AutoencoderKLWan``), driven one latent frame at a time.

diffusers keeps the causal feature caches in the module, so one module can serve one stream only. Here each stream
(:class:`WanDecoderSession`) owns its caches, and whole clips go through the same path: streaming is bit-equal.

Shape legend: B batch, T latent frames, P pixel frames, C latent channels, H, W pixels, h = H/8, w = W/8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.time import SPATIAL_STRIDE, TEMPORAL_STRIDE, latent_length

ASSETS = Path(__file__).parent / "assets"
WEIGHTS = "diffusion_pytorch_model.safetensors"

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


class WanVAE:
    """A frozen ``AutoencoderKLWan``: see :class:`df_models.encoders.base.VideoVAE` for the protocol."""

    def __init__(self, vae: Any, *, name: str, sha256: str, licence: str) -> None:
        self.id, self.sha256, self.licence = name, sha256, licence
        self.module = vae.eval().requires_grad_(False)
        self._set_statistics()

    @classmethod
    def load(cls, name_or_path: str) -> WanVAE:
        """Load ``df-tiny``, a local directory of diffusers' layout, or a Hub id (``owner/name``).

        Raises:
            UserError: a file is missing or does not fit; the message names it and says how to get it.
        """
        embedded = ASSETS / name_or_path
        if "/" not in name_or_path and (embedded / WEIGHTS).is_file():
            return cls._from_directory(embedded, name_or_path, "Apache-2.0")
        directory = Path(name_or_path)
        if directory.is_dir():
            return cls._from_directory(directory, name_or_path, "as its source states")
        if name_or_path.count("/") != 1 or directory.is_absolute():
            names = sorted(path.parent.name for path in ASSETS.glob(f"*/{WEIGHTS}"))
            raise UserError(
                f"no video VAE {name_or_path!r}: give an embedded name ({', '.join(names) or 'none is built in'}), "
                f"a directory with config.json and {WEIGHTS}, or a Hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            )
        return cls._from_directory(_download(name_or_path), name_or_path, "Apache-2.0 (Wan 2.1)")

    @classmethod
    def random(cls, seed: int) -> WanVAE:
        """Return a VAE of ``df-tiny``'s shape with seeded random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = new_autoencoder(TINY_CONFIG)
        return cls(vae, name=f"random-{seed}", sha256=f"random-{seed}", licence="Apache-2.0")

    @classmethod
    def _from_directory(cls, directory: Path, name: str, licence: str) -> WanVAE:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for file in ("config.json", WEIGHTS):
            if not (directory / file).is_file():
                raise UserError(f"the video VAE in {directory} lacks {file}; copy the whole `vae` folder of the model")
        config = json.loads((directory / "config.json").read_text())
        settings = {key: value for key, value in config.items() if not key.startswith("_")}
        try:
            vae = new_autoencoder(settings)
            vae.load_state_dict({key: value.float() for key, value in load_file(directory / WEIGHTS).items()})
        except (SafetensorError, RuntimeError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"{directory / WEIGHTS} does not fit its config.json ({first}); fetch it again") from error
        return cls(vae, name=name, sha256=sha256_file(directory / WEIGHTS), licence=licence)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> WanVAE:
        """Move the weights to a device or dtype; latents and pixels stay float32 outside."""
        torch.nn.Module.to(self.module, device=device, dtype=dtype)
        self._set_statistics()
        return self

    @torch.no_grad()
    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode ``[B, P, 3, H, W]`` in [0, 1] to normalised latents ``[B, T, 16, h, w]``, float32.

        Raises:
            UserError: P is not 1 + 4 n, or H or W is not a multiple of 8.
        """
        num_latent = latent_length(video_BPCHW.shape[1])
        if video_BPCHW.shape[3] % SPATIAL_STRIDE or video_BPCHW.shape[4] % SPATIAL_STRIDE:
            raise UserError(f"the picture size {tuple(video_BPCHW.shape[3:])} is not a multiple of {SPATIAL_STRIDE}")
        moments = encode_moments(self.module, self._cast(video_BPCHW * 2 - 1).transpose(1, 2), num_latent)
        mean_BCThw = moments.chunk(2, dim=1)[0].float()
        return ((mean_BCThw - self._mean) / self._std).transpose(1, 2)

    def encode_image(self, image_BCHW: Tensor) -> Tensor:
        """Encode single pictures ``[B, 3, H, W]`` in [0, 1], each alone, to ``[B, 16, h, w]``."""
        return self.encode(image_BCHW[:, None])[:, 0]

    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode normalised latents ``[B, T, 16, h, w]`` to ``[B, P, 3, H, W]`` in [0, 1], float32."""
        return self.decoder_session().decode(latents_BTChw)

    def decoder_session(self) -> WanDecoderSession:
        """Start decoding a stream; sessions are independent of each other."""
        return WanDecoderSession(self)

    def raw_latents(self, latents_BTChw: Tensor) -> Tensor:
        """Undo the normalisation, in the module's dtype and layout ``[B, 16, T, h, w]``."""
        return self._cast(latents_BTChw.transpose(1, 2).float().to(self._mean.device) * self._std + self._mean)

    def _cast(self, x: Tensor) -> Tensor:
        parameter = next(self.module.parameters())
        return x.to(device=parameter.device, dtype=parameter.dtype)

    def _set_statistics(self) -> None:
        device = next(self.module.parameters()).device
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(self.module.config.latents_mean, device=device).view(shape)
        self._std = torch.tensor(self.module.config.latents_std, device=device).view(shape)


class WanDecoderSession:
    """One stream through the decoder. Its causal state has a fixed size, however long the stream is."""

    def __init__(self, vae: WanVAE) -> None:
        self._vae = vae
        self._cache: list[Any] = [None] * _causal_convs(vae.module.decoder)
        self._first = True

    @torch.no_grad()
    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode the next latent frames; the first of the stream gives 1 pixel frame, any other gives 4."""
        raw = self._vae.raw_latents(latents_BTChw)
        pieces = []
        for frame_BC1hw in raw.split(1, dim=2):
            pieces.append(decode_frames(self._vae.module, frame_BC1hw, self._cache, first=self._first))
            self._first = False
        return ((torch.cat(pieces, dim=2).float().clamp(-1, 1) + 1) / 2).transpose(1, 2)


def encode_moments(vae: Any, video_BCPHW: Tensor, num_latent: int, *, at_once: int = 1) -> Tensor:
    """Return the posterior's mean and log variance ``[B, 32, T, h, w]`` of ``[B, 3, P, H, W]`` in [-1, 1].

    Frames go in as the VAE was trained: 1, then 4 at a time, with causal feature caches. ``at_once`` latent frames
    share a call after the first: the same values but for rounding, faster, in more memory.
    """
    patches = _patchify(video_BCPHW, vae.config.patch_size)
    cache: list[Any] = [None] * _causal_convs(vae.encoder)
    chunks = patches[:, :, :1], *patches[:, :, 1:].split(TEMPORAL_STRIDE * at_once, dim=2)
    outputs = [vae.encoder(chunk, feat_cache=cache, feat_idx=[0]) for chunk in chunks if chunk.shape[2]]
    moments = vae.quant_conv(torch.cat(outputs, dim=2))
    assert moments.shape[2] == num_latent
    return moments


def decode_latents(vae: Any, latents_BCThw: Tensor, *, at_once: int = 1) -> Tensor:
    """Decode a clip's latent frames (not normalised) to ``[B, 3, P, H, W]``: the first alone, then ``at_once`` each."""
    cache: list[Any] = [None] * _causal_convs(vae.decoder)
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


def _patchify(x: Tensor, patch: int | None) -> Tensor:
    return x if patch is None else rearrange(x, "b c t (h p) (w q) -> b (c q p) t h w", p=patch, q=patch)


def _unpatchify(x: Tensor, patch: int | None) -> Tensor:
    return x if patch is None else rearrange(x, "b (c q p) t h w -> b c t (h p) (w q)", p=patch, q=patch)


def _causal_convs(module: torch.nn.Module) -> int:
    return sum(type(child).__name__ == "WanCausalConv3d" for child in module.modules())


def new_autoencoder(settings: Mapping[str, Any]) -> Any:
    """Return a freshly initialised ``AutoencoderKLWan`` with these settings of its configuration."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan(**settings)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        root = Path(snapshot_download(hub_id, allow_patterns=["vae/*", "config.json", WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"the video VAE {hub_id!r} cannot be fetched from the Hub ({type(error).__name__}); "
            f"download its `vae` folder elsewhere and give the local path"
        ) from error
    return root / "vae" if (root / "vae").is_dir() else root
