"""Other ways to compute the same: FlexAttention and compiled layers, on the CPU; `test_gpu.py` has the same on CUDA."""

from __future__ import annotations

import pytest
import torch

from df_models import History

STREAMS = ("video", "structure")


def _history(clip):
    return History(*(clip[name] * 0.5 for name in History._fields))


@pytest.mark.parametrize("teacher_forced", [False, True])
@pytest.mark.parametrize("mask", ["frame", "causal"])
def test_flex_attention_equals_the_reference(build, make_clip, difference, figure, mask, teacher_forced):
    model = build(dim=64, structure_width=64, bridge_mask=mask)
    clip = make_clip(model, 4)
    clip["history"] = _history(clip) if teacher_forced else None
    with torch.no_grad():
        wanted = model(**clip)
        model.attention_backend = "flex"
        found = model(**clip)
    for stream in STREAMS:
        figure(
            "FlexAttention against SDPA, cpu, fp32",
            difference(getattr(found, stream), getattr(wanted, stream)),
            1e-5,
        )


@pytest.mark.parametrize(("backend", "made"), [("sdpa", 0), ("auto", 0), ("flex", 2)])
def test_block_masks_are_made_only_where_they_are_used_and_kept_by_their_model(build, make_clip, backend, made):
    model = build(dim=64, structure_width=64)
    model.attention_backend = backend
    with torch.no_grad():
        for _ in range(2):
            model(**make_clip(model, 3))
    assert len(model._block_masks) == made


def _gradients(model, clip):
    model.zero_grad()
    velocity = model(**clip)
    (velocity.video.square().mean() + velocity.structure.square().mean()).backward()
    return velocity, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _compiled(build, **options):
    sizes = {"num_layers": 1, "structure_layers": 1, "fusion_depth": 1}
    eager, compiled = (build(**sizes, **options) for _ in range(2))
    compiled.compile_layers()
    return eager, compiled


@pytest.mark.slow
def test_compiled_layers_equal_eager_ones(build, make_clip, difference, figure):
    torch._dynamo.reset()
    eager, compiled = _compiled(build)
    clip = make_clip(eager, 3, batch=1)
    with torch.no_grad():
        wanted, found = eager(**clip), compiled(**clip)
    for stream in STREAMS:
        figure("compiled against eager, cpu, fp32", difference(getattr(found, stream), getattr(wanted, stream)), 1e-5)


@pytest.mark.slow
def test_compiled_layers_have_eager_gradients(build, make_clip, difference, figure):
    torch._dynamo.reset()
    eager, compiled = _compiled(build, bridge_mask="causal")
    clip = make_clip(eager, 3, batch=1)
    clip["history"] = _history(clip)
    (_, wanted), (_, found) = _gradients(eager, clip), _gradients(compiled, clip)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    zero = {name for name, gradient in wanted.items() if gradient.abs().max() < 1e-6 * largest}
    assert zero <= {"reference.k.bias"}  # a bias of all keys alike: softmax does not see it
    for name in wanted.keys() - zero:
        error = difference(found[name], wanted[name])
        figure("compiled against eager, gradients, cpu, fp32", error, 1e-5)


def test_all_layers_of_a_kind_share_one_compiled_graph(build, make_clip):
    """More layers cost no more compiling: video block, structure block and fusion layer, three graphs."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    model = build()
    model.compile_layers(backend=counter)
    with torch.no_grad():
        model(**make_clip(model, 3, batch=1))
    assert model.config.num_layers == 3 and counter.frame_count == 3
