"""The original plan's preset in its full size."""

from __future__ import annotations

import pytest
import torch

from df_models import DualForce


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_large_preset_runs_in_bfloat16_and_its_cache_agrees(make_clip, rollout, difference, figure, fill_zeros):
    """One whole forward, and the same frame by frame; 1.7 G parameters take 7 GB in float32 while they are made."""
    torch.manual_seed(0)
    model = DualForce.from_preset("dualforce-1.5b").eval()
    fill_zeros(model.video.head)
    fill_zeros(model.structure.head)
    model.bfloat16()
    clip = make_clip(model, frames=3, batch=1, size=(16, 16))
    with torch.no_grad():
        wanted = model(**clip)
    assert wanted.video.shape == clip["video"].shape and wanted.structure.shape == clip["structure"].shape
    for stream, found in zip(wanted._fields, rollout(model, clip, 1, 3, 0)):
        exact = getattr(wanted, stream)
        assert torch.isfinite(exact).all() and exact.std() > 0
        figure(f"cached against whole, dualforce-1.5b in full size, {stream}, bf16", difference(found, exact), 0.05)
