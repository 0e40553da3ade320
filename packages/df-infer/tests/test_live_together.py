"""Sessions whose chunks are made together: each as it would be alone, whatever becomes of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from df_infer import Session
from df_infer.live.session import Segment
from df_infer.pipeline import Pipeline
from df_infer.sampling.steps import Asked, together
from df_infer.serve.engine import NOW, TOGETHER_S, WHENEVER, Engine, GivenUp
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
    """What waits while the engine is busy goes together; an interruption is followed after it."""
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
    gate.set()
    for future, segment in zip(futures, wanted, strict=True):
        made = future.result(20)
        assert made is not None and segment is not None
        np.testing.assert_allclose(made.structure, segment.structure, atol=STRUCTURE)
    assert engine.submit(NOW, sessions[1].clear, 0).result(5) == 0
    assert [session.frame for session in sessions] == [1, 0, 1]
    assert set(sizes) == {3}
    engine.stop()


class Chunks:
    """Stand-ins for chunks, in an engine whose steps cost nothing: who was made, in which rounds, in which order.

    Attributes:
        rounds: names of those who took part in each.
        done: names in the order in which they, and calls, were done.
    """

    def __init__(self, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds: list[str] = []
        self.done: list[str] = []
        self._between: dict[int, Callable[[], Any]] = {}
        monkeypatch.setattr("df_infer.sampling.steps._answered", self._answered)
        self.engine, self._gate = Engine(together), threading.Event()
        self.engine.submit(NOW, self._gate.wait, 5)
        self.now = time.monotonic() + 100

    def _answered(self, asked: dict[int, Any], _makers: object) -> dict[int, Any]:
        self.rounds.append("".join(sorted(asked.values())))
        self._between.get(len(self.rounds), lambda: None)()
        return dict.fromkeys(asked)

    def after(self, rounds: int, call: Callable[[], Any]) -> None:
        """Have something happen in the last of so many rounds."""
        self._between[rounds] = call

    def _steps(self, name: str, count: int) -> Iterator[Any]:
        for _ in range(count):
            yield name
        self.done.append(name)

    def add(self, name: str, due: float, count: int) -> Future[Any]:
        """Submit a chunk of so many steps, due so many seconds from a moment far ahead."""
        return self.engine.submit_steps(self.now + due, self._steps, name, count)  # pyright: ignore[reportArgumentType]

    def call(self, name: str, due: float) -> Future[Any]:
        return self.engine.submit(self.now + due, self.done.append, name)

    def run(self) -> str:
        """Make all; return the order in which they were done."""
        self._gate.set()
        until = time.monotonic() + 10
        while self.engine._begun or self.engine.waiting or not self.done:
            assert time.monotonic() < until, "the engine stands still"
            time.sleep(0.001)
        self.engine.stop()
        return "".join(self.done)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Chunks:
    return Chunks(3, monkeypatch)


def test_the_engine_makes_together_what_is_due_together_the_earliest_first(three: Chunks) -> None:
    def broken() -> Iterator[Any]:
        yield from ()
        raise ZeroDivisionError

    later = TOGETHER_S + 0.05
    for name, due, count in (("d", 0.04, 1), ("a", 0.0, 3), ("b", 0.02, 1), ("c", 0.03, 1), ("l", later, 1)):
        three.add(name, due, count)
    fails = three.engine.submit_steps(three.now + 0.03, broken)  # pyright: ignore[reportArgumentType]
    unbegun = three.engine.submit_steps(three.now + 0.01, lambda: 1 / 0)  # pyright: ignore[reportArgumentType]
    left = three.add("x", 0.015, 1)
    whole = three.engine.submit(WHENEVER, three.done.append, "w")
    assert left.cancel() and three.engine.waiting >= 7
    assert three.run() == "bcdalw", "three at most; each as soon as it is done; whoever left takes no place"
    assert three.rounds == ["abc", "ad", "a", "l"], "d takes the first place that is free; l is due by itself"
    assert whole.done()
    for future in (fails, unbegun):
        with pytest.raises(ZeroDivisionError):
            future.result(5)


def test_a_chunk_that_is_due_joins_those_that_are_being_made(three: Chunks) -> None:
    """Whoever asks for many steps keeps nobody waiting, and does not stand still either."""
    three.add("a", 0.0, 5)
    three.after(2, lambda: three.add("b", 0.1, 2))
    assert three.run() == "ba"
    assert three.rounds == ["a", "a", "ab", "ab", "a"]


def test_one_that_is_late_is_not_all_that_is_due(three: Chunks) -> None:
    """Steps that the machine is too slow for make their own face late, whose chunks then are always the first due."""
    three.now -= 1000
    three.add("a", 0.0, 4)
    three.after(1, lambda: three.engine.submit_steps(time.monotonic() + 0.05, three._steps, "b", 1))  # pyright: ignore
    assert three.run() == "ba"
    assert three.rounds == ["a", "ab", "a", "a"]


def test_a_chunk_that_is_due_sooner_goes_before_one_that_has_begun(three: Chunks) -> None:
    """As any does before a whole video, which goes on where it stood."""
    three.engine.submit_steps(WHENEVER, three._steps, "w", 3)  # pyright: ignore[reportArgumentType]
    three.after(1, lambda: three.add("l", 1.0, 2))
    three.after(2, lambda: three.add("s", 0.0, 2))
    assert three.run() == "slw"
    assert three.rounds == ["w", "l", "s", "s", "l", "w", "w"]


def test_a_call_is_done_between_the_steps_of_chunks(three: Chunks) -> None:
    three.add("a", 0.0, 3)
    three.after(1, lambda: (three.call("w", 1.0), three.call("n", -50.0)))
    assert three.run() == "naw"


def test_what_is_given_up_is_not_made(three: Chunks) -> None:
    """Begun or not, whatever its deadline; its place is free."""
    begun = three.add("a", 0.0, 5)
    far = three.engine.submit_steps(WHENEVER, three._steps, "w", 1)  # pyright: ignore[reportArgumentType]
    three.after(2, lambda: (three.engine.give_up(begun), three.engine.give_up(far), three.add("b", 0.0, 1)))
    assert three.run() == "b"
    assert three.rounds == ["a", "a", "b"]
    for future in (begun, far):
        with pytest.raises(GivenUp):
            future.result(5)
    three.engine.give_up(begun)
    three.engine.give_up(None)


def test_an_engine_outlives_what_fails_and_fails_again(three: Chunks) -> None:
    """Coming back to before a chunk may fail as the chunk did."""

    def broken() -> Iterator[Any]:
        try:
            yield "x"
        finally:
            raise ZeroDivisionError

    fails = three.engine.submit_steps(three.now, broken)  # pyright: ignore[reportArgumentType]
    three.after(1, lambda: 1 / 0)
    well = three.add("b", 10.0, 1)
    assert three.run() == "b" and well.done()
    with pytest.raises(ZeroDivisionError):
        fails.result(5)


def test_calls_are_done_however_late_the_chunks_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that are late, and for which there is no room, do not keep a new face waiting."""
    chunks = Chunks(1, monkeypatch)
    chunks.now -= 1000
    for name in "abc":
        chunks.add(name, 0.0, 2)
    chunks.call("n", 500.0)
    assert chunks.run() == "nabc"


def test_one_that_is_held_up_takes_no_place(pipeline: Pipeline, image: np.ndarray) -> None:
    engine, (session,), (other,) = Engine(together=1), spoken(pipeline, image, 1), spoken(pipeline, image, 1)
    with session._computing:
        waits = engine.submit_steps(NOW, session.steps)
        assert engine.submit_steps(time.monotonic() + 50, other.steps).result(20) is not None and not waits.done()
    assert waits.result(20) is not None
    engine.stop()


def test_an_idle_engine_holds_nothing(pipeline: Pipeline, image: np.ndarray) -> None:
    engine, sessions = Engine(together=2), spoken(pipeline, image, 2)
    for future in [engine.submit_steps(time.monotonic() + 50, session.steps) for session in sessions]:
        future.result(20)
    engine.submit(NOW, int).result(5)
    until = time.monotonic() + 5
    while engine._rounds._makers:
        assert time.monotonic() < until, "copies of the caches"
        time.sleep(0.01)
    engine.stop()


def test_an_engine_stops_while_a_whole_video_stands_still(three: Chunks) -> None:
    whole = three.engine.submit_steps(WHENEVER, three._steps, "w", 3)  # pyright: ignore[reportArgumentType]

    def stop() -> None:
        three.add("l", 0.0, 1)
        threading.Thread(target=three.engine.stop).start()
        while not three.engine._stopped:
            time.sleep(0.001)

    three.after(1, stop)
    assert three.run() == "w" and whole.done()


def test_an_engine_that_stops_ends_what_has_begun(three: Chunks) -> None:
    begun = three.add("a", 0.0, 3)
    unbegun: list[Future[Any]] = []

    def stop() -> None:
        unbegun.append(three.add("b", 0.0, 1))
        threading.Thread(target=three.engine.stop).start()
        while not three.engine._stopped:
            time.sleep(0.001)

    three.after(1, stop)
    three.run()
    assert begun.done() and unbegun[0].cancelled() and three.rounds == ["a", "a", "a"]


def test_one_that_waits_for_another_that_stands_still_does_not_hold_it_up(
    pipeline: Pipeline, image: np.ndarray
) -> None:
    """Two chunks of one session cannot be in one engine, but a thread beside it may hold a session."""
    engine, (session,) = Engine(together=2), spoken(pipeline, image, 1)
    with session._computing:
        waits = engine.submit_steps(NOW, session.steps)
        (other,) = spoken(pipeline, image, 1)
        made = engine.submit_steps(time.monotonic() + 50, other.steps).result(20)
        assert made is not None and not waits.done()
    segment = waits.result(20)
    assert segment is not None and segment.frame == 0
    engine.stop()


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
