"""Entries of the structure that are given clean within a noisy frame, and the input that tells the model which."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from df_models import DualForce, History, UserError
from df_models.model.describe import Workload, count_flops

TOLERANCE = 1e-5


def known_of(clip, entries=(0, 3)):
    known = torch.zeros(clip["structure"].shape, dtype=torch.bool)
    known[..., list(entries)] = True
    return known


def told(model):
    """The same model with the input for known entries, as it starts."""
    with_input = build_like(model, structure_known=True)
    missing = with_input.load_state_dict(model.state_dict(), strict=False)
    assert missing == (["structure.known_embedding"], [])
    return with_input


def build_like(model, **changes):
    return DualForce(model.config.__class__(**{**vars(model.config), **changes})).eval()


@torch.no_grad()
def test_the_input_starts_at_zero_and_changes_no_bit(build, make_clip):
    model = build()
    clip = make_clip(model)
    wanted, found = model(**clip), told(model)(**clip, structure_known=known_of(clip))
    assert torch.equal(found.video, wanted.video) and torch.equal(found.structure, wanted.structure)
    assert "structure.known_embedding" not in model.state_dict()


def test_its_gradient_is_open_from_the_start(build, make_clip):
    model = told(build())
    clip = make_clip(model)
    model(**clip, structure_known=known_of(clip)).structure.square().sum().backward()
    gradient = model.structure.known_embedding.grad
    assert gradient[:, [0, 3]].any() and not gradient[:, [1, 2, 4]].any()


@torch.no_grad()
def test_it_tells_which_entries_are_known_to_both_streams_and_to_no_earlier_frame(build, make_clip):
    model = build(structure_known=True)
    clip = make_clip(model)
    none, known = torch.zeros_like(known_of(clip)), known_of(clip)
    before = model(**clip, structure_known=none)
    assert torch.equal(before.structure, model(**clip).structure), "none is what is assumed"
    later = none.clone()
    later[:, 3:] = known[:, 3:]
    for old, new in zip(before, model(**clip, structure_known=later)):
        assert torch.equal(old[:, :3], new[:, :3]) and not torch.equal(old[:, 3], new[:, 3])


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("mask", ["frame", "causal"])
@torch.no_grad()
def test_cached_equals_whole_with_known_entries(build, make_clip, difference, mask, chunk):
    model = build(structure_known=True, bridge_mask=mask)
    clip = make_clip(model, frames=7)
    known = known_of(clip)
    known[:, :, 1:, 3] = False
    wanted = model(**clip, structure_known=known)
    conditions = {name: clip[name] for name in ("reference_latent", "reference_tokens", "reference_frame")}
    cache = model.new_cache(2, *clip["video"].shape[-2:], 7, 0, **conditions)
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    for frame in range(0, 7, chunk):
        part = slice(frame, min(frame + chunk, 7))
        inputs = [clip[name][:, frame if name == "audio" else part.start : None if name == "audio" else part.stop]
                  for name in names]  # fmt: skip
        found = model.step(*inputs, cache, frame=frame, write=True, structure_known=known[:, part])
        for stream in wanted._fields:
            assert difference(getattr(found, stream), getattr(wanted, stream)[:, part]) < TOLERANCE


@torch.no_grad()
def test_a_history_knows_the_same_entries(build, make_clip):
    model = build(structure_known=True)
    clip = make_clip(model)
    past = History(clip["video"], clip["structure"], *(torch.zeros_like(clip["sigma_video"]) for _ in range(2)))
    first = torch.zeros_like(known_of(clip))
    first[:, 0] = known_of(clip)[:, 0]
    plain, known = model(**clip, history=past), model(**clip, history=past, structure_known=first)
    assert not torch.equal(plain.structure[:, 1], known.structure[:, 1]), "frame 1 sees frame 0 in the history alone"


def test_mistakes_are_told(build, make_clip):
    model = build()
    clip = make_clip(model)
    with pytest.raises(UserError, match="build it with structure_known"):
        model(**clip, structure_known=known_of(clip))
    with pytest.raises(UserError, match="known must be"):
        build(structure_known=True)(**clip, structure_known=known_of(clip)[:, :2])


def test_its_operations_are_counted(build, make_clip):
    model = build(structure_known=True)
    clip = make_clip(model, frames=1, batch=1, size=(8, 8))
    workload = Workload(size=64, window=4, sinks=2)
    names = ("reference_latent", "reference_tokens")
    cache = model.new_cache(1, 8, 8, workload.window, workload.sinks, **{name: clip[name] for name in names})
    streams = [clip[name] for name in ("video", "structure", "audio", "sigma_video", "sigma_structure")]
    with FlopCounterMode(display=False) as counter:
        model.step(*streams, cache, frame=0, write=False, structure_known=known_of(clip))
    wanted = sum(count_flops(model.config, Workload(size=64, window=4, sinks=2)).values())
    assert counter.get_total_flops() == wanted
