"""Who gets which input, who is blamed, who is tried again: with workers that exist on paper only."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from df_data.build.crew import supervisor
from df_data.build.crew.messages import AtWork, InputResult, MadeSample, Message, Ready, Trouble
from df_data.build.crew.supervisor import Seat, SupervisedCrew, WorkerLost
from df_data.sources.listing import Input
from df_models.errors import UserError


def inputs(count: int) -> list[Input]:
    return [Input(f"{i}", f"{i}", Path(f"{i}"), "p", "CC0-1.0", "train", None) for i in range(count)]


class PaperSeat:
    """Answers at once: two samples and an end; dies at inputs in ``deadly``; is silent at those in ``silent``."""

    def __init__(self, site: PaperSite) -> None:
        self.site = site
        self.given: list[str] = []
        self.news: deque[Message | WorkerLost] = deque([site.first])
        self.gone = False

    def give(self, made: Input) -> None:
        self.given.append(made.name)
        self.site.under_way += 1
        self.site.most_under_way = max(self.site.most_under_way, self.site.under_way)
        self.site.tries[made.name] += 1
        if made.name in self.site.silent or any(name in self.site.silent for name in self.given):
            return
        if made.name in self.site.deadly and self.site.tries[made.name] <= self.site.deadly[made.name]:
            self.news += [MadeSample(made.name, {}), WorkerLost("crashed its worker (signal 11)")]
        else:
            self.news += [MadeSample(made.name, {}), InputResult("accepted", samples=(made.name,))]

    def take(self) -> Message:
        news = self.news.popleft()
        if isinstance(news, WorkerLost):
            self.gone = True
            raise news
        self.site.under_way -= isinstance(news, InputResult)
        return news

    def kill(self) -> None:
        self.gone = True
        self.site.killed += 1
        self.site.under_way = sum(len(seat.given) for seat in self.site.seats if not seat.gone)

    def close(self) -> None:
        self.gone = True


class PaperSite:
    def __init__(self, deadly: dict[str, int] | None = None, silent: set[str] | None = None) -> None:
        self.deadly, self.silent = deadly or {}, silent or set()
        self.first: Message | WorkerLost = Ready({})
        self.seats: list[PaperSeat] = []
        self.tries: Counter[str] = Counter()
        self.under_way = self.most_under_way = self.killed = 0
        self.alone: list[int] = []
        self.closed = False

    def hire(self) -> PaperSeat:
        self.seats.append(PaperSeat(self))
        return self.seats[-1]

    def listen(self, seats: Sequence[Seat], timeout_s: float) -> list[Seat]:
        assert timeout_s < 1000
        return [seat for seat in seats if isinstance(seat, PaperSeat) and seat.news]

    def close(self) -> None:
        self.closed = True


def work(site: PaperSite, count: int, workers: int = 3, **settings: float) -> dict[str, InputResult]:
    options = {"timeout_s": 0.02, "retries": 1} | settings
    crew = SupervisedCrew(site, workers=workers, **options)  # type: ignore[arg-type]
    assert crew.records() == {}
    ends = {}
    for made, outcome in crew.run(inputs(count)):
        if isinstance(outcome, InputResult):
            assert made.name not in ends, "every input ends once"
            ends[made.name] = outcome
    crew.close(now=False)
    assert site.closed and all(seat.gone for seat in site.seats)
    return ends


def test_everyone_works_and_never_has_more_than_two() -> None:
    site = PaperSite()
    ends = work(site, 20)
    assert len(ends) == 20 and {end.status for end in ends.values()} == {"accepted"}
    assert len(site.seats) == 3 and site.most_under_way == 6
    assert min(len(seat.given) for seat in site.seats) >= 4
    few = PaperSite()
    work(few, 2)
    assert len(few.seats) == 2, "no worker is started for nothing"


def test_only_the_input_at_work_is_blamed_and_tried_again_alone() -> None:
    site = PaperSite(deadly={"4": 99, "9": 1})
    ends = work(site, 12)
    assert ends["4"] == InputResult("failed", error="crashed its worker (signal 11)")
    assert {name for name, end in ends.items() if end.status == "accepted"} == {f"{i}" for i in range(12)} - {"4"}
    assert site.tries["4"] == 2 and site.tries["9"] == 2
    assert list(ends)[-2:] == ["4", "9"] or list(ends)[-2:] == ["9", "4"], "after everything else"


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_are_bounded(retries: int) -> None:
    site = PaperSite(deadly={"1": 99})
    ends = work(site, 4, retries=retries)
    assert site.tries["1"] == 1 + retries and ends["1"].status == "failed" and len(ends) == 4


def test_one_who_is_silent_is_killed() -> None:
    site = PaperSite(silent={"2"})
    ends = work(site, 8)
    assert ends["2"] == InputResult("failed", error="took longer than 0.02 s")
    assert sum(end.status == "accepted" for end in ends.values()) == 7 and site.killed == 2


def test_a_sign_of_life_is_no_silence_and_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.monotonic()
    now = [begin]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    site = PaperSite()

    def slowly(seats: Sequence[Seat], timeout_s: float) -> list[Seat]:
        now[0] += 0.9 if timeout_s else 0.0
        return PaperSite.listen(site, seats, timeout_s)

    monkeypatch.setattr(site, "listen", slowly)
    monkeypatch.setattr(PaperSeat, "give", lambda seat, made: _work_long(seat, made))
    assert work(site, 1, workers=1, timeout_s=1.0)["0"].status == "rejected" and site.killed == 0
    assert now[0] > begin + 5, "far longer than the worker may be silent"


def _work_long(seat: PaperSeat, made: Input) -> None:
    seat.given.append(made.name)
    seat.news += [*[AtWork()] * 6, InputResult("rejected", reason="no_face")]


def test_everything_deadly_still_ends() -> None:
    site = PaperSite(deadly={f"{i}": 99 for i in range(6)})
    assert {end.status for end in work(site, 6).values()} == {"failed"}


def test_troubles_of_a_worker_end_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    site = PaperSite()
    site.first = Trouble(UserError("no such file: x.onnx"))
    with pytest.raises(UserError, match=r"x\.onnx"):
        work(site, 2)
    site.first = WorkerLost("crashed its worker (signal 9)")
    with pytest.raises(UserError, match=r"loading the models .* \(signal 9\)"):
        work(site, 2)


def test_loading_may_take_longer_than_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    site = PaperSite()
    monkeypatch.setattr(supervisor, "LOADING_S", 0.1)
    monkeypatch.setattr(PaperSite, "hire", lambda self: _mute(self))
    with pytest.raises(UserError, match="loading the models took longer"):
        work(site, 1, timeout_s=0.01)


def _mute(site: PaperSite) -> PaperSeat:
    seat = PaperSeat(site)
    seat.news.clear()
    site.seats.append(seat)
    return seat
