"""Several processes of which one gets no further: told by rank, step and what it does, not as the others' time-out.

A thread of each process publishes in the launcher's store, every few seconds, where the thread that trains stands.
All processes go through the same sequence of phases, so the number of phases entered says who is behind; among those
that are equally far, those that stand in a collective operation wait for those that do not. Training itself only sets
a few attributes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import _base as futures_base
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import torch.distributed as dist

from df_models.cli_support import EXIT_HUNG
from df_train.processes import peers
from df_train.saving.saves import THREAD

_PLACE = "df-train/place"
_LONGEST_TICK = 5.0
_TICKS = 20  # in the limit: it is exceeded by a tenth at most
_STEP = "step"
_NAMES = {_STEP: "taking the step", "data": "reading data", "saves": "saving", "elsewhere": "samples or validation"}
_COLLECTIVE = ("distributed_c10d.py", "_functional_collectives.py", "_fsdp_collectives.py", "peers.py")
"""Files whose functions wait for other processes."""
_WAITING = (threading.__file__, futures_base.__file__)
_INNERMOST = 4
"""Frames that are searched for them: torch wraps its collectives in a few, and calls some by way of an operator."""


class Place(NamedTuple):
    """Where the thread that trains stands.

    Attributes:
        beat: rises as long as the process lives and answers.
        count: phases entered so far.
        step: being taken, from 1.
        doing: the phase.
        at: file, line and function.
        waits: whether that is a collective operation.
        host: the machine.
    """

    beat: int
    count: int
    step: int
    doing: str
    at: str
    waits: bool
    host: str

    def __str__(self) -> str:
        return f"at step {self.step}, {_NAMES[self.doing]} ({self.at})"


class Watch:
    """Ends this process when training gets no further for `minutes`; without several processes it does nothing.

    The work of one process that the others wait for (samples, validation) may take longer. Time in which the whole
    process was stopped does not count.
    """

    def __init__(self, minutes: float | None) -> None:
        self.step = 0
        self._minutes = minutes if peers.count() > 1 else None
        self._doing, self._count, self._patient = _STEP, 0, False
        self._over = threading.Event()

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """Mark a phase: `data`, `saves`, or `elsewhere`, which is not timed."""
        before = self._doing, self._patient
        self._enter(doing, doing == "elsewhere")
        try:
            yield
        finally:
            self._enter(*before)

    def _enter(self, doing: str, patient: bool) -> None:
        self._doing, self._patient = doing, patient
        self._count += 1

    def __enter__(self) -> Watch:
        if self._minutes is not None:
            trains = threading.get_ident()
            threading.Thread(target=self._run, args=(peers.store().clone(), trains), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self, store: dist.Store, trains: int) -> None:
        assert self._minutes is not None
        limit = 60.0 * self._minutes
        tick = min(_LONGEST_TICK, limit / _TICKS)
        quiet, seen, last, beat = 0.0, -1, time.monotonic(), 0
        try:
            while not self._over.wait(tick):
                now, beat = time.monotonic(), beat + 1
                quiet = 0.0 if self._patient or self._count != seen else quiet + min(now - last, 2.0 * tick)
                seen, last = self._count, now
                store.set(f"{_PLACE}/{peers.own_rank()}", json.dumps(self._place(beat, trains)))
                if quiet > limit and (told := self._told(store, tick, beat, trains)):
                    _end(store, told, wait=4.0 * tick)
        except dist.DistError:  # the process that held the store is gone, which the collectives tell
            return

    def _place(self, beat: int, trains: int) -> Place:
        frames = sys._current_frames()
        at, waits = where(frames.get(trains))
        writers = [thread.ident for thread in threading.enumerate() if thread.name.startswith(THREAD)]
        if at.startswith("saves.py") and writers:  # it is the writer that is waited for
            at, waits = where(frames.get(writers[0] or 0))
        return Place(beat, self._count, self.step, self._doing, at, waits, socket.gethostname())

    def _told(self, store: dist.Store, tick: float, beat: int, trains: int) -> str | None:
        """The line to end with; None if training went on after all."""
        before, count = _places(store), self._count
        for later in range(1, 4):
            if self._over.wait(tick):
                return None
            store.set(f"{_PLACE}/{peers.own_rank()}", json.dumps(self._place(beat + later, trains)))
        if self._count != count:
            return None
        after = _places(store)
        alive = {rank: place for rank, place in after.items() if rank in before and before[rank].beat != place.beat}
        return (
            f"no progress for {self._minutes:g} minutes (hang_minutes): {verdict(alive, after, peers.count())}; the "
            "same command goes on from the last checkpoint"
        )


def where(frame: FrameType | None) -> tuple[str, bool]:
    """File, line and function of a frame, and whether it stands in a collective operation.

    A wait for something that Python's own library does is named by who waits.
    """
    frames = list[FrameType]()
    while frame is not None and len(frames) < _INNERMOST:
        frames.append(frame)
        frame = frame.f_back
    files = [os.path.basename(frame.f_code.co_filename) for frame in frames]
    for frame, name in zip(frames, files):
        if frame.f_code.co_filename not in _WAITING:
            return f"{name}:{frame.f_lineno}, {frame.f_code.co_name}", any(name in _COLLECTIVE for name in files)
    return "ended", False


def verdict(alive: Mapping[int, Place], known: Mapping[int, Place], size: int) -> str:
    """Who holds up the others, in words.

    Args:
        alive: the places of the processes that still answer, by rank.
        known: the last places that any process published.
        size: how many processes there are.
    """
    silent = [rank for rank in range(size) if rank not in alive]
    if silent:
        told = [f"rank {rank} does not answer ({_last(known.get(rank))})" for rank in silent]
        return "; ".join(told)
    least = min(place.count for place in alive.values())
    behind = {rank: place for rank, place in alive.items() if place.count == least}
    if not all(place.waits for place in behind.values()):
        behind = {rank: place for rank, place in behind.items() if not place.waits}
    told = [f"rank {rank} on {place.host} is {place}" for rank, place in sorted(behind.items())]
    others = [rank for rank in alive if rank not in behind]
    if not others:
        return "; ".join(told) + ", and none is behind the others"
    wait = "waits" if len(others) == 1 else "wait"
    return f"{'; '.join(told)}; rank {', '.join(map(str, sorted(others)))} {wait}, {alive[min(others)]}"


def _last(place: Place | None) -> str:
    return "it never did" if place is None else f"it was on {place.host}, {place}"


def _places(store: dist.Store) -> dict[int, Place]:
    keys = {rank: f"{_PLACE}/{rank}" for rank in range(peers.count())}
    return {rank: Place(*json.loads(store.get(key))) for rank, key in keys.items() if store.check([key])}


def _end(store: dist.Store, line: str, wait: float) -> None:
    """End this process; the first to come here tells why. The first rank, which may hold the store, goes last."""
    if peers.fails_first(store):
        print(f"\ndf-train: error: {line}", file=sys.stderr, flush=True)
        peers.tell_code(EXIT_HUNG, store)
    if peers.own_rank() == 0:
        time.sleep(wait)
    os._exit(EXIT_HUNG)
