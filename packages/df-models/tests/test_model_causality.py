"""No token sees a later latent frame, by any path: what comes later may change, what came before stays bit-equal."""

from __future__ import annotations

import pytest
import torch

from df_models import History, presets
from df_models.errors import UserError

DIRECTIONS = ("both", "struct_to_video", "none")
MASKS = ("frame", "causal")
FRAMES, CHANGED = 5, 3


def _forward(model, clip, **changes):
    with torch.no_grad():
        return model(**{**clip, **changes})


def _perturbed(tensor, frame, amount=1.0):
    changed = tensor.clone()
    changed[:, frame] += amount
    return changed


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("preset", presets())
def test_later_frames_never_reach_earlier_ones(build, make_clip, preset, direction, mask):
    model = build(preset, bridge_direction=direction, bridge_mask=mask)
    clip = make_clip(model, FRAMES)
    before = _forward(model, clip)
    for name in ("video", "structure", "sigma_video", "sigma_structure"):
        after = _forward(model, clip, **{name: _perturbed(clip[name], CHANGED, 0.1)})
        for stream in ("video", "structure"):
            old, new = getattr(before, stream), getattr(after, stream)
            assert torch.equal(old[:, :CHANGED], new[:, :CHANGED]), (name, stream)
        own = "video" if "video" in name else "structure"
        assert not torch.equal(getattr(before, own)[:, CHANGED], getattr(after, own)[:, CHANGED])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("chunk", [2, 3])
def test_later_frames_of_a_chunk_never_reach_its_earlier_ones(build, make_clip, preset, direction, mask, chunk):
    """Against a cache of two written frames, with a window that has just slid."""
    model = build(preset, bridge_direction=direction, bridge_mask=mask, audio_future=2)
    clip = make_clip(model, 2 + chunk)
    cache = model.new_cache(2, 4, 6, window=chunk + 1, sinks=0, reference_latent=clip["reference_latent"])
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")

    def step(inputs, first, count, write):
        streams = [inputs[name][:, first : first + count] for name in names]
        return model.step(*streams, cache, frame=first, write=write)

    for frame in range(2):
        step(clip, frame, 1, True)
    before = step(clip, 2, chunk, False)
    for name in names:
        later = {**clip, name: _perturbed(clip[name], 1 + chunk, 0.1)}
        if name == "audio":
            later["audio"][:, 1 + chunk, :2] = clip["audio"][:, 1 + chunk, :2]
        after = step(later, 2, chunk, False)
        for stream in ("video", "structure"):
            old, new = getattr(before, stream), getattr(after, stream)
            assert torch.equal(old[:, :-1], new[:, :-1]), (name, stream)
        own = "video" if "video" in name else "structure"
        assert not torch.equal(getattr(before, own)[:, -1], getattr(after, own)[:, -1]), name


@pytest.mark.parametrize("preset", presets())
def test_audio_beyond_the_window_never_reaches_a_frame(build, make_clip, preset):
    model = build(preset, audio_future=2)
    clip = make_clip(model, FRAMES)
    before = _forward(model, clip)
    frame = 2
    later = clip["audio"].clone()
    later.flatten(1, 2)[:, 4 * frame + 4 + 2 :] += 1.0
    after = _forward(model, clip, audio=later)
    assert torch.equal(before.video[:, : frame + 1], after.video[:, : frame + 1])
    assert torch.equal(before.structure[:, : frame + 1], after.structure[:, : frame + 1])
    edge = clip["audio"].clone()
    edge.flatten(1, 2)[:, 4 * frame + 4 + 1] += 1.0
    after = _forward(model, clip, audio=edge)
    assert not torch.equal(before.video[:, frame], after.video[:, frame])
    assert torch.equal(before.video[:, :frame], after.video[:, :frame])


@pytest.mark.parametrize(("direction", "reaches"), [("both", True), ("struct_to_video", False), ("none", False)])
def test_bridge_direction_decides_who_hears_whom(build, make_clip, direction, reaches):
    model = build(bridge_direction=direction)
    clip = make_clip(model, 3)
    before = _forward(model, clip)
    after = _forward(model, clip, video=clip["video"] + 1)
    assert torch.equal(before.structure, after.structure) is not reaches
    after = _forward(model, clip, structure=clip["structure"] + 1)
    assert torch.equal(before.video, after.video) is (direction == "none")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("preset", presets())
def test_teacher_forcing_shows_each_noisy_frame_the_history_before_it_and_itself(build, make_clip, preset, mask):
    model = build(preset, bridge_mask=mask)
    clip, past = make_clip(model, FRAMES), make_clip(model, FRAMES, seed=2)
    history = History(past["video"], past["structure"], past["sigma_video"] * 0.1, past["sigma_structure"] * 0.1)
    before = _forward(model, clip, history=history)
    for field in History._fields:
        changed = history._replace(**{field: _perturbed(getattr(history, field), CHANGED, 0.1)})
        after = _forward(model, clip, history=changed)
        for old, new in zip(before, after):
            assert torch.equal(old[:, : CHANGED + 1], new[:, : CHANGED + 1]), field
        own = "video" if "video" in field else "structure"
        assert not torch.equal(getattr(before, own)[:, CHANGED + 1], getattr(after, own)[:, CHANGED + 1]), field
    for name in ("video", "structure", "sigma_video", "sigma_structure"):
        after = _forward(model, clip, history=history, **{name: _perturbed(clip[name], CHANGED, 0.1)})
        for old, new in zip(before, after):
            assert torch.equal(old[:, :CHANGED], new[:, :CHANGED]), name
            assert torch.equal(old[:, CHANGED + 1 :], new[:, CHANGED + 1 :]), name
        own = "video" if "video" in name else "structure"
        assert not torch.equal(getattr(before, own)[:, CHANGED], getattr(after, own)[:, CHANGED])


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_teacher_forcing_equals_generation_from_that_history(build, make_clip, difference, chunk):
    model = build()
    clip, past = make_clip(model, FRAMES), make_clip(model, FRAMES, seed=2)
    low = {name: past[name] * 0.1 for name in ("sigma_video", "sigma_structure")}
    history = History(past["video"], past["structure"], low["sigma_video"], low["sigma_structure"])
    wanted = _forward(model, clip, history=history, chunk=chunk)
    conditions = {name: clip[name] for name in ("reference_latent", "reference_tokens", "reference_frame")}
    cache = model.new_cache(2, 4, 6, window=FRAMES, sinks=0, **conditions)
    for frame in range(0, FRAMES, chunk):
        part = slice(frame, frame + chunk)
        audio = clip["audio"][:, frame:]
        sigmas = clip["sigma_video"][:, part], clip["sigma_structure"][:, part]
        noisy = clip["video"][:, part], clip["structure"][:, part]
        found = model.step(*noisy, audio, *sigmas, cache, frame=frame, write=False)
        assert difference(found.video, wanted.video[:, part]) < 1e-5
        assert difference(found.structure, wanted.structure[:, part]) < 1e-5
        clean = past["video"][:, part], past["structure"][:, part]
        levels = low["sigma_video"][:, part], low["sigma_structure"][:, part]
        model.step(*clean, audio, *levels, cache, frame=frame, write=True)


def test_a_whole_tower_without_causality_sees_everything(build, make_clip):
    tower = build().video
    video, sigma = torch.randn(1, 4, 36, 4, 4), torch.rand(1, 4)
    changed = _perturbed(video, 3)
    with torch.no_grad():
        assert torch.equal(tower(video, sigma)[:, :3], tower(changed, sigma)[:, :3])
        full, full_changed = tower(video, sigma, causal=False), tower(changed, sigma, causal=False)
    assert not torch.equal(full[:, 0], full_changed[:, 0])


@pytest.mark.parametrize("arguments", [{"chunk": 2}, {"chunk": 0}])
def test_a_chunk_without_a_history_is_refused(build, make_clip, arguments):
    model = build()
    with pytest.raises(UserError, match="chunk must be at least 1, and 1 without a history"):
        _forward(model, make_clip(model, FRAMES), **arguments)
