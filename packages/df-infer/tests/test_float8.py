"""Generating in float8. What needs torchao is run by CI in an environment that has it (`.ci`)."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor

from df_infer import cli
from df_infer.live.saved import fingerprint
from df_infer.pipeline import Pipeline
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.float8 import fits, generate_in_float8
from df_models.media import read_image

WAVE = np.random.default_rng(0).normal(scale=0.1, size=640 * 13).astype(np.float32)
ROUNDING = 0.15
"""Of the structure's spread: e4m3 has 3 bits of mantissa, so that a factor is rounded by 6 % at most."""

ONE_LAYER = {"num_layers": 1, "structure_layers": 1, "fusion_depth": 0}
"""Compiling takes the longer, the more layers there are."""


def test_it_is_refused_where_it_cannot_be_computed(files, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ["--image", str(files.image), "--audio", str(files.audio), "--out", str(tmp_path / "a.mp4")]
    options = ["--run", str(files.run), "--device", "cpu", "--dtype", "float8"]
    assert cli.main(["generate", *options, *inputs]) == 2
    told = capsys.readouterr().err
    assert "float8 needs a GPU of compute capability 8.9 or higher (H100, H200, L40S); the device is cpu" in told
    assert "use bfloat16" in told and not (tmp_path / "a.mp4").exists()


NEEDS_TORCHAO = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="needs torchao (df-infer[float8])"
)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU is taken, by torch's own kernels, which torchao's check of the hardware does not know."""
    from torchao.quantization import quant_api  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr("df_models.machine.check_float8", lambda *_: None)
    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)


@NEEDS_TORCHAO
def test_the_layers_multiply_in_float8_and_nothing_else(files, pretended: None) -> None:
    vae = random_tiny_vae()
    rounded, plain = (Pipeline.from_run(files.run, "cpu", dtype, vae=vae) for dtype in ("float8", "bfloat16"))
    assert (rounded.precision, plain.precision) == ("float8", "bfloat16")
    inside = {id(module) for layer in rounded.model.layers() for module in layer.modules()}
    made = {}
    for name, module in rounded.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            made[name] = type(module.weight).__name__ == "Float8Tensor"
            assert made[name] == (id(module) in inside and fits(module)), name
    assert any(made.values()) and not all(made.values())
    assert fingerprint(rounded.model) == fingerprint(rounded.model) != fingerprint(plain.model), "of a saved session"
    image = read_image(files.image)
    one, other = (np.concatenate([c.structure for c in p.stream(image, WAVE)]) for p in (rounded, plain))
    assert 0 < np.abs(one - other).mean() < ROUNDING * other.std()


@NEEDS_TORCHAO
@torch.no_grad()
def test_zeros_have_no_scale_and_stay_zeros(pretended: None) -> None:
    made, dead = (torch.nn.Linear(32, 48, dtype=torch.bfloat16) for _ in range(2))
    dead.weight.data[3] = 0
    generate_in_float8([torch.nn.ModuleList([made, dead])])
    assert [type(layer.weight).__name__ for layer in (made, dead)] == ["Float8Tensor", "Parameter"]
    tokens = torch.randn(5, 32, dtype=torch.bfloat16)
    tokens[2] = 0
    found = made(tokens)
    assert found.isfinite().all() and torch.equal(found[2], made.bias)


@NEEDS_TORCHAO
def test_compiling_is_as_before(pretended: None) -> None:
    before = inductor.save_config()
    generate_in_float8([torch.nn.ModuleList([torch.nn.Linear(32, 48, dtype=torch.bfloat16)])])
    assert inductor.save_config() == before


@NEEDS_TORCHAO
def test_a_compiled_step_gives_what_an_uncompiled_one_does(pretended: None) -> None:
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart", **ONE_LAYER).to(torch.bfloat16).eval()
    generate_in_float8(list(model.layers()))
    config, sigma = model.config, torch.full((1, 1), 0.5)
    for parameter in model.parameters():
        if type(parameter) is torch.nn.Parameter and not parameter.any():
            parameter.data.normal_(std=0.05)  # the head, which else makes zeros

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, dtype=torch.bfloat16)

    reference, tokens = noise(16, 8, 8), noise(config.reference_tokens, config.reference_dim)
    cache = model.new_cache(
        1, 8, 8, 2, 1, reference_latent=reference, reference_tokens=tokens, text=None, dtype=torch.bfloat16
    )
    streams = noise(1, 16, 8, 8), noise(1, 4, config.structure_dim), noise(2, 4, config.audio_dim)

    def step() -> torch.Tensor:
        return model.step(*streams, sigma, sigma, cache, frame=0, write=False).video.float()

    with torch.no_grad():
        plain = step()
        model.compile_step()
        compiled = step()
    assert plain.std() > 0.01
    assert (compiled - plain).abs().mean() < 0.02 * plain.std()
