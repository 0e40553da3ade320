"""What a quickstart run must reach, computed alike for every length. The limits stand here, not in a configuration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from df_eval.measure import GENERATED, RECONSTRUCTION, SHIFTED
from df_eval.metrics import ClipRatio, Pair, Score
from df_eval.results import LengthResults

LIP_SYNC_SHARE = 0.8
SHIFTED_LIMIT = 0.15
IDENTITY_DRIFT_LIMIT = 1.15
MOTION_RANGE = (0.5, 2.0)


@dataclass(frozen=True)
class Goal:
    """One goal at one length. ``passed`` is None where it could not be measured; ``score.reason`` then says why.

    The decision is taken on the value itself; the interval is shown so that a narrow pass or fail can be seen.
    """

    name: str
    frames: int
    target: str
    score: Score
    passed: bool | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def goals_of(results: LengthResults, seed: int, resamples: int) -> list[Goal]:
    """The goals at one length."""
    share = _lip_sync_share(results, seed, resamples)
    shifted = results.score(SHIFTED, "lip_sync", seed, resamples)
    drift = results.score(GENERATED, "identity_ratio", seed, resamples)
    motion = results.score(GENERATED, "motion_ratio", seed, resamples)
    low, high = MOTION_RANGE
    rows = (
        ("lip-sync, share of the VAE reconstruction's", f">= {LIP_SYNC_SHARE}", share, lambda v: v >= LIP_SYNC_SHARE),
        ("lip-sync of the shifted-audio control", f"|mean| < {SHIFTED_LIMIT}", shifted,
         lambda v: abs(v) < SHIFTED_LIMIT),
        ("identity distance, last quarter / first", f"<= {IDENTITY_DRIFT_LIMIT}", drift,
         lambda v: v <= IDENTITY_DRIFT_LIMIT),
        ("motion energy, share of the truth's", f"{low} to {high}", motion, lambda v: low <= v <= high),
    )  # fmt: skip
    return [
        Goal(name, results.frames, target, score, None if score.value is None else bool(test(score.value)))
        for name, target, score, test in rows
    ]


def _lip_sync_share(results: LengthResults, seed: int, resamples: int) -> Score:
    """Mean lip-sync of the generated videos over that of the VAE's reconstructions, over the clips that have both."""
    generated, rebuilt = results.pairs(GENERATED, "lip_sync"), results.pairs(RECONSTRUCTION, "lip_sync")
    both = [clip for clip in generated if generated[clip].defined and clip in rebuilt and rebuilt[clip].defined]
    if not both:
        return Score.unavailable(results.score(GENERATED, "lip_sync", seed, resamples).reason or "not measured")
    ratio = ClipRatio()
    ratio.update([Pair(generated[clip].numerator, rebuilt[clip].numerator) for clip in both], both)
    score = ratio.score(seed, resamples)
    if sum(rebuilt[clip].numerator for clip in both) <= 0:
        return Score.unavailable("the reader finds no lip-sync in the VAE reconstruction itself")
    return score
