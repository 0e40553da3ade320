"""The list's second kind: what compares all clips of a row with all true clips, distances of distributions most of all.

They have no value per clip. Intervals resample people (clips, where all are of one person), the true and the made one
of a clip together. A resampled set holds clips twice, which raises such distances, so the spread of the resampled
distances is laid around the value itself: value +- t * standard error (`df_models.intervals.estimate`).

Frames of one clip are alike, so what counts as the size of a set is its clips, also where frames are compared.

Shape suffixes: n vectors of one clip, N of a set, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from df_eval.metrics import theval
from df_eval.metrics.aggregate import ClipStates, Score, whole_ids
from df_eval.metrics.frechet import clip_kernels, frechet_of_sets, kernel_distance
from df_models.errors import nearest
from df_models.intervals.estimate import interval, units_of
from df_models.intervals.ranges import ANY, NOT_NEGATIVE, Range

WINDOW_FRAMES = 16
SET_RESAMPLES = 100
"""Bootstrap resamples of these distances at most: each is a distance of whole sets."""

Clips = Sequence[np.ndarray]
Distance = Callable[[Clips, Clips], Callable[[np.ndarray], float]]
"""From the vectors ``[n, D]`` of the true and the made clips, in pairs, to what gives the distance of some pairs."""

PROTOCOL_CLIPS = 2048
"""Clips from which a Frechet distance is printed without a remark, as in fvd2048_16f."""


@dataclass(frozen=True)
class SetSpec:
    """One distance of distributions.

    Attributes:
        features: name of the features that it compares; `readings` are the face reader's own, `theval` the values of
            THEval's metrics.
        distance: of the true and the made vectors.
        pick: which of a clip's vectors enter.
        biased: it is too large for few clips; below `PROTOCOL_CLIPS` it is printed with a remark.
        scaled: features are taken in standard deviations of the whole true set; those that do not vary are left out.
        within: the values that it can have.
        remark: what must be read beside the value, or why there is none, of the true and the made vectors.
    """

    name: str
    title: str
    definition: str
    features: str
    distance: Distance
    source: str
    protocol: str
    pick: slice = field(default_factory=lambda: slice(None))
    biased: bool = True
    scaled: bool = False
    within: Range = NOT_NEGATIVE
    decimals: int = 1
    group: str = "sets"
    better: str = "lower"
    unit: str = ""
    remark: Callable[[Clips, Clips], str] | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.features,)


def frechet(ddof: int) -> Distance:
    """The Frechet distance of all vectors of the clips."""

    def prepared(true: Clips, made: Clips) -> Callable[[np.ndarray], float]:
        def distance(pick: np.ndarray) -> float:
            some_true, some_made = (np.concatenate([clips[i] for i in pick]) for clips in (true, made))
            return frechet_of_sets(some_true, some_made, ddof)

        return distance

    return prepared


def kernel(true: Clips, made: Clips) -> Callable[[np.ndarray], float]:
    """The kernel distance over clips."""
    kernels = clip_kernels(true, true), clip_kernels(made, made), clip_kernels(true, made)
    return partial(kernel_distance, *kernels)


def _fvd(name: str, title: str, features: str, port: str, last: bool) -> SetSpec:
    where = "last" if last else "first"
    return SetSpec(
        name,
        title,
        f"Frechet distance of I3D's features of the {where} {WINDOW_FRAMES} frames of the clips and of the true clips. "
        "I3D averages over time, so beginning and end stand apart: drift shows as their difference.",
        features,
        frechet(ddof=0),
        "Unterthiner et al. 2018; " + port,
        f"{WINDOW_FRAMES} consecutive frames, one window of each clip, 400 logits, covariance with ddof 0",
        pick=slice(1, 2) if last else slice(0, 1),
    )


_STYLEGAN = "settings of StyleGAN-V (fvd2048_16f: rescale, resize, return_features)"
_CD = "cd-fvd (Ge et al. 2024): bilinear 224, align_corners False, [-1, 1]"

SETS: list[SetSpec] = [
    _fvd("fvd2048_16f", "FVD", "i3d", _STYLEGAN, last=False),
    _fvd("fvd2048_16f_last", "FVD, end", "i3d", _STYLEGAN, last=True),
    _fvd("cd_fvd", "FVD (cd-fvd)", "cd_i3d", _CD, last=False),
    _fvd("cd_fvd_last", "FVD (cd-fvd), end", "cd_i3d", _CD, last=True),
    SetSpec(
        "fid",
        "FID",
        "Frechet distance of Inception's features of all frames of the clips and of the true clips.",
        "inception",
        frechet(ddof=1),
        "Heusel et al. 2017",
        "Inception of 2015-12-05, its own resizing, 2048 features, covariance with ddof 1, every frame of every clip "
        "(published numbers are of 50 000 independent images)",
    ),
    SetSpec(
        "kid",
        "KID",
        "Kernel distance of the same features between different clips; unbiased, so few clips make it uncertain and "
        "not large.",
        "inception",
        kernel,
        "Binkowski et al. 2018",
        "the features of FID, cubic kernel, mean over pairs of different clips in place of random subsets of images: a "
        "U-statistic over clips",
        biased=False,
        within=ANY,  # unbiased: of equal distributions it scatters about 0
        decimals=4,
    ),
    SetSpec(
        "frechet_reader",
        "Frechet of readings",
        "Frechet distance of what the face reader reads in the frames (mouth, lip width, lids, pose, identity), each "
        "in standard deviations of the truth's. It needs no borrowed network, and compares with no published number.",
        "readings",
        frechet(ddof=1),
        "this repository",
        "every frame that was read, covariance with ddof 1",
        scaled=True,
        decimals=2,
    ),
    SetSpec(
        "theval_part",
        "THEval, in part",
        "Mean of 1 - |m - truth| / |truth| over the THEval metrics of this table, m and truth being means over the "
        "clips on which both have the metric. It is of five of the eight at most and so not THEval's final score; "
        "which are missing stands beside it.",
        "theval",
        theval.score,
        "Quignon et al., CVPR 2026 (THEval, equation 12; theval/scoring.py)",
        "over the same metrics in every row: those of which the truth has a value that is not 0",
        biased=False,
        within=(-inf, 1.0),
        decimals=3,
        group="theval",
        better="higher",
        remark=theval.remark,
    ),
]
SET_SPECS: dict[str, SetSpec] = {spec.name: spec for spec in SETS}


class SetDistance(ClipStates):
    """One of :data:`SETS` as a torchmetrics metric; clips that were padded twice count once.

    >>> metric = SetDistance("frechet_reader")
    >>> a, b = np.random.default_rng(0).normal(size=(2, 2, 50, 3))
    >>> metric.update(a, [0, 1], real=True)
    >>> metric.update(b, [0, 1], real=False)
    >>> 0 < float(metric.compute()) < 1
    True
    """

    kinds: ClassVar[dict[str, torch.dtype]] = {
        "values": torch.float64,
        "sizes": torch.int64,
        "widths": torch.int64,
        "sample_ids": torch.int64,
        "are_real": torch.int64,
    }
    higher_is_better = False

    values: list[Tensor]
    sizes: list[Tensor]
    widths: list[Tensor]
    sample_ids: list[Tensor]
    are_real: list[Tensor]

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if name not in SET_SPECS:
            hint = nearest(name, SET_SPECS)
            known = ", ".join(SET_SPECS)
            raise ValueError(f"{name!r} is no distance of sets{hint}; there are {known}. See metric_class for others")
        self.spec = SET_SPECS[name]

    def update(self, features: Sequence[np.ndarray] | np.ndarray, sample_ids: Sequence[int], *, real: bool) -> None:
        """Add clips: the features ``[n, D]`` of each, and ids that tell clips apart, the same for the true and the
        made video of a clip.

        Raises:
            ValueError: another number of ids than of clips, an id that is no whole number, or features of other shapes.
        """
        if len(features) != len(sample_ids):
            raise ValueError(f"features of {len(features)} clips but {len(sample_ids)} sample ids")
        for values, clip in zip(features, whole_ids(sample_ids)):
            if np.ndim(values) != 2:
                raise ValueError(
                    f"{self.spec.name} takes vectors [n, D] of each clip, and those of clip {clip} have the shape "
                    f"{list(np.shape(values))}; one vector of a clip is [1, D]"
                )
            if self.widths and np.shape(values)[1] != int(self.widths[0]):
                raise ValueError(
                    f"{self.spec.name} was given vectors of {int(self.widths[0])} numbers, and those of clip {clip} "
                    f"have {np.shape(values)[1]}: of one network all have as many"
                )
            picked = np.ascontiguousarray(values[self.spec.pick], dtype=np.float64)
            self.values.append(torch.from_numpy(picked.reshape(-1)))
            self.sizes.append(torch.tensor([picked.size]))
            self.widths.append(torch.tensor([picked.shape[1]]))
            self.sample_ids.append(torch.tensor([clip]))
            self.are_real.append(torch.tensor([int(real)]))

    def _clips(self, real: bool) -> dict[int, np.ndarray]:
        """The vectors of each clip, by its id; the first of those that came twice."""
        sizes, widths, ids, are_real = (
            self.gathered(name).astype(np.int64) for name in ("sizes", "widths", "sample_ids", "are_real")
        )
        parts = np.split(self.gathered("values"), np.cumsum(sizes)[:-1]) if len(sizes) else []
        found: dict[int, np.ndarray] = {}
        for part, width, clip, is_real in zip(parts, widths, ids, are_real):
            if bool(is_real) == real:
                found.setdefault(int(clip), part.reshape(-1, width))
        return dict(sorted(found.items()))

    def _pairs(self) -> tuple[list[int], list[np.ndarray], list[np.ndarray], int]:
        """The clips that have both, their true and made vectors, scaled, and how many have not both."""
        true, made = self._clips(True), self._clips(False)
        both = [clip for clip in true if clip in made and len(true[clip]) and len(made[clip])]
        trues, mades = [true[clip] for clip in both], [made[clip] for clip in both]
        if self.spec.scaled and both:
            deviation = np.concatenate(trues).std(axis=0)
            kept = deviation > 1e-9
            trues, mades = ([v[:, kept] / deviation[kept] for v in clips] for clips in (trues, mades))
        return both, trues, mades, len(true) - len(both)

    def compute(self) -> Tensor:
        """The distance; NaN for sets of fewer than two vectors.

        Raises:
            ValueError: there are true and made clips, and none has the other's id.
        """
        _, true, made, _ = self._pairs()
        ids = [self._clips(real).keys() for real in (True, False)]
        if all(ids) and ids[0].isdisjoint(ids[1]):
            raise ValueError(
                f"{self.spec.name}: no true and made clip have one id; give both videos of a clip the same, or number "
                "two sets that are no pairs from 0 each (README: as a library)"
            )
        return torch.tensor(self._distances(true, made, [np.arange(len(true))])[0], dtype=torch.float64)

    def _distances(self, true: Clips, made: Clips, picks: Sequence[np.ndarray]) -> np.ndarray:
        """The distances of some choices of the clips, NaN where there are too few."""
        found = np.full(len(picks), np.nan)
        if not len(true):
            return found
        distance = self.spec.distance(true, made)
        for place, pick in enumerate(picks):
            with suppress(ValueError, np.linalg.LinAlgError):
                found[place] = distance(pick)
        return found

    def score(self, seed: int = 0, resamples: int = SET_RESAMPLES, people: Sequence[str] | None = None) -> Score:
        """The distance with its interval and, if it is biased for so few clips, a remark.

        Args:
            people: of the clips, by sample id; what the interval resamples. Without them each clip counts as another
                person's.
        """
        both, true, made, undefined = self._pairs()
        count, shown = len(true), [] if people is None else [people[index] for index in both]
        units = units_of(shown) if shown else np.arange(count)
        members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
        drawn = _draws(members, min(resamples, SET_RESAMPLES), seed)
        value, *resampled = self._distances(true, made, [np.arange(count), *drawn])
        told = self.spec.remark(true, made) if self.spec.remark is not None else ""
        if not np.isfinite(value):
            reason = told or f"{count} clips are too few for a distance of distributions"
            return Score(None, undefined=undefined, reason=reason)
        low, high = self._interval(float(value), np.array(resampled), len(members))
        few = f"{self.spec.title} is biased below {PROTOCOL_CLIPS} clips; N = {count}"
        reason = few if self.spec.biased and count < PROTOCOL_CLIPS else told
        return Score(float(value), low, high, count, undefined, reason, len({*shown}))

    def _interval(self, value: float, resampled: np.ndarray, units: int) -> tuple[float, float] | tuple[None, None]:
        """Value -+ t times the standard error, which a bootstrap of U units understates by sqrt((U - 1) / U)."""
        found = resampled[np.isfinite(resampled)]
        if units < 2 or len(found) < 2:
            return None, None
        error = float(found.std(ddof=1)) * (units / (units - 1)) ** 0.5
        return interval(value, error, units - 1, self.spec.within)


def _draws(members: Sequence[np.ndarray], count: int, seed: int) -> list[np.ndarray]:
    """Clips of as many units as there are, drawn with replacement, so many times."""
    if not members:
        return []
    picks_RU = np.random.default_rng(seed).integers(0, len(members), size=(count, len(members)))
    return [np.concatenate([members[unit] for unit in picks_U]) for picks_U in picks_RU]
