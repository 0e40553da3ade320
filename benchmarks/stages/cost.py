"""What each judge costs: core seconds for a second of a clip, on this process's own CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.stages.seen import Seen
from benchmarks.stages.tables import Section, table
from df_data.stages.cut_off import lips_outside
from df_data.stages.shots import shot_cuts
from df_data.stages.stillness import frozen_frames
from df_data.stages.sync import lag_curve, verdict
from df_data.stages.transitions import person_changes
from df_models.time import FPS

REPEATS = 3
"""Passes, of which the fastest counts: other programs only ever make one slower."""


def sync(one: Seen) -> None:
    """Judge lips and audio."""
    curve = lag_curve(one.readings, one.wave)
    if curve is not None:
        verdict(curve, 0.1)


def edge(one: Seen) -> None:
    """Look where the lips are."""
    lips_outside((one.landmarks.points[..., :2] + 1) * 128, 256, 256)


def measure(clips: Sequence[Seen]) -> Section:
    """Time every judge on stretches that are in memory."""
    seconds = sum(len(one.landmarks.points) for one in clips) / FPS
    whole, crops = [one.whole for one in clips], [one.frames for one in clips]
    vectors = np.random.default_rng(0).standard_normal((32, 128))
    for one in clips:
        sync(one)
    judges: dict[str, Callable[[int], object]] = {
        "cuts, jump cuts and transitions (images thinned to 64 and 128 rows)": lambda index: shot_cuts(whole[index]),
        "lips and audio": lambda index: sync(clips[index]),
        "frames that stand still": lambda index: frozen_frames(crops[index]),
        "lips at the edge": lambda index: edge(clips[index]),
        "one person (vectors given)": lambda index: person_changes(vectors),
    }
    rows = []
    for name, judge in judges.items():
        taken = []
        for _ in range(REPEATS):
            began = time.process_time()
            for index in range(len(clips)):
                judge(index)
            taken.append(time.process_time() - began)
        rows.append([name, f"{min(taken) / seconds:.4f}"])
    text = (
        f"{len(clips)} stretches of `talking`, {seconds:.0f} s, in one thread; the networks that they ask (landmarks, "
        "detector, identity) are not counted.\n\n" + table(("judge", "core seconds a second of clip"), rows)
    )
    return Section("What the judges cost", text, {"rows": rows})
