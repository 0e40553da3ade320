"""The results of an evaluation: per clip, per row, per length; and how clips become cells of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from df_eval.measure import GROUND_TRUTH, ROWS, SAME_VIDEO, SHIFTED, Measured
from df_eval.metrics import CATALOG, SETS, ClipRatio, Pair, Score, SetDistance, SetSpec

ITSELF = "compared with itself"


@dataclass
class LengthResults:
    """Everything measured at one length.

    Attributes:
        frames: pixel frames.
        keys: the clips, in order; their index is the sample id.
        measured: by row, one entry per clip.
        curves: by row and curve name, one array per clip (``lag``, ``identity``, ``sharpness``, ``mouth`` ...).
        features: by row and name, one array ``[n, D]`` per clip, for distances of distributions.
        unavailable: metrics that no row can have here, with the reason (no reader, truth not known ...).
    """

    frames: int
    keys: list[str]
    measured: dict[str, list[Measured]] = field(default_factory=lambda: {row: [] for row in ROWS})
    curves: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=lambda: {row: {} for row in ROWS})
    features: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=lambda: {row: {} for row in ROWS})
    unavailable: dict[str, str] = field(default_factory=dict)

    def add_curve(self, row: str, name: str, values: np.ndarray | None) -> None:
        """Append a clip's curve; clips without one (None) leave the curve out."""
        if values is not None:
            self.curves[row].setdefault(name, []).append(np.asarray(values, dtype=np.float64))

    def pairs(self, row: str, metric: str) -> dict[int, Pair]:
        """The metric's pairs by clip index, of the clips that have one in this row."""
        found = ((index, clip.pairs.get(metric)) for index, clip in enumerate(self.measured[row]))
        return {index: pair for index, pair in found if pair is not None}

    def score(self, row: str, metric: str, seed: int, resamples: int) -> Score:
        """One cell: pooled over clips with its interval, or the reason why there is none."""
        pairs = self.pairs(row, metric)
        if not pairs:
            return Score.unavailable(self._reason(row, metric))
        pooled = ClipRatio()
        pooled.update(list(pairs.values()), list(pairs))
        notes = {pair.note for pair in pairs.values() if pair.note}
        counted = [f"{note} ({sum(p.note == note for p in pairs.values())} clips)" for note in sorted(notes)]
        return pooled.score(seed, resamples, reason="; ".join(counted))

    def table(self, seed: int, resamples: int) -> dict[str, dict[str, Score]]:
        """All cells, by row and metric."""
        return {
            row: {spec.name: self.score(row, spec.name, seed, resamples) for spec in CATALOG}
            | {spec.name: self.set_score(row, spec, seed, resamples) for spec in SETS}
            for row in ROWS
        }

    def set_score(self, row: str, spec: SetSpec, seed: int, resamples: int) -> Score:
        """One cell of a distance of distributions from the true clips'."""
        true, made = (self.features[name].get(spec.features) for name in (GROUND_TRUTH, row))
        if row == GROUND_TRUTH or true is None or made is None:
            reason = ITSELF if row == GROUND_TRUTH and true is not None else self._reason(row, spec.name)
            return Score.unavailable(reason)
        distance = SetDistance(spec.name)
        distance.update(true, range(len(true)), real=True)
        distance.update(made, range(len(made)), real=False)
        return distance.score(seed, resamples)

    def _reason(self, row: str, metric: str) -> str:
        if metric in self.unavailable:
            return self.unavailable[metric]
        reasons = [clip.absent[metric] for clip in self.measured[row] if metric in clip.absent]
        if reasons:
            return reasons[0]
        return SAME_VIDEO if row == SHIFTED else "not measured"


def clip_lines(results: LengthResults) -> list[dict[str, Any]]:
    """One JSON line per row and clip, with every value, its numerator and denominator, and notes."""
    lines: list[dict[str, Any]] = []
    for row in ROWS:
        for key, clip in zip(results.keys, results.measured[row], strict=True):
            metrics = {
                name: {"value": pair.value, "numerator": pair.numerator, "denominator": pair.denominator}
                | ({"note": pair.note} if pair.note else {})
                for name, pair in clip.pairs.items()
                if np.isfinite(pair.numerator)
            }
            lines.append({"frames": results.frames, "row": row, "clip": key, "metrics": metrics})
    return lines


def mean_curve(curves: list[np.ndarray]) -> np.ndarray:
    """Mean over clips at each point, of the clips that have a value there; NaN where none has."""
    stack = np.stack(curves)
    count = np.isfinite(stack).sum(axis=0)
    total = np.where(np.isfinite(stack), stack, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
