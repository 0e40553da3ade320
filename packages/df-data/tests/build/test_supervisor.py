"""Who gets which input, who is blamed, who is tried again: with workers that exist on paper only."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from df_data.build.pool import supervisor
from df_data.build.pool.messages import Heartbeat, InputResult, MadeSample, Message, Ready, WorkerFailure
from df_data.build.pool.supervisor import SupervisedPool, WorkerHandle, WorkerLost
from df_data.sources.listing import Input
from df_models.errors import UserError


def inputs(count: int) -> list[Input]:
    return [Input(f"{i}", f"{i}", Path(f"{i}"), "p", "CC0-1.0", "train", None) for i in range(count)]


class PaperHandle:
    """Answers at once: two samples and an end; dies at inputs in ``deadly``; is silent at those in ``silent``."""

    def __init__(self, host: PaperHost) -> None:
        self.host = host
        self.given: list[str] = []
        self.news: deque[Message | WorkerLost] = deque([host.first])
        self.gone = False

    def give(self, made: Input) -> None:
        self.given.append(made.name)
        self.host.under_way += 1
        self.host.most_under_way = max(self.host.most_under_way, self.host.under_way)
        self.host.tries[made.name] += 1
        if made.name in self.host.silent or any(name in self.host.silent for name in self.given):
            return
        if made.name in self.host.deadly and self.host.tries[made.name] <= self.host.deadly[made.name]:
            self.news += [MadeSample(made.name, {}), WorkerLost("crashed its worker (signal 11)")]
        else:
            self.news += [MadeSample(made.name, {}), InputResult("accepted", samples=(made.name,))]

    def take(self) -> Message:
        news = self.news.popleft()
        if isinstance(news, WorkerLost):
            self.gone = True
            raise news
        self.host.under_way -= isinstance(news, InputResult)
        return news

    def kill(self) -> None:
        self.gone = True
        self.host.killed += 1
        self.host.under_way = sum(len(handle.given) for handle in self.host.handles if not handle.gone)

    def close(self) -> None:
        self.gone = True


class PaperHost:
    def __init__(self, deadly: dict[str, int] | None = None, silent: set[str] | None = None) -> None:
        self.deadly, self.silent = deadly or {}, silent or set()
        self.first: Message | WorkerLost = Ready({})
        self.handles: list[PaperHandle] = []
        self.tries: Counter[str] = Counter()
        self.under_way = self.most_under_way = self.killed = 0
        self.alone: list[int] = []
        self.closed = False

    def start_worker(self) -> PaperHandle:
        self.handles.append(PaperHandle(self))
        return self.handles[-1]

    def listen(self, handles: Sequence[WorkerHandle], timeout_s: float) -> list[WorkerHandle]:
        assert timeout_s < 1000
        return [handle for handle in handles if isinstance(handle, PaperHandle) and handle.news]

    def close(self) -> None:
        self.closed = True


def work(host: PaperHost, count: int, workers: int = 3, **settings: float) -> dict[str, InputResult]:
    options = {"timeout_s": 0.02, "retries": 1} | settings
    pool = SupervisedPool(host, workers=workers, **options)  # type: ignore[arg-type]
    assert pool.records() == {}
    ends = {}
    for made, outcome in pool.run(inputs(count)):
        if isinstance(outcome, InputResult):
            assert made.name not in ends, "every input ends once"
            ends[made.name] = outcome
    pool.close(now=False)
    assert host.closed and all(handle.gone for handle in host.handles)
    return ends


def test_everyone_works_and_never_has_more_than_two() -> None:
    host = PaperHost()
    ends = work(host, 20)
    assert len(ends) == 20 and {end.status for end in ends.values()} == {"accepted"}
    assert len(host.handles) == 3 and host.most_under_way == 6
    assert min(len(handle.given) for handle in host.handles) >= 4
    few = PaperHost()
    work(few, 2)
    assert len(few.handles) == 2, "no worker is started for nothing"


def test_only_the_input_at_work_is_blamed_and_tried_again_alone() -> None:
    host = PaperHost(deadly={"4": 99, "9": 1})
    ends = work(host, 12)
    assert ends["4"] == InputResult("failed", error="crashed its worker (signal 11)")
    assert {name for name, end in ends.items() if end.status == "accepted"} == {f"{i}" for i in range(12)} - {"4"}
    assert host.tries["4"] == 2 and host.tries["9"] == 2
    assert list(ends)[-2:] == ["4", "9"] or list(ends)[-2:] == ["9", "4"], "after everything else"


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_bounded(retries: int) -> None:
    host = PaperHost(deadly={"1": 99})
    ends = work(host, 4, retries=retries)
    assert host.tries["1"] == 1 + retries and ends["1"].status == "failed" and len(ends) == 4


def test_one_who_is_silent_is_killed() -> None:
    host = PaperHost(silent={"2"})
    ends = work(host, 8)
    assert ends["2"] == InputResult("failed", error="took longer than 0.02 s")
    assert sum(end.status == "accepted" for end in ends.values()) == 7 and host.killed == 2


def test_a_sign_of_life_is_no_silence_and_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.monotonic()
    now = [begin]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    host = PaperHost()

    def slowly(handles: Sequence[WorkerHandle], timeout_s: float) -> list[WorkerHandle]:
        now[0] += 0.9 if timeout_s else 0.0
        return PaperHost.listen(host, handles, timeout_s)

    monkeypatch.setattr(host, "listen", slowly)
    monkeypatch.setattr(PaperHandle, "give", lambda handle, made: _work_long(handle, made))
    assert work(host, 1, workers=1, timeout_s=1.0)["0"].status == "rejected" and host.killed == 0
    assert now[0] > begin + 5, "far longer than the worker may be silent"


def _work_long(handle: PaperHandle, made: Input) -> None:
    handle.given.append(made.name)
    handle.news += [*[Heartbeat()] * 6, InputResult("rejected", reason="no_face")]


def test_everything_deadly_still_ends() -> None:
    host = PaperHost(deadly={f"{i}": 99 for i in range(6)})
    assert {end.status for end in work(host, 6).values()} == {"failed"}


def test_troubles_of_a_worker_end_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    host = PaperHost()
    host.first = WorkerFailure(UserError("no such file: x.onnx"))
    with pytest.raises(UserError, match=r"x\.onnx"):
        work(host, 2)
    host.first = WorkerLost("crashed its worker (signal 9)")
    with pytest.raises(UserError, match=r"loading the models .* \(signal 9\)"):
        work(host, 2)


def test_loading_may_take_longer_than_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    host = PaperHost()
    monkeypatch.setattr(supervisor, "LOADING_S", 0.1)
    monkeypatch.setattr(PaperHost, "start_worker", lambda self: _mute(self))
    with pytest.raises(UserError, match="loading the models took longer"):
        work(host, 1, timeout_s=0.01)


def _mute(host: PaperHost) -> PaperHandle:
    handle = PaperHandle(host)
    handle.news.clear()
    host.handles.append(handle)
    return handle
