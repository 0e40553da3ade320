"""Generating against the cache equals the whole-clip forward, and the cache never grows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from df_models import DualForce, UserError, presets
from df_models.attention.masks import FrameLayout
from df_models.attention.rope import rotate, slot_offsets
from df_models.model.config import BridgeDirection, BridgeMask
from df_models.model.plan import Geometry, clip_pass
from df_models.time import latent_length

TOLERANCE = 1e-5


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("mask", ["frame", "causal"])
@pytest.mark.parametrize("preset", presets())
def test_cached_generation_equals_the_whole_forward(build, make_clip, rollout, difference, figure, preset, mask, chunk):
    model = build(preset, bridge_mask=mask)
    clip = make_clip(model, frames=7)
    with torch.no_grad():
        wanted = model(**clip)
    for window, sinks in ((7, 0), (9, 2), (6, 1)):
        for stream, found in zip(wanted._fields, rollout(model, clip, chunk, window, sinks)):
            figure(f"cached against whole, {stream}, fp32", difference(found, getattr(wanted, stream)), TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("mask", get_args(BridgeMask))
@pytest.mark.parametrize("direction", get_args(BridgeDirection))
def test_cached_equals_whole_in_every_bridge_direction(
    build, make_clip, rollout, difference, figure, direction, mask, chunk
):
    model = build(bridge_direction=direction, bridge_mask=mask)
    reads = (model.config.bridge_to_video, model.config.bridge_to_structure)
    assert reads == {"both": (True, True), "struct_to_video": (True, False), "none": (False, False)}[direction]
    clip = make_clip(model, frames=7)
    with torch.no_grad():
        wanted = model(**clip)
    for stream, found in zip(wanted._fields, rollout(model, clip, chunk, 7, 0)):
        figure(f"cached against whole, {stream}, fp32", difference(found, getattr(wanted, stream)), TOLERANCE)
    cache = model.new_cache(2, 4, 6, 3, 1)
    rings = (cache.bridge_to_video is not None, cache.bridge_to_structure is not None)
    assert rings == (reads if mask == "causal" else (False, False))


@pytest.mark.parametrize(("direction", "rings"), [("both", "to_video to_structure"), ("struct_to_video", "to_video")])
def test_a_missing_ring_of_the_bridge_is_a_fault(build, make_clip, direction, rings):
    model = build(bridge_direction=direction, bridge_mask="causal")
    clip = make_clip(model, 1)
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    for ring in rings.split():
        cache = model.new_cache(2, 4, 6, 3, 1)
        setattr(cache, f"bridge_{ring}", None)
        with pytest.raises(AssertionError, match="another bridge"):
            model.step(*(clip[name] for name in names), cache, frame=0, write=True)


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_quickstart_preset_in_its_full_size_too(make_clip, rollout, difference, figure, fill_zeros, chunk):
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart").eval()
    fill_zeros(model)
    clip = make_clip(model, frames=7, batch=1, size=(8, 8))
    with torch.no_grad():
        wanted = model(**clip)
    for stream, found in zip(wanted._fields, rollout(model, clip, chunk, 7, 0)):
        name = f"cached against whole, quickstart in full size, {stream}, fp32"
        figure(name, difference(found, getattr(wanted, stream)), TOLERANCE)


@pytest.mark.parametrize("preset", presets())
def test_cached_generation_in_bfloat16_stays_close(build, make_clip, rollout, difference, figure, preset):
    model = build(preset).bfloat16()
    clip = make_clip(model, frames=7)
    with torch.no_grad():
        wanted = model(**clip)
    for stream, found in zip(wanted._fields, rollout(model, clip, 1, 7, 0)):
        figure(f"cached against whole, {stream}, bf16", difference(found, getattr(wanted, stream)), 0.05)


class _WindowedReference:
    """Attention of a whole sequence, chunk by chunk, written out: who is visible, and its rank as its position."""

    def __init__(self, frames, chunk, window, sinks, query_table, key_table):
        self.frames, self.chunk, self.window, self.sinks = frames, chunk, window, sinks
        self.query_table, self.key_table = query_table, key_table

    def __call__(self, q, k, v):
        outputs = []
        for frame in range(self.frames):
            start = frame - frame % self.chunk
            end = min(start + self.chunk, self.frames)
            seen_by_chunk = [j for j in range(end) if j < self.sinks or j >= end - self.window]
            rank = {j: seen_by_chunk.index(j) for j in seen_by_chunk}
            seen = [j for j in seen_by_chunk if j <= frame]
            query = rotate(q[:, frame : frame + 1], self.query_table([rank[frame]], [frame]))
            keys = rotate(k[:, seen], self.key_table([rank[j] for j in seen], seen)).flatten(1, 2)
            values = v[:, seen].flatten(1, 2)
            scores = torch.einsum("bqhk,bmhk->bhqm", query.flatten(1, 2), keys) / q.shape[-1] ** 0.5
            outputs.append(torch.einsum("bhqm,bmhk->bqhk", scores.softmax(-1), values))
        return torch.stack(outputs, dim=1)


def _windowed_forward(model, clip, chunk, window, sinks):
    frames, config = clip["video"].shape[1], model.config
    geometry = Geometry(config, model.video.grid(*clip["video"].shape[-2:]), torch.device("cpu"))

    def video_table(ranks, _frames):
        return geometry.video(torch.tensor(ranks, dtype=torch.float64), config.dim, config.num_heads)

    def structure_table(ranks, frames_):
        return geometry.structure(torch.tensor(ranks, dtype=torch.float64), tuple(frames_))

    def bridge_table(index):
        return lambda ranks, at: geometry.bridge(torch.tensor(ranks, dtype=torch.float64), tuple(at))[index]

    def attend(query, key):
        return _WindowedReference(frames, chunk, window, sinks, query, key)

    contexts = model._contexts(clip.get("reference_tokens"), clip.get("text"))
    audio = model._hear(
        clip["audio"].flatten(1, 2), geometry.audio(tuple(range(frames)), 0, 4 * clip["audio"].shape[1], None)
    )
    plan = clip_pass(geometry, FrameLayout.clip(frames), *contexts, audio, "sdpa")
    exchange = plan.exchange(0)
    if config.bridge_mask == "causal":
        video, structure = bridge_table(0), bridge_table(1)
        exchange = replace(exchange, to_video=attend(video, structure), to_structure=attend(structure, video))
    plan = replace(
        plan,
        attend_video=lambda _: attend(video_table, video_table),
        attend_structure=lambda _: attend(structure_table, structure_table),
        exchange=lambda _: exchange,
    )
    from df_models.model.inputs import Inputs, aligned_frames, with_reference

    video = with_reference(
        clip["video"], clip["reference_latent"], aligned_frames(tuple(range(frames)), clip["reference_frame"])
    )
    inputs = Inputs(**{**{name: clip[name] for name in Inputs._fields}, "video": video})
    with torch.no_grad():
        return model._run(inputs, plan, last=frames)


@pytest.mark.parametrize("mask", ["frame", "causal"])
@pytest.mark.parametrize(
    ("chunk", "window", "sinks"), [(1, 3, 0), (1, 1, 2), (1, 3, 2), (3, 3, 1), (3, 5, 0), (2, 4, 3)]
)
def test_a_short_window_equals_the_windowed_forward(
    build, make_clip, rollout, difference, figure, chunk, window, sinks, mask
):
    model = build(bridge_mask=mask)
    clip = make_clip(model, frames=10)
    wanted = _windowed_forward(model, clip, chunk, window, sinks)
    for stream, found in zip(wanted._fields, rollout(model, clip, chunk, window, sinks)):
        name = f"cached with a short window against the same windowed mask, {stream}, fp32"
        figure(name, difference(found, getattr(wanted, stream)), TOLERANCE)
    with torch.no_grad():
        unlimited = model(**clip)
    assert difference(unlimited.video, wanted.video) > 1e-3


@pytest.mark.parametrize("mask", ["frame", "causal"])
def test_memory_and_work_per_frame_stay_the_same_over_513_frames(build, make_clip, mask):
    """Once the window is full, each of 129 latent frames takes the same storage, positions and operations."""
    window, sinks, frames = 3, 2, latent_length(513)
    model = build(bridge_mask=mask)
    clip = make_clip(model, frames, batch=1, size=(2, 2))
    cache = model.new_cache(1, 2, 2, window, sinks, reference_latent=clip["reference_latent"])
    storage = [(x.data_ptr(), x.shape) for ring in cache.rings for x in (ring.keys, ring.values)]
    size, work = cache.bytes, []
    for frame in range(frames):
        part = slice(frame, frame + 1)
        chunk = cache.chunk(frame, 1)
        assert max(chunk.stored_positions.max(), chunk.own_positions.max()) <= sinks + window - 1
        assert chunk.own_positions.item() == min(frame, sinks + window - 1)
        arguments = [clip[n][:, part] for n in ("video", "structure", "audio", "sigma_video", "sigma_structure")]
        counted = frame in (0, window + sinks, frames // 2, frames - 1)  # counting takes longer than the step
        with FlopCounterMode(display=False) if counted else nullcontext() as counter:
            model.step(*arguments, cache, frame=frame, write=True)
        if counter is not None:
            work.append(counter.get_total_flops())
        assert cache.plan is None
    assert [(x.data_ptr(), x.shape) for ring in cache.rings for x in (ring.keys, ring.values)] == storage
    assert cache.bytes == size
    assert len(work) == 4 and len(set(work)) == 1
    assert sorted(cache.stored_frames()) == [0, 1, frames - 2, frames - 1]


def test_without_write_nothing_in_the_cache_changes(build, make_clip):
    model = build(bridge_mask="causal")
    clip = make_clip(model, 4)
    cache = model.new_cache(2, 4, 6, 3, 1)

    def step(frame, write, chunk=1):
        names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
        arguments = [clip[name][:, frame : frame + chunk] for name in names]
        return model.step(*arguments, cache, frame=frame, write=write)

    step(0, True)
    kept = [x.clone() for ring in cache.rings for x in (ring.keys, ring.values)] + [cache.audio_past_BAF.clone()]
    first = step(1, False)
    step(1, False, chunk=3)
    assert torch.equal(first.video, step(1, False).video)
    now = [x for ring in cache.rings for x in (ring.keys, ring.values)] + [cache.audio_past_BAF]
    assert all(torch.equal(old, new) for old, new in zip(kept, now))
    assert cache.length == 1
    step(1, True)
    assert cache.length == 2
    assert not torch.equal(kept[0], cache.video.keys)


@pytest.mark.parametrize(("chunk", "window", "sinks"), [(1, 3, 1), (2, 3, 0), (2, 4, 3)])
def test_rewinding_brings_every_moment_back(build, make_clip, chunk, window, sinks):
    """Marks taken before chunks, other chunks stored over them: rewound one by one, each moment is as it was."""
    model = build(bridge_mask="causal")
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    clip, other = make_clip(model, frames=10), make_clip(model, frames=10)
    cache = model.new_cache(2, 4, 6, window, sinks, reference_latent=clip["reference_latent"])

    def step(of, frame, write=True):
        inputs = [of[name][:, frame : frame + chunk] for name in names]
        return model.step(*inputs, cache, frame=frame, write=write)

    marks, seen = [], []
    for frame in range(0, 10, chunk):
        seen.append(step(other, frame, write=False))
        marks.append(cache.mark(chunk))
        step(clip, frame)
    for mark, was in zip(reversed(marks), reversed(seen)):
        cache.rewind(mark)
        now = step(other, mark.length, write=False)
        assert cache.length == mark.length and all(torch.equal(a, b) for a, b in zip(now, was))


def test_missing_lookahead_is_like_the_end_of_the_clip(build, make_clip):
    model = build(audio_future=4)
    clip = make_clip(model, 1)
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    step = [clip[name] for name in names]
    cache = model.new_cache(2, 4, 6, 3, 1, reference_latent=clip["reference_latent"])
    with torch.no_grad():
        alone = model(*step, clip["reference_latent"])
    assert torch.allclose(model.step(*step, cache, frame=0, write=False).video, alone.video, atol=1e-5)
    step[2] = torch.cat([step[2], torch.randn_like(step[2])], dim=1)
    ahead = model.step(*step, cache, frame=0, write=False).video
    assert not torch.allclose(ahead, alone.video, atol=1e-4)
    step[2] = torch.cat([step[2], torch.randn_like(clip["audio"])], dim=1)
    assert torch.equal(model.step(*step, cache, frame=0, write=False).video, ahead)


def test_mistakes_are_told(build, make_clip):
    model = build()
    clip = make_clip(model, 4)
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    cache = model.new_cache(2, 4, 6, window=3, sinks=1, reference_latent=clip["reference_latent"])
    with pytest.raises(UserError, match="does not fit a window of 3"):
        model.step(*(clip[name] for name in names), cache, frame=0, write=False)
    one = [clip[name][:, :1] for name in names]
    with pytest.raises(UserError, match="the next is 0, not 2"):
        model.step(*one, cache, frame=2, write=False)
    with pytest.raises(UserError, match="window >= 1"):
        model.new_cache(2, 4, 6, window=0, sinks=1)
    with pytest.raises(UserError, match="reference_latent must be"):
        model.new_cache(2, 4, 6, window=1, sinks=1, reference_latent=torch.zeros(2, 16, 4, 4))


def test_slot_offsets_mark_the_first_frame():
    assert slot_offsets((0, 5)).tolist() == [[0, 0, 0, 0], [-0.75, -0.5, -0.25, 0]]


@pytest.mark.parametrize("preset", presets())
def test_what_a_chunk_hears_is_made_once_for_all_its_steps(build, make_clip, preset):
    """The same to the bit, for less work at each denoising step."""
    model = build(preset)
    clip = make_clip(model, frames=4)
    inputs = [clip[name] for name in ("video", "structure", "audio", "sigma_video", "sigma_structure")]
    caches = [model.new_cache(2, 4, 6, 2, 1) for _ in range(2)]
    with torch.no_grad():
        for frame in range(4):
            chunk = [None if value is None else value[:, frame : frame + 1] for value in inputs]
            heard = model.hear(chunk[2], caches[0], frame=frame, count=1, audio_future=1)
            assert heard is not None
            for write in (False, False, True):
                told = {"frame": frame, "write": write, "audio_future": 1}
                with FlopCounterMode(display=False) as with_it:
                    first = model.step(*chunk, caches[0], heard=heard, **told)
                with FlopCounterMode(display=False) as without:
                    second = model.step(*chunk, caches[1], **told)
                assert torch.equal(first.video, second.video) and torch.equal(first.structure, second.structure)
                assert with_it.get_total_flops() < without.get_total_flops()
    with pytest.raises(UserError, match="audio must be"):
        model.hear(inputs[2][:1], caches[0], frame=4, count=1)
