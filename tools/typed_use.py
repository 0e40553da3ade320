"""How a user's program sees df-models' types: pyright checks this file in CI, and nothing in it is `Any`."""

from __future__ import annotations

from typing import assert_type

from torch import Tensor

from df_models import (
    DualForce,
    DualForceConfig,
    KVCache,
    StructureDiT,
    StructureDiTConfig,
    Velocity,
    VideoDiT,
    VideoDiTConfig,
)


def use(model: DualForce, video: VideoDiT, structure: StructureDiT, x: Tensor) -> None:
    """Call what a user calls."""
    assert_type(DualForce.from_preset("quickstart"), DualForce)
    assert_type(DualForce.from_pretrained("directory"), DualForce)
    assert_type(VideoDiT.from_pretrained("directory"), VideoDiT)
    assert_type(model.config, DualForceConfig)
    assert_type(model.config.num_layers, int)
    velocity = model(x, x, x, x, x, x, text=x)
    assert_type(velocity, Velocity)
    assert_type(velocity.video, Tensor)
    cache = model.new_cache(1, 8, 8, 4, 1)
    assert_type(cache, KVCache)
    assert_type(model.step(x, x, x, x, x, cache, frame=0, write=True), Velocity)
    assert_type(video.config, VideoDiTConfig)
    assert_type(video(x, x), Tensor)
    assert_type(structure.config, StructureDiTConfig)
    assert_type(structure(x, x), Tensor)
    assert_type(model.push_to_hub("me/model"), str)
