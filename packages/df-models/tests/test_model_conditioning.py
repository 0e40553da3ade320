"""Conditions reach the frames that they belong to, gates start closed, noise levels stay apart and in float32."""

from __future__ import annotations

import pytest
import torch

from df_models import presets
from df_models.attention.masks import FrameLayout
from df_models.attention.rope import aligned_time_table, pair_split, time_table, video_table
from df_models.model.audio import HeardAudio, audio_windows
from df_models.model.inputs import aligned_frames, with_reference
from df_models.model.plan import Geometry, clip_pass
from df_models.time import SLOTS, pixels_of_latent, slot_positions, video_positions

FRAMES = 5


def _fusion_outputs(model, audio, video, structure, frames=FRAMES):
    """The first fusion layer alone: no self-attention carries anything from frame to frame."""
    geometry = Geometry(model.config, (2, 3), torch.device("cpu"))
    contexts = model._contexts(None, None)
    layout = FrameLayout.clip(frames)
    heard = model._hear(audio.flatten(1, 2), geometry.audio(layout.frames, 0, SLOTS * audio.shape[1], None))
    plan = clip_pass(geometry, layout, *contexts, heard, "sdpa")
    with torch.no_grad():
        return model.fusion[0](video, structure, plan.exchange(0))


def _states(model, frames=FRAMES):
    torch.manual_seed(3)
    return torch.randn(1, frames, 6, model.config.dim), torch.randn(1, frames, 4, model.config.structure_width)


@pytest.mark.parametrize(("past", "future"), [(0, 0), (6, 4), (5, 3), (9, 8)])
def test_each_latent_frame_hears_exactly_its_window(build, past, future):
    model = build(audio_past=past, audio_future=future, bridge_direction="none")
    audio = torch.randn(1, FRAMES, SLOTS, model.config.audio_dim)
    states = _states(model)
    before = _fusion_outputs(model, audio, *states)
    last_pixel = 4 * (FRAMES - 1)
    for pixel in range(last_pixel + 1):
        changed = audio.clone()
        slots = changed.flatten(1, 2)
        slots[:, pixel + 3] += 1.0
        after = _fusion_outputs(model, changed, *states)
        for old, new in zip(before, after):
            hears = [not torch.equal(old[:, k], new[:, k]) for k in range(FRAMES)]
            wanted = [4 * k - 3 - past <= pixel <= 4 * k + future for k in range(FRAMES)]
            assert hears == wanted, pixel


def test_the_repeats_in_the_first_latent_frame_are_not_heard_twice(build):
    model = build(bridge_direction="none")
    audio = torch.randn(1, FRAMES, SLOTS, model.config.audio_dim)
    before = _fusion_outputs(model, audio, *_states(model))
    audio[:, 0, :3] += 1.0
    for old, new in zip(before, _fusion_outputs(model, audio, *_states(model))):
        assert torch.equal(old, new)


def test_at_first_each_structure_slot_hears_mostly_its_own_token(build):
    torch.manual_seed(0)
    attention = build().fusion[0].audio_to_structure
    tokens = torch.zeros(1, 1, SLOTS, attention.k.in_features)
    windows = audio_windows((3,), 0, 20, past=2, future=2, head_dim=12, theta=1e4, device=torch.device("cpu"))
    with torch.no_grad():
        query = attention.q(0.1 * torch.randn(1, 1, SLOTS, attention.q.in_features))
        before = attention(query, HeardAudio(tokens, windows))
        moved = [
            (attention(query, HeardAudio(_raised(tokens, slot), windows)) - before).norm(dim=-1).flatten()
            for slot in range(SLOTS)
        ]
    assert torch.equal(torch.stack(moved).argmax(dim=0), torch.arange(SLOTS))


def _raised(tokens, slot):
    raised = tokens.clone()
    raised[:, :, slot] = 1.0
    return raised


def test_audio_is_told_apart_by_time_only_relative_to_the_frame(build):
    """The same audio one latent frame later does the same to the next frame: no 4x and no off-by-one position."""
    model = build(bridge_direction="none", audio_past=4, audio_future=4)
    video, structure = _states(model, frames=1)
    video, structure = video.expand(-1, 7, -1, -1), structure.expand(-1, 7, -1, -1)
    audio = torch.randn(1, 7, SLOTS, model.config.audio_dim)
    shifted = torch.cat([audio[:, :1], audio[:, :-1]], dim=1)
    for first, second in zip(
        _fusion_outputs(model, audio, video, structure, 7), _fusion_outputs(model, shifted, video, structure, 7)
    ):
        torch.testing.assert_close(first[:, 2:5], second[:, 3:6])
        assert not torch.allclose(first[:, 2:5], first[:, 3:6])


def test_the_bridge_joins_the_same_latent_frame_at_both_ends(build):
    model = build(bridge_direction="both")
    audio = torch.randn(1, FRAMES, SLOTS, model.config.audio_dim)
    video, structure = _states(model)
    before = _fusion_outputs(model, audio, video, structure)
    for frame in range(FRAMES):
        for slot in range(SLOTS):
            changed = structure.clone()
            changed[:, frame, slot] += torch.randn(model.config.structure_width)
            after = _fusion_outputs(model, audio, video, changed)
            moved = [not torch.equal(before[0][:, k], after[0][:, k]) for k in range(FRAMES)]
            assert moved == [k == frame for k in range(FRAMES)]
        changed = video.clone()
        changed[:, frame] += torch.randn(model.config.dim)
        after = _fusion_outputs(model, audio, changed, structure)
        moved = [not torch.equal(before[1][:, k], after[1][:, k]) for k in range(FRAMES)]
        assert moved == [k == frame for k in range(FRAMES)]


def test_both_streams_turn_by_the_same_time():
    """A structure slot at pixel 4k turns like video's latent frame k; the one before it, a quarter less."""
    head_dim, theta = 64, 1e4
    pairs = pair_split(head_dim)[0]
    video = video_table(video_positions(FRAMES), (2, 2), head_dim, theta)
    slots = aligned_time_table(slot_positions(FRAMES), head_dim, theta)
    for frame in range(FRAMES):
        assert len(pixels_of_latent(frame)) in (1, SLOTS)
        torch.testing.assert_close(slots[frame, -1, :pairs], video[frame, 0, :pairs])
    angles = torch.view_as_complex(time_table(slot_positions(FRAMES), head_dim, theta))[:, :, 0].angle()
    torch.testing.assert_close(angles[1], torch.tensor([0.25, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(angles[0], torch.zeros(4))


def test_every_gate_starts_closed_but_its_gradient_is_open(build, make_clip, fill_zeros):
    for preset in presets():
        model = build(preset, opened=False)
        fill_zeros(model.video.head)
        fill_zeros(model.structure.head)
        clip = make_clip(model, 3)
        found = model(**clip)
        inputs = with_reference(
            clip["video"], clip["reference_latent"], aligned_frames((0, 1, 2), clip["reference_frame"])
        )
        reference = model.reference(clip["reference_tokens"])
        alone = model.video(inputs, clip["sigma_video"], clip.get("text"), reference=reference)
        assert torch.equal(found.video, alone)
        found.video.square().sum().backward()
        gates = {name: p for name, p in model.named_parameters() if "gate" in name and "structure" not in name}
        assert len(gates) == 2 * model.config.fusion_depth
        for name, gate in gates.items():
            assert not gate.detach().any() and bool((gate.grad != 0).all()), name


def test_the_first_velocity_is_zero(build, make_clip):
    model = build(opened=False)
    found = model(**make_clip(model, 2))
    assert not found.video.any() and not found.structure.any()


def test_the_reference_stands_in_every_frame_and_its_mask_in_one(build):
    video, reference = torch.zeros(2, 4, 3, 2, 2), torch.randn(2, 3, 2, 2)
    inputs = with_reference(video, reference, aligned_frames((5, 6, 7, 8), torch.tensor([7, -1])))
    assert torch.equal(inputs[:, :, 7:], reference[:, None].expand(-1, 4, -1, -1, -1))
    assert inputs[0, :, 3:7].flatten(1).mean(1).tolist() == [0, 0, 1, 0]
    assert not inputs[1, :, 3:7].any()


def test_heads_and_blocks_use_each_frames_own_noise_level(build, make_clip):
    model = build(bridge_direction="none")
    for tower in (model.video, model.structure):
        sigma = torch.full((1, FRAMES), 0.5)
        other = sigma.clone()
        other[:, 2] = 0.9
        x = torch.randn(1, FRAMES, 4, tower.config.dim)
        with torch.no_grad():
            old = tower.head(x, tower.embed_noise(sigma).embedding_BTD)
            new = tower.head(x, tower.embed_noise(other).embedding_BTD)
        assert [torch.equal(old[:, k], new[:, k]) for k in range(FRAMES)] == [True, True, False, True, True]


def test_a_noise_level_moves_only_its_own_stream_where_no_bridge_joins_them(build, make_clip):
    model = build(bridge_direction="none")
    clip = make_clip(model, FRAMES)
    with torch.no_grad():
        before = model(**clip)
        after = model(**{**clip, "sigma_video": clip["sigma_video"] * 0.5})
    assert torch.equal(before.structure, after.structure)
    assert not torch.equal(before.video, after.video)


@pytest.mark.parametrize("autocast", [False, True])
def test_noise_levels_stay_float32_in_bfloat16(build, autocast):
    tower = build().bfloat16().video
    sigma = torch.tensor([[0.5000, 0.5003]])
    assert sigma.bfloat16()[0, 0] == sigma.bfloat16()[0, 1]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = tower.embed_noise(sigma)
    assert found.embedding_BTD.dtype == found.projection_BT6D.dtype == torch.float32
    wanted = tower.float().embed_noise(sigma)
    torch.testing.assert_close(found.projection_BT6D, wanted.projection_BT6D)
    assert not torch.equal(found.embedding_BTD[:, 0], found.embedding_BTD[:, 1])


def test_bfloat16_keeps_the_structure_statistics_exact(build):
    model = build()
    mean, std = torch.randn(model.config.structure_dim), torch.rand(model.config.structure_dim) + 0.1
    model.set_structure_statistics(mean, std)
    model.bfloat16()
    assert torch.equal(model.structure_mean, mean) and torch.equal(model.structure_std, std)
    raw = torch.randn(2, 3, 4, model.config.structure_dim)
    torch.testing.assert_close(model.denormalize_structure(model.normalize_structure(raw)), raw)
    normal = model.normalize_structure(mean + 2 * std)
    torch.testing.assert_close(normal, torch.full_like(normal, 2.0))


@pytest.mark.parametrize(("every", "again"), [(True, [1, 1, 1]), (1, [1, 1, 1]), (2, [1, 0, 1]), (5, [1, 0, 0])])
def test_gradient_checkpointing_changes_nothing(build, make_clip, every, again):
    model = build(num_layers=3, structure_layers=3)
    clip = make_clip(model, 3)
    calls = [0, 0, 0]
    for blocks in (model.video.blocks, model.structure.blocks):
        for layer, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, layer=layer: calls.__setitem__(layer, calls[layer] + 1))

    def gradients():
        model.zero_grad()
        velocity = model(**clip)
        (velocity.video.square().mean() + velocity.structure.square().mean()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    assert calls == [2, 2, 2]
    model.gradient_checkpointing = every
    found = gradients()
    assert plain.keys() == found.keys() and len(plain) > 50
    assert all(torch.equal(plain[name], found[name]) for name in plain)
    assert [count - 4 for count in calls] == [2 * count for count in again], "layers run again, in both towers"


def test_every_parameter_learns(build, make_clip):
    for preset in presets():
        model = build(preset)
        clip = make_clip(model, 3)
        velocity = model(**clip)
        flame = model.predict_flame(clip["structure"])
        (velocity.video.square().mean() + velocity.structure.square().mean() + flame.square().mean()).backward()
        still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not still
