"""One call leaves nothing behind for the next: no mask outlives its model, no mode or tracer poisons a later pass."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from df_models import UserError

ORDER = ("video", "structure", "audio", "sigma_video", "sigma_structure", "reference_latent", "reference_tokens")
BACKENDS = pytest.mark.parametrize("backend", ["sdpa", "flex"])


def _train_step(model, clip):
    velocity = model(**clip)
    (velocity.video.square().mean() + velocity.structure.square().mean()).backward()


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_goes_on_after_a_validation_in_inference_mode(build, make_clip, dtype, backend):
    if backend == "flex" and dtype == torch.bfloat16:
        pytest.skip("FlexAttention on the CPU is tried in float32")
    sizes = {"dim": 64, "structure_width": 64, "bridge_mask": "causal"}
    model, other = build(**sizes).to(dtype), build(**sizes).to(dtype)
    clip = make_clip(model, 3)
    for each in (model, other):
        each.attention_backend = backend
        with torch.inference_mode():
            each(**clip)
        if backend == "flex":  # FlexAttention has no backward pass on the CPU: the masks are what is looked at
            assert not any(mask.kv_indices.is_inference() for mask in each._block_masks._made.values())
        else:
            _train_step(each, clip)


def test_a_cache_made_in_inference_mode_serves_outside_of_it(build, make_clip):
    model = build(bridge_mask="causal")
    clip = make_clip(model, 2)
    with torch.inference_mode():
        cache = model.new_cache(2, 4, 6, 3, 1)
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    model.step(*(clip[name][:, :1] for name in names), cache, frame=0, write=True)
    assert cache.length == 1


@BACKENDS
def test_export_and_fake_tensors_leave_real_passes_alone(build, make_clip, backend):
    model = build(dim=64, structure_width=64)
    clip = make_clip(model, 3)
    inputs = tuple(clip[name] for name in ORDER)
    with torch.no_grad():
        wanted = model(*inputs).video
        model.attention_backend = backend
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            model(*(mode.from_tensor(x) for x in inputs))
        if backend == "sdpa":
            torch.export.export(model, inputs, strict=False)
        for each in (model, build(dim=64, structure_width=64)):
            found = each(*inputs).video
            assert type(found) is torch.Tensor
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


class _Made(TorchDispatchMode):
    """Remembers large tensors that were made, for as long as they live."""

    def __init__(self, least):
        super().__init__()
        self.least, self.tensors = least, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() >= self.least:
            self.tensors.append(weakref.ref(out))
        return out


def test_nothing_of_a_pass_outlives_its_model(build, make_clip):
    clip = make_clip(build(), 6, batch=1, size=(8, 8))
    tokens = 6 * 16
    with _Made(tokens * tokens) as made, torch.no_grad():
        build()(**clip)
    gc.collect()
    assert made.tensors and not any(ref() is not None for ref in made.tensors)


def _step(model, clip, cache, frame, write=True):
    part = slice(frame, frame + 1)
    streams = [clip[name][:, part] for name in ("video", "structure")]
    sigmas = [clip[name][:, part] for name in ("sigma_video", "sigma_structure")]
    return model.step(*streams, clip["audio"][:, frame:], *sigmas, cache, frame=frame, write=write)


@pytest.mark.parametrize("mask", ["frame", "causal"])
def test_a_write_that_fails_half_way_can_be_tried_again(build, make_clip, monkeypatch, mask):
    model = build(bridge_mask=mask)
    clip = make_clip(model, 7)
    whole, broken = (model.new_cache(2, 4, 6, 4, 1, reference_latent=clip["reference_latent"]) for _ in range(2))

    def fail(*_):
        raise RuntimeError("out of memory")

    for frame in range(7):
        wanted = _step(model, clip, whole, frame)
        if frame >= 4:
            with monkeypatch.context() as patch:
                patch.setattr(model.structure.blocks[2].ffn, "forward", fail)
                with pytest.raises(RuntimeError, match="out of memory"):
                    _step(model, clip, broken, frame)
        found = _step(model, clip, broken, frame)
        assert torch.equal(found.video, wanted.video) and torch.equal(found.structure, wanted.structure)


def test_an_interruption_while_storing_is_told(build, make_clip, monkeypatch):
    model = build()
    clip = make_clip(model, 3)
    cache = model.new_cache(2, 4, 6, 4, 1)
    _step(model, clip, cache, 0)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.structure, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _step(model, clip, cache, 1)
    with pytest.raises(UserError, match="half-written"):
        _step(model, clip, cache, 1)


def _frames_of(model, clip, frames):
    """Velocities of a generation's steps, and of the last of each chunk, which writes."""
    cache = model.new_cache(1, 4, 4, 3, 1)
    return [_step(model, clip, cache, frame, write).video for frame in range(frames) for write in (False, True)]


def test_compiled_layers_share_their_graphs_over_layers_and_frames(build, make_clip):
    """Per kind of layer: with and without a mask (the window fills), with and without writing; no more with depth."""
    from torch._dynamo.testing import CompileCounter

    graphs = []
    for depth in (2, 4):
        torch._dynamo.reset()
        counter = CompileCounter()
        model = build(num_layers=depth, structure_layers=depth, fusion_depth=1, bridge_mask="causal")
        model.compile_layers(backend=counter)
        with torch._dynamo.config.patch(recompile_limit=64):  # at the usual 8 any two depths would count alike
            _frames_of(model, make_clip(model, 5, batch=1, size=(4, 4)), 5)
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[1] <= 12


def test_a_compiled_step_is_one_graph_with_and_one_without_writing(build, make_clip):
    """Whatever frame it is of: at the start, where the window is not full yet, and once sinks and window lie apart."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    eager, compiled = (build(num_layers=1, structure_layers=1, fusion_depth=1, bridge_mask="causal") for _ in range(2))
    compiled.compile_step(backend=counter)
    clip = make_clip(eager, 5, batch=1, size=(4, 4))
    for wanted, found in zip(_frames_of(eager, clip, 5), _frames_of(compiled, clip, 5), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 2


def test_a_copy_of_a_compiled_model_steps_with_its_own_weights(build, make_clip):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    model = build(num_layers=1, structure_layers=1, fusion_depth=1)
    model.compile_step(backend=CompileCounter())
    clip = make_clip(model, 1, batch=1, size=(4, 4))
    (before, _), copied = _frames_of(model, clip, 1), copy.deepcopy(model)
    with torch.no_grad():
        copied.video.head.head.bias.add_(1.0)
    torch.testing.assert_close(_frames_of(copied, clip, 1)[0], before + 1.0)
    torch.testing.assert_close(_frames_of(model, clip, 1)[0], before)


def test_a_plan_that_is_broken_off_leaves_none_behind(build, make_clip, monkeypatch):
    """It has overwritten the rotated keys that the plan before it reads."""
    from df_models.model import dualforce

    model = build()
    clip = make_clip(model, 6, batch=1, size=(4, 4))
    cache = model.new_cache(1, 4, 4, 3, 1)
    for frame in range(4):
        _step(model, clip, cache, frame)
    wanted = _step(model, clip, cache, 4, write=False).video

    def interrupted(*_, **__):
        for ring in cache.rings:
            ring._rotated.zero_()
        raise KeyboardInterrupt

    streams = [clip[name][:, 4:6] for name in ("video", "structure")]
    sigmas = [clip[name][:, 4:6] for name in ("sigma_video", "sigma_structure")]
    with monkeypatch.context() as patched:
        patched.setattr(dualforce, "plan_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.step(*streams, clip["audio"][:, 4:], *sigmas, cache, frame=4, write=False)
    torch.testing.assert_close(_step(model, clip, cache, 4, write=False).video, wanted)
