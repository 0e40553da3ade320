"""The structure tower by itself: the same as inside a model without exchange, causal, and trainable."""

from __future__ import annotations

import pytest
import torch

from df_models import StructureDiT, StructureDiTConfig, UserError

SIZES = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 48, "vector_dim": 10, "freq_dim": 32}


@torch.no_grad()
def test_alone_it_is_what_it_is_inside_a_model_without_exchange(build, make_clip, difference):
    model = build(fusion_depth=0)
    clip = make_clip(model, 4)
    alone = model.structure(clip["structure"], clip["sigma_structure"])
    assert difference(alone, model(**clip).structure) < 1e-6


@torch.no_grad()
def test_no_frame_sees_a_later_one_unless_told_to(fill_zeros):
    torch.manual_seed(0)
    tower = StructureDiT(StructureDiTConfig(**SIZES, text_dim=12)).eval()
    fill_zeros(tower)
    structure, sigma, text = torch.randn(2, 5, 4, 10), torch.rand(2, 5), torch.randn(2, 3, 12)
    changed = structure.clone()
    changed[:, 3:] += 1
    assert torch.equal(tower(structure, sigma, text)[:, :3], tower(changed, sigma, text)[:, :3])
    assert not torch.equal(tower(structure, sigma, causal=False)[:, :3], tower(changed, sigma, causal=False)[:, :3])
    assert not torch.equal(tower(structure, sigma, text), tower(structure, sigma))
    later = tower(structure, sigma, first_frame=7)
    assert not torch.equal(later[:, 0], tower(structure, sigma)[:, 0])
    torch.testing.assert_close(later[:, 1:], tower(structure, sigma, first_frame=9)[:, 1:], rtol=1e-3, atol=1e-4)


def test_it_learns_a_motion():
    torch.manual_seed(0)
    tower = StructureDiT(StructureDiTConfig(**SIZES))
    time = torch.arange(24).view(1, 6, 4, 1) / 4
    clean = torch.sin(time + torch.arange(10)).expand(8, -1, -1, -1)
    optimizer = torch.optim.Adam(tower.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        noise, sigma = torch.randn_like(clean), torch.rand(8, 6)
        level = sigma[:, :, None, None]
        loss = (tower(torch.lerp(clean, noise, level), sigma) - (noise - clean)).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_mistakes_are_told():
    tower = StructureDiT(StructureDiTConfig(**SIZES))
    with pytest.raises(UserError, match="structure must be"):
        tower(torch.zeros(1, 2, 4, 9), torch.zeros(1, 2))
    with pytest.raises(UserError, match="sigma must be"):
        tower(torch.zeros(1, 2, 4, 10), torch.zeros(1, 3))
    with pytest.raises(UserError, match="reads no text"):
        tower(torch.zeros(1, 2, 4, 10), torch.zeros(1, 2), torch.zeros(1, 3, 12))
