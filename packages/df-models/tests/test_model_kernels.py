"""How many kernels a compiled step launches: at a few microseconds each they are most of a small call's time."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

NARROW_HEADS = {"dim": 96, "num_heads": 12, "structure_width": 96, "structure_heads": 12, "bridge_width": 96,
                "bridge_heads": 12, "audio_heads": 6}  # fmt: skip
LAUNCH = re.compile(r"^(cpp_fused\w*\(|extern_kernels\.|\w+ = torch\.ops\.aten\.)")
"""A line of the code that inductor writes for a graph: its own fused loop, a matrix product, attention."""


class _Written(BaseException):
    """Inductor has written its code: it need not be compiled."""


@pytest.fixture
def kernels(build, make_clip, monkeypatch):
    """Kernels that the compiled step of a model of so many layers launches, by what they are."""
    from torch._inductor.graph import GraphLowering

    write = GraphLowering.codegen

    def written(self: Any) -> None:
        code = write(self)[0]
        raise _Written(getattr(code, "value", code))

    def count(layers: int, fusion_depth: int) -> int:
        torch._dynamo.reset()
        sizes = {"num_layers": layers, "structure_layers": layers, "fusion_depth": fusion_depth, **NARROW_HEADS}
        model = build("dualforce-1.5b", **sizes)
        model.compile_step()
        clip = make_clip(model, 1, batch=1, size=(4, 4))
        conditions = {name: clip[name] for name in ("reference_latent", "reference_tokens", "text")}
        cache = model.new_cache(1, 4, 4, 3, 1, **conditions)
        heard = model.hear(clip["audio"], cache, frame=0, count=1)
        inputs = [clip[name] for name in ("video", "structure", "audio", "sigma_video", "sigma_structure")]
        with pytest.raises(_Written) as caught, torch._inductor.config.patch(force_disable_caches=True):
            model.step(*inputs, cache, frame=0, write=False, heard=heard, noise=model.embed_noise(*inputs[3:]))
        body = caught.value.args[0].rpartition("def call(")[2].splitlines()
        return sum(bool(LAUNCH.match(line.strip())) for line in body)

    monkeypatch.setattr(GraphLowering, "codegen", written)
    return count


@pytest.mark.slow
def test_the_kernels_of_a_compiled_step_of_the_large_preset(kernels, figure):
    """Of `dualforce-1.5b`: 20 layers with 12 heads in both towers, 8 of them with an exchange; its widths are smaller.

    Counted are the launches in the code that torch's inductor writes for one denoising step that writes nothing, with
    reference and text read, the chunk's audio heard before (`hear`) and the noise level embedded before
    (`embed_noise`): fused loops, matrix products, attentions, each one; allocations and views are none. Every layer
    adds the same, so the count of 20 follows from that of 1 and 2. It is the CPU's code: a GPU's fuses by the same
    rules, but was not counted. Below 500 is wanted and not reached.
    """
    one, two, exchange = kernels(1, 0), kernels(2, 0), kernels(2, 1)
    total = one + 19 * (two - one) + 8 * (exchange - two)
    figure("kernels of a compiled step, dualforce-1.5b", total, 630)
    assert kernels(3, 0) == two + (two - one), "a layer adds what every other adds"
