"""What the runs of a study were measured to be: df-eval's `per_clip.jsonl` of each, as tables of seeds by clips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from df_eval.metrics import SPECS
from df_eval.study.plan import Plan, Step
from df_eval.study.records import state_of
from df_models.intervals.estimate import Cells, Estimate, estimate
from df_models.intervals.ranges import Range

Pairs = Mapping[str, tuple[float, float]]
"""Numerator and denominator by clip."""


@dataclass(frozen=True)
class Matched:
    """The same seeds and clips of one or two arms.

    Attributes:
        cells: one for each arm.
        people: of the clips; a clip whose person is not known counts as another person's.
        within: the values that the metric can have.
        left_out: what had to be left out and why, in words; empty if nothing.
    """

    cells: Sequence[Cells]
    seeds: Sequence[int]
    clips: Sequence[str]
    people: Sequence[str]
    within: Range
    left_out: str = ""

    def estimate(self, resamples: int, arm: int | None = None) -> Estimate:
        """The value of the one arm, or the difference of the two; ``arm``: the value of one of them."""
        cells = self.cells if arm is None else [self.cells[arm]]
        return estimate(*cells, within=self.within, people=self.people, resamples=resamples)


@dataclass
class Measured:
    """All results of a study.

    Attributes:
        lines: by run (arm, seed), then by (frames, row, metric).
        protocols: by run, `protocol` of its metrics.json.
        missing: runs that are not there, with their state.
        people: by clip, as far as the measurements say.
    """

    lines: dict[tuple[str, int], dict[tuple[int, str, str], Pairs]] = field(default_factory=dict)
    protocols: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    missing: dict[tuple[str, int], str] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)

    def failed(self, arm: str, seed: int) -> bool:
        """Whether a run is missing because it failed, and not because it was not made yet."""
        return self.missing.get((arm, seed), "").startswith("failed")

    def matched(self, arms: Sequence[str], seeds: Sequence[int], frames: int, row: str, metric: str) -> Matched:
        """The cells of arms at the seeds and clips that all of them have."""
        asked = (frames, row, metric)
        whole = [seed for seed in seeds if all((arm, seed) in self.lines for arm in arms)]
        told = [f"{arm} seed {seed} {self.missing[arm, seed]}" for seed in seeds for arm in arms
                if (arm, seed) in self.missing]  # fmt: skip
        found = {(arm, seed): self.lines[arm, seed].get(asked, {}) for seed in whole for arm in arms}
        every = dict.fromkeys(clip for pairs in found.values() for clip in pairs)
        clips = [clip for clip in every if all(clip in pairs for pairs in found.values())]
        without = [arm for arm in arms if whole and every and not any(found[arm, seed] for seed in whole)]
        if without:
            told += [f"{arm} has no {metric} at all (none of its runs gives it in {row})" for arm in without]
        elif len(clips) < len(every):
            told.append(f"{len(every) - len(clips)} clips that not every run was measured on")
        cells = [_cells([found[arm, seed] for seed in whole], clips) for arm in arms]
        people = [self.people.get(clip, clip) for clip in clips]
        if unknown := [clip for clip in clips if clip not in self.people]:
            told.append(f"who is seen in {len(unknown)} clips (each counts as another person)")
        left_out = f"left out: {', '.join(told)}" if told else ""
        return Matched(cells, whole, clips, people, SPECS[metric].within, left_out)


def _cells(rows: Sequence[Pairs], clips: Sequence[str]) -> Cells:
    table_SC2 = np.array([[row[clip] for clip in clips] for row in rows], dtype=np.float64)
    table_SC2 = table_SC2.reshape(len(rows), len(clips), 2)
    return Cells(table_SC2[..., 0], table_SC2[..., 1])


def collect(plan: Plan) -> Measured:
    """Read the results of every run that is done."""
    found, study = Measured(), Path(plan.directory)
    for step in plan.runs:
        if "evaluate" not in step.commands:
            continue
        state = state_of(step, study)
        if state == "done":
            found.lines[step.arm, step.seed], people = read_pairs(step)
            found.people |= people
            found.protocols[step.arm, step.seed] = json.loads((step.results / "metrics.json").read_text())["protocol"]
        else:
            found.missing[step.arm, step.seed] = state
    return found


def read_pairs(step: Step) -> tuple[dict[tuple[int, str, str], Pairs], dict[str, str]]:
    """A run's numbers by (frames, row, metric) and clip, and the clips' people, if it says them."""
    found: dict[tuple[int, str, str], dict[str, tuple[float, float]]] = {}
    people: dict[str, str] = {}
    for text in (step.results / "per_clip.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "person" in line:
            people[line["clip"]] = line["person"]
        for name, pair in line["metrics"].items():
            clips = found.setdefault((line["frames"], line["row"], name), {})
            clips[line["clip"]] = (pair["numerator"], pair["denominator"])
    return dict(found), people
