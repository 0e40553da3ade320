"""The results of an evaluation: per clip, per row, per length; and how clips become cells of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from df_eval.measure import GROUND_TRUTH, ROWS, SAME_VIDEO, SHIFTED, Measured, kind_of, measure_beside_others
from df_eval.metrics import CATALOG, SETS, SPECS, Pair, Score, SetSpec, set_metric
from df_eval.metrics.aggregate import pooled_score
from df_eval.metrics.theval import values_of
from df_eval.reading.readings import FaceReadings

ITSELF = "compared with itself"
ByClip = dict[int, np.ndarray]
"""Arrays by the clips' indices."""


@dataclass
class LengthResults:
    """Everything measured at one length.

    Attributes:
        frames: pixel frames.
        keys: the clips, in order; their index is the sample id.
        people: of the clips; what intervals resample.
        rows: of the table, in order.
        measured: by row, one entry per clip.
        curves: by row, curve name (``lag``, ``identity``, ``sharpness``, ``mouth`` ...) and clip.
        features: by row, name and clip, arrays ``[n, D]`` for distances of distributions.
        unavailable: metrics that no row can have here, with the reason (no reader, truth not known ...).
    """

    frames: int
    keys: list[str]
    people: list[str]
    rows: Sequence[str] = ROWS
    measured: dict[str, list[Measured]] = field(init=False)
    curves: dict[str, dict[str, ByClip]] = field(init=False)
    features: dict[str, dict[str, ByClip]] = field(init=False)
    unavailable: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.measured = {row: [] for row in self.rows}
        self.curves, self.features = ({row: {} for row in self.rows} for _ in range(2))

    def add_curve(self, row: str, index: int, name: str, values: np.ndarray | None) -> None:
        """Add a clip's curve; clips without one (None) leave the curve out."""
        if values is not None:
            self.curves[row].setdefault(name, {})[index] = np.asarray(values, dtype=np.float64)

    def add_features(self, row: str, index: int, name: str, values_nD: np.ndarray) -> None:
        """Add what a network or reader sees in a clip."""
        self.features[row].setdefault(name, {})[index] = values_nD

    def add_others(self, signals: Sequence[FaceReadings]) -> None:
        """Measure what compares a clip's mouth with those of the other clips, once all of them are measured.

        Args:
            signals: the true ones, of every clip.
        """
        mouths = [own.mouth_open_T for own in signals]
        for row, curves in self.curves.items():
            for index, mouth_T in curves.get("mouth", {}).items():
                others = [mouth for place, mouth in enumerate(mouths) if place != index and mouth is not None]
                about = (mouth_T, signals[index], others, self.measured[row][index])
                self.measured[row][index] = measure_beside_others(*about, row)

    def pairs(self, row: str, metric: str) -> dict[int, Pair]:
        """The metric's pairs by clip index, of the clips that have one in this row."""
        found = ((index, clip.pairs.get(metric)) for index, clip in enumerate(self.measured[row]))
        return {index: pair for index, pair in found if pair is not None}

    def score(self, row: str, metric: str, seed: int, resamples: int) -> Score:
        """One cell: pooled over clips with its interval, or the reason why there is none."""
        pairs = self.pairs(row, metric)
        if not pairs:
            return Score.unavailable(self._reason(row, metric))
        notes = {pair.note for pair in pairs.values() if pair.note}
        counted = [f"{note} ({sum(p.note == note for p in pairs.values())} clips)" for note in sorted(notes)]
        within = SPECS[metric].within
        return pooled_score(pairs, self.people, seed, resamples, "; ".join(counted), within=within)

    def table(self, seed: int, resamples: int) -> dict[str, dict[str, Score]]:
        """All cells, by row and metric."""
        return {
            row: {spec.name: self.score(row, spec.name, seed, resamples) for spec in CATALOG}
            | {spec.name: self.set_score(row, spec, seed, resamples) for spec in SETS}
            for row in self.rows
        }

    def set_score(self, row: str, spec: SetSpec, seed: int, resamples: int) -> Score:
        """One cell of a distance of distributions from the true clips'."""
        true, made = (self._features(name, spec) for name in (GROUND_TRUTH, row))
        if row == GROUND_TRUTH or true is None or made is None:
            reason = ITSELF if row == GROUND_TRUTH and true is not None else self._reason(row, spec.name)
            return Score.unavailable(reason)
        distance = set_metric(spec.name)
        distance.update(list(true.values()), list(true), real=True)
        distance.update(list(made.values()), list(made), real=False)
        return distance.score(seed, resamples, self.people)

    def _features(self, row: str, spec: SetSpec) -> ByClip | None:
        """What a distance compares of a row; THEval's score compares values of the clips' own metrics."""
        if spec.features != "theval":
            return self.features[row].get(spec.features)
        if kind_of(row) == SHIFTED:
            return None
        found = {index: values_of(clip.pairs) for index, clip in enumerate(self.measured[row])}
        return {index: values for index, values in found.items() if values is not None} or None

    def _reason(self, row: str, metric: str) -> str:
        if metric in self.unavailable:
            return self.unavailable[metric]
        reasons = [reason for clip in self.measured[row] if (reason := clip.absent.get(metric) or clip.left_out)]
        if reasons:
            return reasons[0]
        return SAME_VIDEO if kind_of(row) == SHIFTED else "not measured"


def clip_lines(results: LengthResults) -> list[dict[str, Any]]:
    """One JSON line per row and clip that is in it, with every value, its numerator and denominator, and notes."""
    lines: list[dict[str, Any]] = []
    for row in results.rows:
        for key, person, clip in zip(results.keys, results.people, results.measured[row], strict=True):
            if clip.left_out:
                continue
            metrics = {
                name: {"value": pair.value, "numerator": pair.numerator, "denominator": pair.denominator}
                | ({"note": pair.note} if pair.note else {})
                for name, pair in clip.pairs.items()
                if np.isfinite(pair.numerator)
            }
            lines.append({"frames": results.frames, "row": row, "clip": key, "person": person, "metrics": metrics})
    return lines


def mean_curve(curves: ByClip) -> np.ndarray:
    """Mean over clips at each point, of the clips that have a value there; NaN where none has."""
    stack = np.stack(list(curves.values()))
    count = np.isfinite(stack).sum(axis=0)
    total = np.where(np.isfinite(stack), stack, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
