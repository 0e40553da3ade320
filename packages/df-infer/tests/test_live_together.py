"""Sessions whose chunks are made together: each as it would be alone, whatever becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from df_infer import Session
from df_infer.live.session import Segment
from df_infer.pipeline import Pipeline
from df_infer.sampling.steps import Asked, together
from df_infer.serve.engine import WHENEVER, Engine
from df_models.encoders import random_tiny_vae
from df_models.media import read_image
from df_models.model.together import Ready, StepsTogether
from df_models.motion import Motion

STRUCTURE, PIXEL = 2e-4, 1
"""As clips in a batch (test_many): float32 sums are rounded otherwise, over some chunks; a pixel may fall to the next
of 256 levels."""
SETTINGS: list[dict[str, Any]] = [
    {"window": 3},
    {"window": 5, "sinks": 0, "audio_guidance": 2.0, "steps": 3},
    {"chunk": 2, "window": 4},
    {"window": 3, "context_noise": 0.3, "audio_future": 0, "start": "generate"},
]
"""Other windows, guidance (copies of the batch), steps, lengths of a chunk, lookahead."""


@pytest.fixture(scope="module")
def pipeline(files) -> Pipeline:
    return Pipeline.from_run(files.run, "cpu", vae=random_tiny_vae())


def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of each batch of several sessions from now on."""
    sizes: list[int] = []
    run = StepsTogether._together

    def counted(self: StepsTogether, batch: list[Ready], *rest: Any) -> Any:
        sizes.append(sum(len(ready.inputs.structure) for ready in batch))
        return run(self, batch, *rest)

    monkeypatch.setattr(StepsTogether, "_together", counted)
    return sizes


@pytest.fixture(scope="module")
def image(files) -> np.ndarray:
    return read_image(files.image)


def opened(pipeline: Pipeline, image: np.ndarray, place: int) -> Session:
    rollout = pipeline.rollout.model_copy(update=SETTINGS[place])
    track = np.random.default_rng(place).normal(size=(9, 70)).astype(np.float32)
    motion = Motion(track, pipeline.model.config.structure_layout) if place == 0 else None
    return Session(pipeline, image, rollout=rollout, seed=place, motion=motion)


def script(place: int) -> list[Callable[[Session], Any]]:
    """What happens to a session: sound in random pieces, from a moment of its own on; an interruption; its end, of
    the last in the middle of the others."""
    generator = np.random.default_rng(place)
    sizes = generator.integers(1500, 3700, 10)  # around the 2560 samples of a latent frame
    pieces = [generator.normal(scale=0.1, size=size).astype(np.float32) for size in sizes]
    acts: list[Callable[[Session], Any]] = [lambda _: None] * place
    acts += [lambda session, piece=piece: session.push(piece) for piece in pieces[: 7 if place == 3 else None]]
    if place in (1, 2):
        acts.insert(place + 7, lambda session: session.clear(max(0, session.frame - 6)))
    return [*acts, lambda session: session.close()]


def made_together(sessions: list[Session]) -> list[Segment | None]:
    found = dict(together([session.steps() for session in sessions]))
    assert not [error for error in found.values() if isinstance(error, Exception)]
    return [found[place] for place in range(len(sessions))]  # pyright: ignore[reportReturnType]


def test_sessions_made_together_are_each_as_alone(
    pipeline: Pipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = range(len(SETTINGS))
    scripts = [script(place) for place in places]
    alone: list[list[Segment]] = []
    for place in places:
        session = opened(pipeline, image, place)
        alone.append([])
        for act in scripts[place]:
            act(session)
            alone[-1] += session.segments()
        assert session.done
    sessions = [opened(pipeline, image, place) for place in places]
    made: list[list[Segment]] = [[] for _ in places]
    sizes: list[int] = []
    batches = batch_sizes(monkeypatch)
    for tick in range(max(map(len, scripts))):
        for session, acts in zip(sessions, scripts, strict=True):
            if tick < len(acts):
                acts[tick](session)
        while due := [place for place in places if sessions[place].due]:
            sizes.append(len(due))
            for place, segment in zip(due, made_together([sessions[place] for place in due]), strict=True):
                assert segment is not None
                made[place].append(segment)
    assert {1, 2, 3} <= set(sizes), "they joined and left"
    assert {2, 3, 4} == set(batches), "of one and of two copies, for guidance"
    for mine, its in zip(made, alone, strict=True):
        assert [segment.frame for segment in mine] == [segment.frame for segment in its] and len(its) > 3
        for a, b in zip(mine, its, strict=True):
            assert np.array_equal(a.audio, b.audio)
            np.testing.assert_allclose(a.structure, b.structure, atol=STRUCTURE)
            assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= PIXEL


def test_sessions_of_other_guidance_go_in_one_batch_and_are_each_as_alone(
    pipeline: Pipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes as many places of the batch as it needs predictions."""
    scales = [(1.0, 1.0), (2.0, 1.0), (1.0, 1.5), (3.0, 0.0)]
    rollouts = [
        pipeline.rollout.model_copy(update={"audio_guidance": audio, "structure_guidance": structure})
        for audio, structure in scales
    ]
    others = [Session(pipeline, image, rollout=rollout) for rollout in rollouts]
    for session in others:
        session.idle(12)
    alone = [list(session.segments()) for session in others]
    batches = batch_sizes(monkeypatch)
    sessions = [Session(pipeline, image, rollout=rollout) for rollout in rollouts]
    for session in sessions:
        session.idle(12)
    made: list[list[Segment | None]] = [made_together(sessions) for _ in alone[0]]
    assert set(batches) == {1 + 2 + 2 + 3}
    for its, mine in zip(alone, zip(*made, strict=True), strict=True):
        for a, b in zip(its, mine, strict=True):
            assert b is not None
            np.testing.assert_allclose(a.structure, b.structure, atol=STRUCTURE)
            assert np.abs(a.frames.astype(int) - b.frames.astype(int)).max() <= PIXEL
    assert not np.array_equal(alone[0][1].frames, alone[2][1].frames), "guidance reaches the picture"


def spoken(pipeline: Pipeline, image: np.ndarray, count: int) -> list[Session]:
    sessions = [Session(pipeline, image, seed=seed) for seed in range(count)]
    for session in sessions:
        session.push(pushed(0))
    return sessions


def pushed(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=640 * 12).astype(np.float32)


def test_one_that_fails_leaves_the_others_and_can_be_made_again(
    pipeline: Pipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = spoken(pipeline, image, 3)
    with monkeypatch.context() as broken:
        broken.setattr(sessions[1]._making._sampler, "_denoise", lambda *_: 1 / 0)
        found = dict(together([session.steps() for session in sessions]))
    assert isinstance(found[1], ZeroDivisionError) and [session.frame for session in sessions] == [1, 0, 1]
    again = sessions[1].make()
    assert again is not None and again.frame == 0
    assert all(segment is not None and segment.frame == 1 for segment in made_together(sessions))


def test_what_is_given_up_half_way_holds_nobody_up(pipeline: Pipeline, image: np.ndarray) -> None:
    """Neither its own session nor the other."""
    sessions = [Session(pipeline, image, rollout=pipeline.rollout.model_copy(update={"steps": n})) for n in (1, 3)]
    for session in sessions:
        session.idle(12)
    running = together([session.steps() for session in sessions])
    assert next(running)[0] == 0
    running.close()
    assert [session.frame for session in sessions] == [1, 0]
    assert [segment.frame for segment in made_together(sessions) if segment is not None] == [1, 0]


def test_two_chunks_of_one_session_at_once_are_refused(pipeline: Pipeline, image: np.ndarray) -> None:
    (session,) = spoken(pipeline, image, 1)
    found = dict(together([session.steps(), session.steps()]))
    assert isinstance(found[0], Segment) and isinstance(found[1], RuntimeError)
    assert isinstance(session.make(), Segment)


def test_sessions_of_an_engine_are_each_as_alone(
    pipeline: Pipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits while the engine is busy goes together; an interruption that comes meanwhile is taken after it."""
    sizes = batch_sizes(monkeypatch)
    engine, gate, waves = Engine(together=3), threading.Event(), [pushed(seed) for seed in range(3)]
    sessions, others = ([Session(pipeline, image, seed=seed) for seed in range(3)] for _ in "ab")
    for each in (sessions, others):
        for session, wave in zip(each, waves, strict=True):
            session.push(wave)
    wanted = [session.make() for session in others]
    engine.submit(0.0, gate.wait, 5)
    sizes.clear()
    futures = [engine.submit_steps(1 + 0.01 * place, session.steps) for place, session in enumerate(sessions)]
    cleared = engine.submit(1.005, sessions[1].clear, 0)
    gate.set()
    for future, segment in zip(futures, wanted, strict=True):
        made = future.result(20)
        assert made is not None and segment is not None
        np.testing.assert_allclose(made.structure, segment.structure, atol=STRUCTURE)
    assert cleared.result(5) == 0 and [session.frame for session in sessions] == [1, 0, 1]
    assert set(sizes) == {3}
    engine.stop()


def counting(done: list[str], name: str, rounds: int, of: list[list[str]]) -> Iterator[Any]:
    """Stands for a chunk of some steps; tells with whom it ran."""
    for _ in range(rounds):
        of[-1].append(name)
        yield None
    done.append(name)


def test_the_engine_makes_together_what_waits_the_earliest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    rounds: list[list[str]] = [[]]

    def answered(asked: dict[int, Any], _makers: object) -> dict[int, Any]:
        rounds.append([])
        return dict.fromkeys(asked)

    monkeypatch.setattr("df_infer.sampling.steps._answered", answered)
    engine, gate = Engine(together=3), threading.Event()
    engine.submit(0.0, gate.wait, 5)

    def broken(*_: Any) -> Iterator[Any]:
        yield from ()
        raise ZeroDivisionError

    chunks = [
        engine.submit_steps(deadline, counting, done, name, length, rounds)  # pyright: ignore[reportArgumentType]
        for name, deadline, length in (("d", 1.04, 1), ("a", 1.0, 2), ("b", 1.02, 1), ("later", 2.0, 1))
    ]
    fails = engine.submit_steps(1.03, broken)  # pyright: ignore[reportArgumentType]
    unbegun = engine.submit_steps(1.01, lambda: 1 / 0)  # pyright: ignore[reportArgumentType]
    left = engine.submit_steps(1.015, counting, done, "left", 1, rounds)  # pyright: ignore[reportArgumentType]
    whole = engine.submit(WHENEVER, done.append, "whole")
    assert left.cancel() and engine.waiting >= 5
    gate.set()
    for future in (*chunks, whole):
        future.result(5)
    for future in (fails, unbegun):
        with pytest.raises(ZeroDivisionError):
            future.result(5)
    engine.stop()
    assert done == ["b", "a", "d", "later", "whole"], "three at most, what left takes no place, each as soon as done"
    assert [names for names in rounds if names] == [["a", "b"], ["a"], ["d"], ["later"]], "later is due by itself"


def test_a_chunk_that_was_stored_and_given_up_is_made_again(pipeline: Pipeline, image: np.ndarray) -> None:
    """Its sound, its frames and the cache are those of one that was never begun."""
    (session,), (other,) = spoken(pipeline, image, 1), spoken(pipeline, image, 1)
    steps = session.steps()
    asked = next(steps)
    while not (isinstance(asked, Asked) and asked.call.write):
        asked = steps.send(asked.alone())
    asked.alone()
    steps.close()
    for _ in range(2):
        made, wanted = session.make(), other.make()
        assert made is not None and wanted is not None and made.frame == wanted.frame
        np.testing.assert_array_equal(made.frames, wanted.frames)


def test_who_comes_while_a_chunk_is_made_waits_in_another_thread_and_is_refused_in_the_same(
    pipeline: Pipeline, image: np.ndarray
) -> None:
    first, second = spoken(pipeline, image, 2)
    steps = first.steps()
    next(steps)
    for within in (first.state, lambda: first.clear(0), first.make):
        with pytest.raises(RuntimeError, match="being made in this thread"):
            within()
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(made_together, [second, first])  # first is held: second does not wait for it
        while second.frame == 0:
            time.sleep(0.01)
        assert not waiting.done() and first.frame == 0
        steps.close()
        segments = waiting.result(20)
        assert all(segment is not None and segment.frame == 0 for segment in segments)
        states = threads.submit(lambda: [first.state() for _ in range(30)])
        while not states.done():  # a thread that made a chunk before is not taken for one within it
            first.idle(4)
            first.make()
        states.result()


def test_two_threads_that_take_two_sessions_the_other_way_round_both_end(pipeline: Pipeline, image: np.ndarray) -> None:
    sessions = spoken(pipeline, image, 2)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(made_together, order) for order in (sessions, sessions[::-1])]
        for future in both:
            assert len(future.result(20)) == 2
