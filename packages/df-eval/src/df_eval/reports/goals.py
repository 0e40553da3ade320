"""What a quickstart run must reach, computed alike for every length. The limits stand here, not in a configuration."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, SHIFTED
from df_eval.metrics import ClipRatio, Pair, Score
from df_eval.results import LengthResults

LIP_SYNC_SHARE = 0.8
SHIFTED_LIMIT = 0.15
IDENTITY_DRIFT_LIMIT = 1.15
MOTION_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class Limits:
    """Least and largest value that meet a goal."""

    least: float = -math.inf
    most: float = math.inf

    def hold(self, value: float) -> bool:
        return self.least <= value <= self.most


SHARE = Limits(least=LIP_SYNC_SHARE)
SHIFTED_BELOW = Limits(-math.nextafter(SHIFTED_LIMIT, 0), math.nextafter(SHIFTED_LIMIT, 0))
DRIFT = Limits(most=IDENTITY_DRIFT_LIMIT)
MOTION = Limits(*MOTION_RANGE)


@dataclass(frozen=True)
class Goal:
    """One goal at one length.

    The decision is taken on the value itself; the interval is shown so that a narrow pass or fail can be seen. A goal
    is met only if every clip entered on which the truth itself can be measured: a video in which no face can be read
    must not escape by being left out.

    Attributes:
        truth: what the ground truth's own row reaches, where the row has that metric.
        passed: None where the metric does not exist here (``score.reason`` says why).
        known: of a goal that is not met, what is known of why; empty of others.
    """

    name: str
    frames: int
    target: str
    score: Score
    passed: bool | None
    truth: float | None = None
    known: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def told(self) -> str:
        """What stands beside the numbers: why it is unavailable, what was left out, what is known of a miss."""
        return "; ".join(text for text in (self.score.reason, self.known) if text)


class _Asked(NamedTuple):
    """A goal before it is measured.

    ``own`` is the metric of the ground truth's row that says whether the truth itself would miss (None: no such), and
    ``hint`` what it means if it does.
    """

    name: str
    target: str
    metric: str
    limits: Limits
    row: str
    own: str | None
    hint: str = ""


GOALS = (
    _Asked("lip-sync, share of the VAE reconstruction's", f">= {LIP_SYNC_SHARE}", "lip_sync", SHARE, RECONSTRUCTION,
           None),
    _Asked("lip-sync of the shifted-audio control", f"|mean| < {SHIFTED_LIMIT}", "lip_sync", SHIFTED_BELOW, SHIFTED,
           "lip_sync_other", "the true mouths of other clips are so like this one's: the sentences share a rhythm; "
           "read lip-sync over other clips"),
    _Asked("identity distance to the reference, last quarter / first", f"<= {IDENTITY_DRIFT_LIMIT}", "identity_ratio",
           DRIFT, GENERATED, "identity_ratio",
           "the head moves away from the reference's pose; read the distance to the person"),
    _Asked("identity distance to the person, last quarter / first", f"<= {IDENTITY_DRIFT_LIMIT}",
           "identity_person_ratio", DRIFT, GENERATED, "identity_person_ratio",
           "the reader sees the true person change over these clips"),
    _Asked("motion energy, share of the truth's", f"{MOTION.least} to {MOTION.most}", "motion_ratio", MOTION, GENERATED,
           "motion_ratio"),
)  # fmt: skip


def goals_of(results: LengthResults, seed: int, resamples: int) -> list[Goal]:
    """The goals at one length."""

    def score(row: str, metric: str) -> Score:
        return results.score(row, metric, seed, resamples)

    found = []
    for asked in GOALS:
        share = asked.row == RECONSTRUCTION
        reached = _lip_sync_share(results, seed, resamples) if share else score(asked.row, asked.metric)
        own = None if asked.own is None else score(GROUND_TRUTH, asked.own).value
        found.append(_decide(asked, results, reached, own))
    return found


def _decide(asked: _Asked, results: LengthResults, score: Score, own: float | None) -> Goal:
    clips = sum(pair.defined for pair in results.pairs(GROUND_TRUTH, asked.metric).values())
    goal = Goal(asked.name, results.frames, asked.target, score, None, own if asked.own == asked.metric else None)
    if score.value is None and score.undefined == 0:
        return goal
    met = score.value is not None and score.n >= clips and asked.limits.hold(score.value)
    if score.n < clips:
        reason = f"measured on {score.n} of {clips} clips only, so it does not count as met"
        goal = replace(goal, score=replace(score, reason=reason))
    return replace(goal, passed=met, known="" if met else known_of(asked.limits, score, own, asked.hint))


def known_of(limits: Limits, score: Score, own: float | None, hint: str) -> str:
    """What is known of why a value misses its limits: whether the truth does, and whether the interval decides it."""
    if score.value is None or limits.hold(score.value):
        return ""
    told = []
    if own is not None and (own > limits.most if score.value > limits.most else own < limits.least):
        told.append(f"the truth itself reaches {own:.3f}" + (f": {hint}" if hint else ""))
    if score.low is None or score.high is None:
        told.append(f"N {score.n}: there is no interval")
    elif score.low <= limits.most and score.high >= limits.least:
        told.append("the interval holds values that would meet it")
    else:
        told.append("no value of the interval would meet it")
    return "; ".join(told)


def _lip_sync_share(results: LengthResults, seed: int, resamples: int) -> Score:
    """Mean lip-sync of the generated videos over that of the VAE's reconstructions, over clips whose truth moves."""
    generated, rebuilt = results.pairs(GENERATED, "lip_sync"), results.pairs(RECONSTRUCTION, "lip_sync")
    if not generated or not rebuilt:
        return Score.unavailable(results.score(GENERATED, "lip_sync", seed, resamples).reason)
    ratio = ClipRatio()
    both = {clip: generated[clip].defined and rebuilt[clip].defined for clip in generated}
    ratio.update(
        [Pair(generated[c].numerator, rebuilt[c].numerator) if ok else Pair.undefined("") for c, ok in both.items()],
        list(both),
    )
    if any(both.values()) and sum(rebuilt[clip].numerator for clip, ok in both.items() if ok) <= 0:
        return Score.unavailable("the reader finds no lip-sync in the VAE reconstruction itself")
    return ratio.score(seed, resamples, people=results.people)
