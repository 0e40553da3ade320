"""What must hold on a GPU: the reference's numbers by its own kernels, compiled or not, cached or not.

Attention heads have their presets' number of channels, which decides what kernels are taken; widths are two heads.
`GPU_REHEARSAL=1` runs all of it on the CPU with the shortest sequences.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from df_models import DualForce, History, VideoDiT, VideoDiTConfig, preset_config, presets
from df_models.attention import backends
from df_models.convert import load_wan

pytestmark = pytest.mark.gpu
STREAMS = ("video", "structure")
EXACT = 1e-4
"""Relative, float32: kernels and their order of summation differ by shape, and errors add up over the layers."""
RMS_BF16 = 0.03
"""Root mean square, relative: bfloat16 keeps 8 bits, about 0.4 % for a rounding; a few layers add up to 1 %."""


class Length(NamedTuple):
    """A clip's latent frames and size; `rows * columns / 4` video tokens a frame."""

    frames: int
    height: int
    width: int


LONG = {True: Length(3, 4, 6), False: Length(9, 26, 22)}
"""By whether this is a rehearsal: 1287 video tokens (above `FLEX_MIN_TOKENS`, no multiple of 128), or 18."""
SHORT = {True: Length(2, 4, 4), False: Length(5, 16, 18)}
"""360 video and 20 structure tokens: less than a block of FlexAttention, and no multiple of one."""


def heads_of(preset: str) -> dict[str, int]:
    """Widths of two heads, each as wide as the preset's."""
    config = preset_config(preset)
    widths = {"dim": "num_heads", "structure_width": "structure_heads", "bridge_width": "bridge_heads"}
    widths["audio_width"] = "audio_heads"
    sizes = dict.fromkeys(widths.values(), 2)
    sizes |= {width: 2 * getattr(config, width) // getattr(config, heads) for width, heads in widths.items()}
    return {**sizes, "num_layers": 2, "structure_layers": 2, "fusion_depth": 1}


def on(device: torch.device, clip: dict[str, Any], dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The clip on a device; `dtype` for all but noise levels and frame numbers."""
    kept = ("sigma_video", "sigma_structure", "reference_frame")
    return {name: value.to(device, None if name in kept else dtype) for name, value in clip.items()}


def with_history(clip: dict[str, Any]) -> dict[str, Any]:
    return {**clip, "history": History(*(clip[name] * 0.5 for name in History._fields))}


def learn(model: DualForce, clip: dict[str, Any]) -> tuple[Any, dict[str, torch.Tensor]]:
    """A forward pass and the gradients of its velocities' squares; FlexAttention has none on the CPU."""
    model.zero_grad()
    if model.attention_backend == "flex" and model.device.type == "cpu":
        with torch.no_grad():
            return model(**clip), {}
    velocity = model(**clip)
    (velocity.video.float().square().mean() + velocity.structure.float().square().mean()).backward()
    return velocity, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def rms(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def largest_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest error of any gradient over its own largest entry; gradients that are zero but for rounding count
    relative to the largest gradient of all (a bias of all keys alike, which softmax does not see)."""
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    errors = [
        float((found[name] - gradient).abs().max()) / max(float(gradient.abs().max()), 1e-3 * largest)
        for name, gradient in wanted.items()
    ]
    return max(errors)


# ------------------------------------------------------------------------------------------------------- diffusers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_video_tower_is_wans(gpu, rehearsal, figure, difference, dtype):
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    heads, ffn, frames, side = (2, 512, 3, 8) if rehearsal else (12, 8960, 5, 32)
    theirs = WanTransformer3DModel(num_attention_heads=heads, ffn_dim=ffn, num_layers=2, text_dim=64).eval()
    config = VideoDiTConfig(dim=128 * heads, num_heads=heads, ffn_dim=ffn, num_layers=2, in_dim=16, text_dim=64)
    ours = VideoDiT(config).eval()
    load_wan(ours, theirs.state_dict())
    ours, theirs = ours.to(gpu), theirs.to(gpu)
    video, text = torch.randn(1, frames, 16, side, side, device=gpu), torch.randn(1, 512, 64, device=gpu)
    sigma = torch.full((1, frames), 0.6, device=gpu)

    @torch.no_grad()
    def run_theirs() -> torch.Tensor:
        kind = theirs.dtype
        moved = video.transpose(1, 2).to(kind)
        return theirs(moved, timestep=sigma[:, 0] * 1000, encoder_hidden_states=text.to(kind)).sample.transpose(1, 2)

    exact = run_theirs()
    with torch.no_grad():
        found = ours.to(dtype)(video.to(dtype), sigma, text.to(dtype), causal=False)
    if dtype == torch.float32:
        figure(f"video tower against diffusers', {gpu.type}, fp32", difference(found, exact), EXACT)
        return
    theirs.to(dtype)
    figure(f"video tower in bf16 against fp32, {gpu.type}, rms", rms(found, exact), RMS_BF16)
    ratio = rms(found, exact) / rms(run_theirs(), exact)
    figure(f"video tower in bf16, error over diffusers' own, {gpu.type}", ratio, 1.5)


# ------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("teacher_forced", [False, True], ids=["clip", "history"])
@pytest.mark.parametrize("lengths", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("preset", presets())
def test_flex_attention_and_its_gradients_are_sdpas(
    gpu, rehearsal, build, make_clip, difference, figure, preset, lengths, teacher_forced
):
    frames, *size = lengths[rehearsal]
    model: DualForce = build(preset, bridge_mask="causal", **heads_of(preset)).to(gpu)
    clip = on(gpu, make_clip(model, frames, batch=1, size=tuple(size)))
    clip = with_history(clip) if teacher_forced else clip
    model.attention_backend = "sdpa"
    wanted, wanted_gradients = learn(model, clip)
    model.attention_backend = "flex"
    found, gradients = learn(model, clip)
    for stream in STREAMS:
        error = difference(getattr(found, stream), getattr(wanted, stream))
        figure(f"FlexAttention against SDPA, {gpu.type}, fp32", error, EXACT)
    if rehearsal:
        return
    assert gradients.keys() == wanted_gradients.keys()
    error = largest_error(gradients, wanted_gradients)
    figure(f"FlexAttention against SDPA, gradients, {gpu.type}, fp32", error, 10 * EXACT)


@pytest.mark.parametrize("preset", ["quickstart", "dualforce-wan"])
def test_flex_attention_in_bfloat16_loses_no_more_than_sdpa(gpu, rehearsal, build, make_clip, figure, preset):
    """Velocities, and on a GPU their gradients."""
    frames, *size = LONG[rehearsal]
    model: DualForce = build(preset, bridge_mask="causal", **heads_of(preset)).to(gpu)
    clip = on(gpu, make_clip(model, frames, batch=1, size=tuple(size)))
    model.attention_backend = "sdpa"
    exact = _whole(*learn(model, clip), rehearsal)
    errors = {}
    model.bfloat16()
    for backend in ("sdpa", "flex"):
        model.attention_backend = backend
        found = _whole(*learn(model, on(gpu, clip, torch.bfloat16)), rehearsal)
        errors[backend] = [rms(*pair) for pair in zip(found, exact)]
    for what, flex, sdpa in zip(("velocities", "gradients"), errors["flex"], errors["sdpa"]):
        figure(f"{what} in bf16: FlexAttention's error over SDPA's, {gpu.type}", flex / sdpa, 1.5)


def _whole(velocity, gradients, rehearsal) -> list[torch.Tensor]:
    """All velocities as one vector, and all gradients as another one if there are any."""
    both = [torch.cat([value.detach().float().flatten() for value in velocity])]
    return both if rehearsal else [*both, torch.cat([value.float().flatten() for value in gradients.values()])]


def test_auto_takes_flex_attention_for_long_sequences(gpu, rehearsal, build, make_clip, monkeypatch):
    frames, *size = LONG[rehearsal]
    model: DualForce = build("quickstart", **heads_of("quickstart")).to(gpu)
    clip = on(gpu, make_clip(model, frames, batch=1, size=tuple(size)))
    calls = []
    flex = backends._flex
    monkeypatch.setattr(backends, "_flex", lambda compiled: calls.append(compiled) or flex(compiled))
    with torch.no_grad():
        model(**clip)
    assert set(calls) == (set() if rehearsal else {True}), "the CPU takes SDPA, a GPU compiled FlexAttention"


# ----------------------------------------------------------------------------------------------------------- model


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("preset", presets())
def test_later_frames_never_reach_earlier_ones(gpu, rehearsal, build, make_clip, preset, backend):
    frames, *size = LONG[rehearsal]
    model: DualForce = build(preset, bridge_mask="causal", **heads_of(preset)).to(gpu)
    model.attention_backend = backend
    clip = on(gpu, make_clip(model, frames, batch=1, size=tuple(size)))
    changed = {name: clip[name].clone() for name in ("video", "structure", "sigma_video", "sigma_structure")}
    for value in changed.values():
        value[:, -1] += 0.1
    with torch.no_grad():
        before, after = model(**clip), model(**{**clip, **changed})
    for stream in STREAMS:
        old, new = getattr(before, stream), getattr(after, stream)
        assert torch.equal(old[:, :-1], new[:, :-1]), stream
        assert not torch.equal(old[:, -1], new[:, -1]), stream


@pytest.mark.parametrize("mask", ["frame", "causal"])
@pytest.mark.parametrize("preset", presets())
def test_cached_generation_is_the_whole_forward(
    gpu, rehearsal, build, make_clip, rollout, difference, figure, preset, mask
):
    frames, *size = LONG[rehearsal]
    model: DualForce = build(preset, bridge_mask=mask, **heads_of(preset)).to(gpu)
    clip = on(gpu, make_clip(model, frames, batch=1, size=tuple(size)))
    with torch.no_grad():
        wanted = model(**clip)
    for stream, found in zip(STREAMS, rollout(model, clip, 1, frames, 0)):
        error = difference(found, getattr(wanted, stream))
        figure(f"cached against whole, {stream}, {gpu.type}, fp32", error, EXACT)


@pytest.mark.parametrize("preset", presets())
def test_bfloat16_stays_close(gpu, rehearsal, build, make_clip, rollout, figure, preset):
    frames, *size = LONG[rehearsal]
    model: DualForce = build(preset, opened=False, **heads_of(preset)).to(gpu)
    for head in (model.video.head.head, model.structure.head.head):
        nn.init.normal_(head.weight, std=head.in_features**-0.5)
    clip = on(gpu, make_clip(model, frames, batch=1, size=tuple(size)))
    with torch.no_grad():
        wanted = model(**clip)
        model.bfloat16()
        rounded = on(gpu, clip, torch.bfloat16)
        whole, cached = model(**rounded), rollout(model, rounded, 1, frames, 0)
    for stream, piecewise in zip(STREAMS, cached):
        exact = getattr(wanted, stream)
        figure(f"bf16 against fp32, {stream}, {gpu.type}, rms", rms(getattr(whole, stream), exact), RMS_BF16)
        figure(f"bf16 with a cache against fp32, {stream}, {gpu.type}, rms", rms(piecewise, exact), RMS_BF16)


@pytest.mark.parametrize("teacher_forced", [False, True], ids=["clip", "history"])
@pytest.mark.parametrize("preset", ["quickstart", "dualforce-wan"])
def test_compiled_layers_are_the_eager_ones(
    gpu, rehearsal, build, make_clip, difference, figure, preset, teacher_forced
):
    """With the attention that `auto` takes: FlexAttention on a GPU, inside the compiled layers. A rehearsal traces the
    layers and makes no code of them, which takes a CPU minutes (`test_model_backends.py` does)."""
    frames, *size = LONG[rehearsal]
    sizes = {**heads_of(preset), "num_layers": 1, "structure_layers": 1}
    eager, compiled = (build(preset, bridge_mask="causal", **sizes).to(gpu) for _ in range(2))
    compiled.compile_layers(**({"backend": "aot_eager"} if rehearsal else {}))
    clip = on(gpu, make_clip(eager, frames, batch=1, size=tuple(size)))
    clip = with_history(clip) if teacher_forced else clip
    (wanted, wanted_gradients), (found, gradients) = learn(eager, clip), learn(compiled, clip)
    for stream in STREAMS:
        error = difference(getattr(found, stream), getattr(wanted, stream))
        figure(f"compiled against eager, {gpu.type}, fp32", error, EXACT)
    error = largest_error(gradients, wanted_gradients)
    figure(f"compiled against eager, gradients, {gpu.type}, fp32", error, 10 * EXACT)
