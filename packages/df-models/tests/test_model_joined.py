"""Products of one input made in one: the same results, and never with the weights of before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from df_models import DualForce
from df_models.model import block
from df_models.model.adapter import Adapter, LowRank, add_adapter
from df_models.model.joined import join

SMALL = {"num_layers": 1, "structure_layers": 1, "fusion_depth": 1}


def _generated(model, clip, chunks=2, writes=(False, True)):
    """Velocities of a generation: for each chunk a denoising step, and then the write."""
    dtype = model.dtype
    conditions = {name: clip[name].to(dtype) for name in ("reference_latent", "reference_tokens")}
    cache = model.new_cache(2, 4, 6, 3, 1, **conditions)
    out = []
    for frame in range(chunks):
        streams = [clip[name][:, frame : frame + 1].to(dtype) for name in ("video", "structure")]
        sigmas = [clip[name][:, frame : frame + 1] for name in ("sigma_video", "sigma_structure")]
        audio = clip["audio"][:, frame:].to(dtype)
        for write in writes:
            out += model.step(*streams, audio, *sigmas, cache, frame=frame, write=write)
    return out


def _assert_same(found, wanted, tolerance=2e-5):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mask", ["frame", "causal"])
def test_joined_products_are_those_of_the_layers(build, make_clip, monkeypatch, mask):
    """All of them: two towers of two layers, with two streams read in each exchange."""
    used = []
    products = block.products
    monkeypatch.setattr(block, "products", lambda x, layers, joined: used.append(joined) or products(x, layers, joined))
    alone, joined = (build(num_layers=2, structure_layers=2, bridge_mask=mask) for _ in range(2))
    clip = make_clip(alone, 2)
    wanted = _generated(alone, clip)
    assert len(used) == 16 and set(used) == {None}
    joined.join_products()
    used.clear()
    _assert_same(_generated(joined, clip), wanted)
    assert len(used) == 16 and all(used)
    layers = joined._joined()
    assert layers is not None and [len(kind) for kind in layers] == [2] * 4 and all(map(all, layers))


def _adapter(model: DualForce, _build) -> DualForce:
    generator = torch.Generator().manual_seed(3)
    layers = {
        name: LowRank(torch.randn(2, i, generator=generator), torch.randn(o, 2, generator=generator))
        for name, i, o in (("video.blocks.0.self_attn.k", 48, 48), ("fusion.0.to_video.v", 32, 32))
    }
    return add_adapter(model, Adapter(layers, 0.1, "x"), "x")


def _loaded(model: DualForce, build) -> DualForce:
    model.load_state_dict(build(seed=5, **SMALL).state_dict())
    return model


def _assigned(model: DualForce, build) -> DualForce:
    model.load_state_dict(build(seed=5, **SMALL).state_dict(), assign=True)
    return model


def _replaced(model: DualForce, _build) -> DualForce:
    model.fusion[0].to_structure.q.bias = nn.Parameter(torch.ones(32))
    return model


CHANGES = {
    "an adapter": _adapter,
    "loaded in place": _loaded,
    "loaded by assignment": _assigned,
    "one replaced": _replaced,
    "cast": lambda model, _: model.bfloat16(),
    "cast and back": lambda model, _: model.double().float(),
    "copied": lambda model, _: copy.deepcopy(model),
}


@pytest.mark.parametrize("change", CHANGES)
def test_joined_products_follow_every_change_of_the_weights(build, make_clip, change):
    alone, joined = build(**SMALL), build(**SMALL)
    clip = make_clip(alone, 2)
    joined.join_products()
    before = _generated(joined, clip)
    wanted, changed = (CHANGES[change](model, build) for model in (alone, joined))
    _assert_same(_generated(changed, clip), _generated(wanted, clip), _tolerance(wanted))
    if change == "copied":
        with torch.no_grad():
            for parameter in changed.parameters():
                parameter.zero_()
        _assert_same(_generated(joined, clip), before, 0.0)


def _tolerance(model: DualForce) -> float:
    return 2e-5 if model.dtype == torch.float32 else 5e-2


def test_a_compiled_step_follows_changes_without_being_compiled_anew_but_for_another_dtype(build, make_clip):
    """Torch is told not to look whether the model has changed."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    alone, joined = build(**SMALL), build(**SMALL)
    clip = make_clip(alone, 2)
    joined.compile_step(backend=counter)
    for change, graphs in {"an adapter": 1, "loaded by assignment": 1, "one replaced": 1, "cast": 2}.items():
        for model in (alone, joined):
            CHANGES[change](model, build)
        found, wanted = (_generated(model, clip, 1, [False]) for model in (joined, alone))
        _assert_same(found, wanted, _tolerance(alone))
        assert counter.frame_count == graphs


def test_parameters_stay_what_they_are(build, make_clip, tmp_path):
    model = build(**SMALL)
    before, objects = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    model.join_products()
    assert {name: id(one) for name, one in model.named_parameters()} == {name: id(one) for name, one in objects.items()}
    model.save_pretrained(tmp_path)
    for state in (model.state_dict(), DualForce.from_pretrained(tmp_path).state_dict()):
        assert list(state) == list(before) and all(torch.equal(state[name], before[name]) for name in before)
    optimizer = torch.optim.AdamW(model.parameters())
    clip = make_clip(model, 2)
    clip.pop("reference_frame")
    sum(x.sum() for x in model(**clip)).backward()
    optimizer.step()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "self_attn" in name)
    plain = build(**SMALL)
    plain.load_state_dict(model.state_dict())
    _assert_same(_generated(model, clip), _generated(plain, clip))


def test_what_is_no_plain_layer_is_not_joined():
    class Other(nn.Linear):
        pass

    assert join({"a": nn.Linear(4, 3), "b": Other(4, 3)}) is None
    assert join({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3, bias=False)}) is None
    assert join({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3).bfloat16()}) is None
    assert join({"a": nn.Linear(4, 3)}) is None


def test_noise_that_was_embedded_before_gives_the_same(build, make_clip):
    model = build(**SMALL)
    clip = make_clip(model, 1)
    cache = model.new_cache(2, 4, 6, 3, 1)
    inputs = [clip[name] for name in ("video", "structure", "audio", "sigma_video", "sigma_structure")]
    wanted = model.step(*inputs, cache, frame=0, write=False)
    found = model.step(*inputs, cache, frame=0, write=False, noise=model.embed_noise(*inputs[3:]))
    _assert_same(found, wanted, 0.0)
    other = model.step(*inputs, cache, frame=0, write=False, noise=model.embed_noise(*(1 - x for x in inputs[3:])))
    assert not torch.allclose(other.video, wanted.video)


def test_two_compiled_models_of_one_shape_keep_their_own_graphs(build, make_clip):
    """They differ in a number that no tensor holds."""
    models = [build(**SMALL, gate_gain=gain) for gain in (10.0, 2.0)]
    clip = make_clip(models[0], 2)
    wanted = [_generated(model, clip) for model in models]
    assert not torch.allclose(wanted[0][0], wanted[1][0], atol=1e-2)
    for model in models:
        model.compile_step(backend="eager")
    for model, each in zip(models, wanted):
        _assert_same(_generated(model, clip), each)


def test_a_compiled_model_meets_any_number_of_sizes(build, make_clip):
    model = build(**SMALL)
    model.compile_step(backend="eager")
    for width in range(2, 22, 2):  # torch gives up on the ninth size that one code meets
        clip = make_clip(model, 1, batch=1, size=(4, width))
        cache = model.new_cache(
            1, 4, width, 2, 1, reference_latent=clip["reference_latent"], reference_tokens=clip["reference_tokens"]
        )
        given = [clip[name] for name in ("video", "structure", "audio", "sigma_video", "sigma_structure")]
        model.step(*given, cache, frame=0, write=False)
    assert len(model._graphs) == 10, "a graph for each, and none of them given up"


def test_a_model_made_in_inference_mode_is_not_joined(build, make_clip):
    with torch.inference_mode():
        model = build(**SMALL)
        model.join_products()
        clip = make_clip(model, 2)
        _assert_same(_generated(model, clip), _generated(build(**SMALL), clip))
    assert join({"q": nn.Linear(4, 4), "k": nn.Linear(6, 4)}) is None, "of other inputs"
