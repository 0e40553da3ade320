from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from df_infer.sampling.sampler import Sampler
from df_models import DualForce
from df_models.media import write_image, write_wav
from df_models.structure import SYNTHETIC_70, StructureField, StructureLayout

TINY = {
    "dim": 48,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_dim": 64,
    "structure_width": 32,
    "structure_layers": 2,
    "structure_heads": 2,
    "structure_ffn_dim": 64,
    "fusion_depth": 2,
    "bridge_width": 32,
    "bridge_heads": 2,
    "audio_width": 32,
    "audio_heads": 2,
    "reference_width": 32,
    "flame_dim": 0,
    "video_size": 16,
    "speech_level": -19.6,
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model() -> DualForce:
    """A tiny model with random weights and open gates, so that everything it is given matters."""
    torch.manual_seed(0)
    layout = StructureLayout.of(SYNTHETIC_70, "synthetic")
    built = DualForce.from_preset("quickstart", **TINY, structure_layout=layout)
    with torch.no_grad():
        for parameter in built.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return built.eval()


@pytest.fixture(scope="session")
def told(model: DualForce) -> Callable[..., DualForce]:
    """Makes a model of the same weights that says otherwise how it was trained."""

    def retold(**changes: Any) -> DualForce:
        other = DualForce(replace(model.config, **changes)).eval()
        found = other.load_state_dict(model.state_dict(), strict=False)
        assert not found.unexpected_keys and all(name.endswith("known_embedding") for name in found.missing_keys)
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                if name.endswith("known_embedding"):
                    parameter.normal_(generator=torch.Generator().manual_seed(3))
        return other

    return retold


class Inputs(NamedTuple):
    audio: Tensor
    reference_latent: Tensor
    reference_tokens: Tensor


@pytest.fixture(scope="session")
def inputs() -> Inputs:
    """Audio of 17 latent frames for a batch of two, on 2x2 latents."""
    generator = torch.Generator().manual_seed(1)
    return Inputs(
        torch.randn(2, 17, 4, 128, generator=generator),
        torch.randn(2, 16, 2, 2, generator=generator),
        torch.randn(2, 16, 64, generator=generator),
    )


class Velocity(NamedTuple):
    video: Tensor
    structure: Tensor


class Call(NamedTuple):
    video: Tensor
    structure: Tensor
    audio: Tensor
    sigma_video: Tensor
    sigma_structure: Tensor
    frame: int
    write: bool
    known: Tensor | None = None


class SpyModel(nn.Module):
    """Answers with the exact velocity to a known clean point, and records what it was asked."""

    def __init__(self, clean: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        layout = StructureLayout(
            "six", "somebody", "a" * 64, (StructureField("a", 2, "1"), StructureField("b", 4, "1"))
        )
        self.config = SimpleNamespace(
            structure_dim=6, audio_future=5, sigma_structure_max=0.7, text_dim=0, structure_layout=layout,
            has_video=True, has_structure=True, hears=True, stream_entries=6,
            structure_given="sometimes", given_fields=(("a",),), one_level_frames=0, bridge_to_video=True,
        )  # fmt: skip
        self.clean = clean
        self.calls: list[Call] = []
        self.cache_arguments: dict = {}

    def new_cache(self, batch_size: int, height: int, width: int, window: int, sinks: int, **others) -> object:
        self.cache_arguments = {"batch_size": batch_size, "window": window, "sinks": sinks, **others}
        return object()

    def normalize_structure(self, structure: Tensor) -> Tensor:
        return structure / 2

    def hear(self, audio, cache, *, frame, count) -> None:
        """Nothing is to be kept of what it hears."""

    def embed_noise(self, sigma_video, sigma_structure) -> tuple[Tensor, Tensor]:
        """The levels themselves."""
        return sigma_video, sigma_structure

    def step(
        self, video, structure, audio, sigma_video, sigma_structure, cache, *, frame, write, noise,
        structure_known=None, heard=None, audio_future=None,
    ):  # fmt: skip
        assert torch.equal(noise[0], sigma_video) and torch.equal(noise[1], sigma_structure), "of other levels"
        self.calls.append(Call(video, structure, audio, sigma_video, sigma_structure, frame, write, structure_known))
        return Velocity(self._toward(video, sigma_video), self._toward(structure, sigma_structure))

    def _toward(self, x: Tensor, sigma_BC: Tensor) -> Tensor:
        sigma = sigma_BC.view(*sigma_BC.shape, *[1] * (x.ndim - 2))
        return torch.where(sigma > 0, (x - self.clean) / sigma.clamp_min(1e-6), torch.zeros_like(x))


@pytest.fixture
def spy() -> SpyModel:
    return SpyModel(clean=0.25)


class Files(NamedTuple):
    run: Path
    image: Path
    audio: Path


@pytest.fixture
def denoised_in(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads in which chunks were denoised so far."""
    threads: set[int] = set()
    next_chunk = Sampler.next_chunk

    def noted(self: Sampler, *args: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return next_chunk(self, *args, **options)

    monkeypatch.setattr(Sampler, "next_chunk", noted)
    return threads


@pytest.fixture(scope="session")
def files(model: DualForce, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A run directory with the tiny model, an image and one second of audio (25 pixel frames)."""
    folder = tmp_path_factory.mktemp("files")
    run = folder / "run"
    run.mkdir()
    model.save_pretrained(run / "model")
    (run / "config.yaml").write_text("name: tiny\nrollout:\n  steps: 2\n  window: 3\n")
    generator = np.random.default_rng(0)
    write_image(folder / "face.png", generator.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    write_wav(folder / "speech.wav", generator.normal(scale=0.1, size=16_000))
    return Files(run, folder / "face.png", folder / "speech.wav")
