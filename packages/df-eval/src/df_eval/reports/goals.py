"""What a quickstart run must reach, computed alike for every length. The limits stand here, not in a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, SHIFTED
from df_eval.metrics import ClipRatio, Pair, Score
from df_eval.results import LengthResults

LIP_SYNC_SHARE = 0.8
SHIFTED_LIMIT = 0.15
IDENTITY_DRIFT_LIMIT = 1.15
MOTION_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class Goal:
    """One goal at one length.

    The decision is taken on the value itself; the interval is shown so that a narrow pass or fail can be seen. A goal
    is met only if every clip entered on which the truth itself can be measured: a video in which no face can be read
    must not escape by being left out.

    Attributes:
        truth: what the ground truth's own row reaches, where the row has that metric.
        passed: None where the metric does not exist here (``score.reason`` says why).
    """

    name: str
    frames: int
    target: str
    score: Score
    passed: bool | None
    truth: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def goals_of(results: LengthResults, seed: int, resamples: int) -> list[Goal]:
    """The goals at one length."""
    low, high = MOTION_RANGE

    def score(row: str, metric: str) -> Score:
        return results.score(row, metric, seed, resamples)

    goals = (
        ("lip-sync, share of the VAE reconstruction's", f">= {LIP_SYNC_SHARE}", "lip_sync",
         _lip_sync_share(results, seed, resamples), lambda v: v >= LIP_SYNC_SHARE),
        ("lip-sync of the shifted-audio control", f"|mean| < {SHIFTED_LIMIT}", "lip_sync",
         score(SHIFTED, "lip_sync"), lambda v: abs(v) < SHIFTED_LIMIT),
        ("identity distance to the reference, last quarter / first", f"<= {IDENTITY_DRIFT_LIMIT}", "identity_ratio",
         score(GENERATED, "identity_ratio"), lambda v: v <= IDENTITY_DRIFT_LIMIT),
        ("identity distance to the person, last quarter / first", f"<= {IDENTITY_DRIFT_LIMIT}",
         "identity_person_ratio", score(GENERATED, "identity_person_ratio"), lambda v: v <= IDENTITY_DRIFT_LIMIT),
        ("motion energy, share of the truth's", f"{low} to {high}", "motion_ratio",
         score(GENERATED, "motion_ratio"), lambda v: low <= v <= high),
    )  # fmt: skip
    decided = [_decide(name, results, target, reached, metric, test) for name, target, metric, reached, test in goals]
    own = (None, None, "identity_ratio", "identity_person_ratio", "motion_ratio")
    return [
        goal if metric is None else replace(goal, truth=score(GROUND_TRUTH, metric).value)
        for goal, metric in zip(decided, own, strict=True)
    ]


def _decide(
    name: str, results: LengthResults, target: str, score: Score, metric: str, test: Callable[[float], bool]
) -> Goal:
    clips = sum(pair.defined for pair in results.pairs(GROUND_TRUTH, metric).values())
    if score.value is None and score.undefined == 0:
        return Goal(name, results.frames, target, score, None)
    met = score.value is not None and score.n >= clips and test(score.value)
    if score.n < clips:
        score = replace(score, reason=f"measured on {score.n} of {clips} clips only, so it does not count as met")
    return Goal(name, results.frames, target, score, met)


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
