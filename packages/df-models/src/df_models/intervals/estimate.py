"""Values and differences between arms, over seeds and people at once. Pure functions.

Every arm is trained with every seed and measured on the same clips, so the cells of an arm form a table of seeds by
clips, and those of two arms stand in pairs. Clips of one person are no independent samples of people: the cells of a
person are added up, and "clips" below are people wherever there are several (:func:`units_of`).
Seeds and clips both are samples of what a claim is about: an interval over clips alone says nothing of another
training, one over seeds alone nothing of other people.

The standard error is that of the bootstrap that resamples seeds and clips each with replacement and takes every cell
of the seeds and clips drawn ("pigeonhole" bootstrap: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
2007). It is right for the means over seeds and over clips, and too large, never too small, for what is left. One seed
and one clip fewer are drawn than there are, which makes the variance of a mean unbiased (McCarthy and Snowden, "The
Bootstrap and Finite Population Sampling", 1985). With 3 or 5 seeds, percentiles of such a bootstrap are too narrow
(Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015), so the interval is
value +- t * standard error, with degrees of freedom as Satterthwaite (1946) takes them from the mean squares of seeds,
clips and the rest, cut where the metric has no values (:func:`interval`). The p value is that of the same t, so that
interval and p never contradict each other. A sign-flip test is not used: signs of single cells are not exchangeable
when whole seeds differ, and flipping whole seeds has no p below 1/16 with 5 of them.

Shape suffixes: S seeds, C clips, U people or clips, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from df_models.intervals.ranges import ANY, Range, of_difference

RESAMPLES = 2000
"""Bootstrap resamples of every interval."""
LEVEL = 0.95
"""Of all intervals."""

ROUNDING = 1e-12
"""Share of a value below which an error is that of sums in double precision."""


def units_of(people: Sequence[str]) -> np.ndarray:
    """What intervals resample, a number for each clip: its person, or the clip itself where all are of one person.

    Clips of one person are alike, so an interval over clips would be too narrow for a claim about people (the cluster
    bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Of one person's clips
    it speaks of that person's other sentences, and of nobody else.
    """
    names, units_C = np.unique(np.asarray(people, dtype=str), return_inverse=True)
    return units_C if len(names) > 1 else np.arange(len(people))


def summed_by(units_C: np.ndarray, values_C: np.ndarray) -> np.ndarray:
    """The values' sums over each unit that occurs, ``[U]``."""
    _, place_C = np.unique(units_C, return_inverse=True)
    return np.bincount(place_C, weights=values_C)


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Sum over sum; NaN without a denominator."""
    total = float(np.sum(denominator))
    return float(np.sum(numerator)) / total if total != 0 else float("nan")


@dataclass(frozen=True)
class Cells:
    """A metric of one arm: numerators and denominators [S, C]; a cell without a value has denominator 0."""

    numerator_SC: np.ndarray
    denominator_SC: np.ndarray

    @property
    def defined_SC(self) -> np.ndarray:
        """Where there is a value."""
        return (self.denominator_SC != 0) & np.isfinite(self.numerator_SC) & np.isfinite(self.denominator_SC)

    def only(self, kept_SC: np.ndarray) -> Cells:
        """The same without the cells that are not kept."""
        return Cells(np.where(kept_SC, self.numerator_SC, 0.0), np.where(kept_SC, self.denominator_SC, 0.0))

    def of(self, rows_S: np.ndarray, columns_C: np.ndarray) -> Cells:
        """The same of some of the seeds and clips."""
        return Cells(*(table[rows_S][:, columns_C] for table in (self.numerator_SC, self.denominator_SC)))

    def by_unit(self, units_C: np.ndarray) -> Cells:
        """The same with the clips of each unit added up."""
        tables = (self.numerator_SC, self.denominator_SC)
        return Cells(*(np.stack([summed_by(units_C, row_C) for row_C in table]) for table in tables))

    @property
    def pooled(self) -> float:
        """Sum over sum, as df-eval pools clips; NaN without any value."""
        return ratio_of_sums(self.numerator_SC, self.denominator_SC)


@dataclass(frozen=True)
class Estimate:
    """A value or a paired difference with its interval.

    Attributes:
        value: None where nothing is defined.
        low, high: 95 % interval; None where there is only one seed and one clip.
        error: standard error; ``freedom``: degrees of freedom of its t.
        seeds, clips: that have any value; an interval of one seed is over people (or clips) alone.
        undefined: cells left out because an arm has no value there.
        people: that the clips are of; 0 if that is not known.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    freedom: float | None = None
    seeds: int = 0
    clips: int = 0
    undefined: int = 0
    people: int = 0


def interval(value: float, error: float, freedom: float, within: Range = ANY) -> tuple[float, float]:
    """``value -+ t * error``, without what no value can be.

    The end that would lie beyond a metric's range is put on its border, so the interval covers the true value exactly
    as often as before. It always holds the value itself, which may lie beyond a border by a rounding.

    >>> low, high = interval(0.1, 1.0, 100, (0.0, 1.0))
    >>> (low, high)
    (0.0, 1.0)
    """
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * error
    least, most = within
    return min(max(value - reach, least), value), max(min(value + reach, most), value)


def estimate(
    a: Cells,
    b: Cells | None = None,
    *,
    within: Range = ANY,
    people: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The pooled value of ``a``, or its paired difference ``a - b``, over seeds and clips.

    Args:
        b: of the same seeds and clips, in the same order. Cells that either arm lacks are left out of both.
        within: the values that the metric can have, of one arm.
        people: of the clips, in their order; without them each clip counts as another person's.
        seed: of the resampling.
    """
    kept_SC = a.defined_SC if b is None else a.defined_SC & b.defined_SC
    undefined = int((~kept_SC).sum())
    if not kept_SC.any():
        return Estimate(None, undefined=undefined)
    rows, columns = (np.asarray(kept_SC.any(axis=axis)) for axis in (1, 0))  # a seed or clip without a value is none
    arms = [cells.only(kept_SC).of(rows, columns) for cells in ((a,) if b is None else (a, b))]
    shown = [] if people is None else [person for person, kept in zip(people, columns, strict=True) if kept]
    if shown:
        arms = [cells.by_unit(units_of(shown)) for cells in arms]  # of what is left: one person's clips are drawn
    seeds, units = arms[0].numerator_SC.shape
    value = arms[0].pooled - (arms[1].pooled if b is not None else 0.0)
    bare = Estimate(value, seeds=seeds, clips=int(columns.sum()), undefined=undefined, people=len({*shown}))
    if not np.isfinite(value):  # denominators that add up to 0
        return replace(bare, value=None)
    if seeds * units == 1:
        return bare
    error, freedom = _bootstrap_error(arms, seed, resamples), _freedom(arms)
    if error is None:
        return bare
    low, high = interval(value, error, freedom, within if b is None else of_difference(within))
    return replace(bare, low=low, high=high, error=error, freedom=freedom)


def one_sided(a: Cells, b: Cells) -> int:
    """Cells in which one arm has a value and the other has none: what is left out there is not left out by chance."""
    return int((a.defined_SC ^ b.defined_SC).sum())


def _bootstrap_error(arms: Sequence[Cells], seed: int, resamples: int) -> float | None:
    """Standard deviation over resamples; None if too few of them have any value."""
    seeds, clips = arms[0].numerator_SC.shape
    random = np.random.default_rng(seed)
    seeds_RS, clips_RC = _draws(random, seeds, resamples), _draws(random, clips, resamples)

    def ratios(cells: Cells) -> np.ndarray:
        sums = [((seeds_RS @ table) * clips_RC).sum(axis=1) for table in (cells.numerator_SC, cells.denominator_SC)]
        return np.divide(sums[0], sums[1], out=np.full(resamples, np.nan), where=sums[1] != 0)

    values_R = ratios(arms[0]) - (ratios(arms[1]) if len(arms) > 1 else 0.0)
    values_R = values_R[np.isfinite(values_R)]
    return float(values_R.std(ddof=1)) if len(values_R) > resamples // 2 else None


def _draws(random: np.random.Generator, count: int, resamples: int) -> np.ndarray:
    """How often each of ``count`` is drawn, ``count - 1`` draws each time; the only one is always drawn once."""
    if count == 1:
        return np.ones((resamples, 1))
    return random.multinomial(count - 1, np.full(count, 1 / count), size=resamples).astype(np.float64)


def _influence(cells: Cells) -> np.ndarray:
    """What each cell adds to the pooled ratio, to first order; its mean is 0."""
    residual_SC = cells.numerator_SC - cells.pooled * cells.denominator_SC
    return residual_SC / cells.denominator_SC.mean()


def _freedom(arms: Sequence[Cells]) -> float:
    """Satterthwaite's degrees of freedom of the variance of a mean over seeds crossed with clips."""
    table_SC = _influence(arms[0]) - (_influence(arms[1]) if len(arms) > 1 else 0.0)
    seeds, clips = table_SC.shape
    least, most = max(1, min(n - 1 for n in (seeds, clips) if n > 1)), max(1, (seeds - 1) * (clips - 1))
    if min(seeds, clips) == 1:
        return float(least)
    seeds_S, clips_C = table_SC.mean(axis=1), table_SC.mean(axis=0)
    rest_SC = table_SC - seeds_S[:, None] - clips_C[None]
    rest = float((rest_SC**2).sum()) / most
    parts = [
        (seeds - 1, clips * float((seeds_S**2).sum()) / (seeds - 1)),
        (clips - 1, seeds * float((clips_C**2).sum()) / (clips - 1)),
    ]
    total = sum(square for _, square in parts)
    below = sum(square**2 / freedom for freedom, square in parts) + rest**2 / most
    variance = max(total - rest, 0.0)
    if below <= 0 or variance <= 0:
        return float(least)
    return float(np.clip(variance**2 / below, least, most))


def p_value(found: Estimate, margin: float) -> float | None:
    """Two-sided p of "the true value is ``margin``", of those that can be; below 0.05 exactly where the interval leaves
    ``margin`` out.

    None where all that was measured differs alike: so few that agree have no error, which is not certainty.
    """
    if found.value is None or found.error is None or found.freedom is None:
        return None
    if found.error <= ROUNDING * max(1.0, abs(found.value)):
        return 1.0 if found.value == margin else None
    return float(2 * stats.t.sf(abs(found.value - margin) / found.error, found.freedom))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p adjusted for being one of several (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    The family is all that were asked, also those without a p yet.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[place] = highest
    return adjusted
