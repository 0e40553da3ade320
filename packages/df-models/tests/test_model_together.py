"""Steps of several caches in one batch: each as it would be alone, whatever the others are."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest
import torch

from df_models import UserError
from df_models.model.plan import RingView
from df_models.model.together import StepCall, StepsTogether, _powers_of_two, _ring

TOLERANCE = 1e-5
"""Of float32: a batch sums in another order, as the cache does against the whole clip (test_model_cache)."""


class Talk(NamedTuple):
    """One generation: its clip, and what its cache remembers."""

    samples: int
    window: int
    sinks: int
    begun: int
    seed: int


EVERY = (Talk(2, 3, 1, 0, 1), Talk(1, 3, 1, 5, 2), Talk(1, 5, 0, 2, 3), Talk(2, 2, 2, 1, 4))
"""At their first frame, with a full ring, with other windows and half-filled rings."""
BATCHED = 6
"""Arguments after the first that a batch of several caches gives to the model's pass; a step by itself gives fewer."""
STREAMS = ("video", "structure", "audio", "sigma_video", "sigma_structure")


def opened(model, make_clip, talk: Talk) -> tuple[dict[str, Any], Any]:
    """A clip and a cache with ``begun`` frames in it, made alone."""
    clip = make_clip(model, 12, batch=talk.samples, seed=talk.seed)
    names = [name for name in ("reference_latent", "reference_tokens", "text", "reference_frame") if name in clip]
    cache = model.new_cache(talk.samples, 4, 6, talk.window, talk.sinks, **{name: clip[name] for name in names})
    for frame in range(talk.begun):
        model.step(*(clip[name][:, frame : frame + 1] for name in STREAMS), cache, frame=frame, write=True)
    return clip, cache


def call(clip, cache, *, write=False, chunk=1, **others) -> StepCall:
    part = slice(cache.length, cache.length + chunk)
    return StepCall(*(clip[name][:, part] for name in STREAMS), cache, cache.length, write, **others)


def alone(model, step: StepCall):
    return model.step(**step._asdict())


@pytest.mark.parametrize(
    ("preset", "mask", "chunk"), [("quickstart", "frame", 1), ("dualforce-1.5b", "frame", 1), ("poc", "causal", 2)]
)
def test_generations_in_one_batch_are_each_as_alone(build, make_clip, difference, figure, preset, mask, chunk):
    """Two denoising steps and a write each; the second generation is behind by one, so that some write and some not."""
    model = build(preset, num_layers=2, structure_layers=2, bridge_mask=mask)
    ours, theirs = ([opened(model, make_clip, talk) for talk in EVERY] for _ in range(2))
    chunks = [min(chunk, talk.window) for talk in EVERY]
    together, batches = StepsTogether(model), []
    run = model._run_chunk

    def counted(inputs, *others):
        if len(others) == BATCHED:
            batches.append(len(inputs.structure))
        return run(inputs, *others)

    model._run_chunk = counted
    for number in range(5):
        writes = [(number + (place == 1)) % 3 == 2 for place in range(len(EVERY))]
        calls = [call(*of, write=w, chunk=c) for of, w, c in zip(ours, writes, chunks, strict=True)]
        found = together.step(calls)
        for place, (of, wrote) in enumerate(zip(theirs, writes, strict=True)):
            wanted = alone(model, call(*of, write=wrote, chunk=chunks[place]))
            velocity = found[place]
            assert not isinstance(velocity, Exception)
            for stream, value in zip(wanted._fields, velocity):
                name = f"in one batch against alone, {stream}, fp32"
                figure(name, difference(value, getattr(wanted, stream)), TOLERANCE)
    assert batches == [6] * 5, "all in one batch, once a step"
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert one.length == other.length > 0
        for mine, its in zip(one.rings, other.rings, strict=True):
            figure("in one batch against alone, keys and values", difference(mine.keys, its.keys), TOLERANCE)


def test_a_batch_of_one_is_the_step_itself(build, make_clip):
    model = build(num_layers=1, structure_layers=1, fusion_depth=1)
    (clip, cache), (_, other) = (opened(model, make_clip, EVERY[1]) for _ in "ab")
    (found,) = StepsTogether(model).step([call(clip, cache)])
    wanted = alone(model, call(clip, other))
    assert not isinstance(found, Exception) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_what_is_laid_together_serves_all_steps_of_the_chunks(build, make_clip):
    model = build(num_layers=1, structure_layers=1, fusion_depth=1)
    talks = [opened(model, make_clip, talk) for talk in EVERY]
    heard = [model.hear(clip["audio"][:, c.length :], c, frame=c.length, count=1) for clip, c in talks]
    together, laid = StepsTogether(model), []
    for write in (False, False, True, False):
        together.step([call(*of, write=write, heard=h if len(laid) < 3 else None) for of, h in zip(talks, heard)])
        laid.append(together._laid[0])
    assert laid[0] is laid[1] is laid[2] is not laid[3]
    together.step([call(*talks[0])])
    assert not together._laid, "what nobody reads any more is let go"


def test_one_that_fails_fails_alone(build, make_clip, caplog, monkeypatch):
    model = build(num_layers=1, structure_layers=1, fusion_depth=1)
    talks = [opened(model, make_clip, talk) for talk in EVERY[:3]]
    calls = [call(*of, write=True) for of in talks]
    calls[1] = calls[1]._replace(frame=99)
    found = StepsTogether(model).step(calls)
    assert isinstance(found[1], UserError) and "not 99" in str(found[1])
    assert [cache.length for _, cache in talks] == [1, 5, 3] and not any(isinstance(x, Exception) for x in found[::2])

    run = model._run_chunk

    def full(inputs, *others):
        if len(inputs.structure) > 2:
            raise RuntimeError("out of memory")
        return run(inputs, *others)

    monkeypatch.setattr(model, "_run_chunk", full)
    together = StepsTogether(model)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not any(isinstance(x, Exception) for x in together.step([call(*of) for of in talks]))
    assert caplog.text.count("one by one: out of memory") == 1, "it is not tried again in each step of the chunks"
    assert not together._laid, "and what was laid together for it is let go"

    monkeypatch.setattr(talks[0][1].structure, "write", lambda *_: 1 / 0)
    monkeypatch.setattr(model, "_run_chunk", run)
    found = StepsTogether(model).step([call(*of, write=True) for of in talks])
    assert isinstance(found[0], ZeroDivisionError) and [cache.length for _, cache in talks] == [1, 6, 4]


def test_what_does_not_fit_goes_into_batches_of_its_own(build, make_clip, monkeypatch):
    model = build(num_layers=1, structure_layers=1, fusion_depth=1)
    talks = [opened(model, make_clip, talk) for talk in EVERY]
    sizes, run = [], model._run_chunk

    def counted(inputs, *others):
        if len(others) == BATCHED:
            sizes.append(len(inputs.structure))
        return run(inputs, *others)

    monkeypatch.setattr(model, "_run_chunk", counted)
    StepsTogether(model).step([call(*of, chunk=length) for of, length in zip(talks[:3], (1, 2, 1), strict=True)])
    assert sizes == [3], "the chunk of two frames goes alone, by the step itself"


def test_a_compiled_model_takes_batches_of_few_sizes(build, make_clip, difference):
    """One graph for two caches whatever their frames are, and one for two that write."""
    from torch._dynamo.testing import CompileCounter

    assert [len(part) for part in _powers_of_two(range(7))] == [4, 2, 1]
    torch._dynamo.reset()
    eager, compiled = (build(num_layers=1, structure_layers=1, fusion_depth=1) for _ in range(2))
    counter = CompileCounter()
    compiled.compile_step(backend=counter)
    talks = [Talk(1, 3, 1, 0, 1), Talk(1, 3, 1, 5, 2)]
    ours, theirs = ([opened(eager, make_clip, talk) for talk in talks] for _ in range(2))
    together = StepsTogether(compiled)
    for write in (False, True) * 2:
        found = together.step([call(*of, write=write) for of in ours])
        assert [len(laid.plans) for laid in together._laid] == [2]
        for of, velocity in zip(theirs, found, strict=True):
            wanted = alone(eager, call(*of, write=write))
            assert not isinstance(velocity, Exception), velocity
            assert max(difference(a, b) for a, b in zip(velocity, wanted, strict=True)) <= TOLERANCE
    assert counter.frame_count == 2


def test_given_entries_of_some_are_not_those_of_others(build, make_clip, difference):
    model = build(num_layers=1, structure_layers=1, fusion_depth=1, structure_known=True)
    talks = [opened(model, make_clip, talk) for talk in EVERY[:2]]
    known = torch.zeros(2, 1, 4, model.config.structure_dim, dtype=torch.bool)
    known[..., 2:5] = True
    calls = [call(*talks[0], structure_known=known), call(*talks[1])]
    wanted = [alone(model, each) for each in calls]
    for mine, its in zip(StepsTogether(model).step(calls), wanted, strict=True):
        assert not isinstance(mine, Exception)
        assert max(difference(a, b) for a, b in zip(mine, its, strict=True)) <= TOLERANCE
    assert difference(alone(model, calls[0]._replace(structure_known=None)).video, wanted[0].video) > 1e-3


def test_a_shorter_ring_gets_places_that_nobody_sees():
    """Two places of two tokens and three of them, one own frame of two tokens; the first sees one place of its own."""

    def view(places: int, mask: torch.Tensor | None) -> RingView:
        stored = torch.ones(1, 1, places, 2, 1, 4)
        return RingView(stored, stored, torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, 2), mask)

    hidden = torch.zeros(3, 6)
    hidden[:, 2:4] = -torch.inf
    ring = _ring([view(2, hidden), view(3, None)], [1, 2])
    assert ring is not None and ring.mask is not None
    assert ring.keys_YBFNHK.shape == (1, 2, 3, 2, 1, 4) and not ring.keys_YBFNHK[:, 0, 2].any()
    assert ring.query_table_CNP2.shape == (3, 1, 3, 2, 2) and ring.own_table_CNP2.shape == (3, 1, 2, 2, 2)
    seen = ring.mask == 0
    assert seen.shape == (3, 1, 3, 8)
    assert seen[0, 0, 0].tolist() == [True, True, False, False, False, False, True, True] and seen[1:].all()
    full = _ring([view(3, None), view(3, None)], [1, 1])
    assert full is not None and full.mask is None, "where all is seen, no mask is made"
