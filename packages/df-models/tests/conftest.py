"""Small models of every preset's structure, and random clips for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from df_models import DualForce, preset_config

Clip = dict[str, Any]

NARROW = {
    "dim": 48,
    "num_layers": 3,
    "num_heads": 2,
    "ffn_dim": 64,
    "structure_width": 32,
    "structure_layers": 3,
    "structure_heads": 2,
    "structure_ffn_dim": 48,
    "fusion_depth": 2,
    "bridge_width": 32,
    "bridge_heads": 2,
    "audio_width": 24,
    "audio_heads": 2,
    "audio_dim": 6,
    "reference_dim": 8,
    "reference_tokens": 5,
    "reference_width": 16,
    "freq_dim": 32,
    "structure_dim": 10,
    "flame_dim": 7,
    "flame_width": 8,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def narrow_model(preset: str = "quickstart", *, opened: bool = True, seed: int = 0, **overrides: Any) -> DualForce:
    """Build a preset with every width shrunk; ``opened`` also fills what starts at zero (gates, heads, biases)."""
    values = {**NARROW, **({"text_dim": 12} if preset_config(preset).text_dim else {}), **overrides}
    torch.manual_seed(seed)
    model = DualForce.from_preset(preset, **values).eval()
    if opened:
        open_zeros(model)
    return model


def open_zeros(module: nn.Module) -> None:
    """Give every parameter that is all zero random values."""
    for parameter in module.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.2)


def random_clip(
    model: DualForce, frames: int = 5, batch: int = 2, size: tuple[int, int] = (4, 6), seed: int = 1
) -> Clip:
    """Return random inputs of ``model.forward`` by name."""
    config = model.config
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    clip: Clip = {
        "video": randn(batch, frames, config.latent_channels, *size),
        "structure": randn(batch, frames, 4, config.structure_dim),
        "audio": randn(batch, frames, 4, config.audio_dim),
        "sigma_video": torch.rand(batch, frames, generator=generator),
        "sigma_structure": torch.rand(batch, frames, generator=generator),
        "reference_latent": randn(batch, config.latent_channels, *size),
        "reference_frame": torch.arange(batch) - 1,
    }
    if config.reference_dim:
        clip["reference_tokens"] = randn(batch, 7, config.reference_dim)
    if config.text_dim:
        clip["text"] = randn(batch, 9, config.text_dim)
    return clip


CONDITIONS = ("reference_latent", "reference_tokens", "text", "reference_frame")


def cached_rollout(
    model: DualForce, clip: Clip, chunk: int, window: int, sinks: int, **cache_options: Any
) -> tuple[Tensor, Tensor]:
    """Return the velocities of ``clip`` predicted chunk by chunk against the cache, each chunk written at once."""
    batch, frames = clip["video"].shape[:2]
    conditions = {name: clip[name] for name in CONDITIONS if name in clip}
    cache = model.new_cache(batch, *clip["video"].shape[-2:], window, sinks, **conditions, **cache_options)
    outputs = []
    for frame in range(0, frames, chunk):
        part = slice(frame, min(frame + chunk, frames))
        streams = [clip[name][:, part] for name in ("video", "structure")]
        sigmas = [clip[name][:, part] for name in ("sigma_video", "sigma_structure")]
        outputs.append(model.step(*streams, clip["audio"][:, frame:], *sigmas, cache, frame=frame, write=True))
    video, structure = zip(*outputs)
    return torch.cat(video, 1), torch.cat(structure, 1)


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest wanted magnitude."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture
def build() -> Callable[..., DualForce]:
    """:func:`narrow_model`."""
    return narrow_model


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """:func:`random_clip`."""
    return random_clip


@pytest.fixture
def rollout() -> Callable[..., tuple[Tensor, Tensor]]:
    """:func:`cached_rollout`."""
    return cached_rollout


@pytest.fixture
def difference() -> Callable[[Tensor, Tensor], float]:
    """:func:`relative_difference`."""
    return relative_difference


@pytest.fixture
def fill_zeros() -> Callable[[nn.Module], None]:
    """:func:`open_zeros`."""
    return open_zeros
