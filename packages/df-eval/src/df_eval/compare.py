"""Several systems on the same clips: each one's paired difference from the first.

The statistics are those of studies (`df_models.intervals.estimate`) with one seed: bootstrap over the people (or
clips of one person) that both rows have, value +- t * standard error, and p of the same t. The p values of the main
metrics are adjusted together by Holm's procedure; which metrics are the main ones is fixed before anything is measured.
A difference that is the same in every clip (a detection rate that is 1 everywhere) tests nothing: it has no p and is
not in the family. Other metrics have intervals and no p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from df_eval.metrics import CATALOG, SPECS
from df_eval.metrics.pair import Pair
from df_eval.results import LengthResults
from df_models.intervals.estimate import ROUNDING, Cells, Estimate, estimate, holm, p_value


@dataclass(frozen=True)
class Difference:
    """A metric of one system minus that of the first, over the clips that both have.

    Attributes:
        one_sided: clips that only one of the two has a value of. They are left out, which need not be chance: a mouth
            that stands still has no lag. It stands beside the difference.
        p, p_holm: of "no difference"; None for metrics that are not among the main ones, with fewer than 2 clips, or
            where all clips differ alike.
    """

    frames: int
    metric: str
    row: str
    reference: str
    found: Estimate
    one_sided: int = 0
    p: float | None = None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        told = {"value": self.found.value, "low": self.found.low, "high": self.found.high, "n": self.found.clips,
                "people": self.found.people}  # fmt: skip
        own = {name: value for name, value in asdict(self).items() if name != "found"}
        return own | told


def differences(
    results: Mapping[int, LengthResults], rows: Sequence[str], main: Sequence[str], seed: int, resamples: int
) -> list[Difference]:
    """Every system's differences from ``rows[0]``, at every length, in the order of the metrics.

    Args:
        main: metrics whose p values are adjusted together.
    """
    found = [
        _difference(measured, frames, spec.name, row, rows[0], seed, resamples)
        for frames, measured in results.items()
        for spec in CATALOG
        for row in rows[1:]
    ]
    found = [replace(d, p=_p(d) if d.metric in main else None) for d in found]
    family = [place for place, difference in enumerate(found) if difference.p is not None]
    for place, adjusted in zip(family, holm([found[place].p for place in family]), strict=True):
        found[place] = replace(found[place], p_holm=adjusted)
    return [difference for difference in found if difference.found.value is not None]


def _p(difference: Difference) -> float | None:
    """Of no difference; None where all clips differ alike (or not at all) but for rounding: no error to test with."""
    found = difference.found
    alike = found.value is not None and found.error is not None and found.error <= ROUNDING * max(1.0, abs(found.value))
    return None if alike else p_value(found, 0.0)


def _difference(
    results: LengthResults, frames: int, metric: str, row: str, reference: str, seed: int, resamples: int
) -> Difference:
    pairs = [results.pairs(each, metric) for each in (row, reference)]
    there = [{index for index, pair in each.items() if pair.defined} for each in pairs]
    found = paired(results, row, reference, metric, seed, resamples)
    return Difference(frames, metric, row, reference, found, len(there[0] ^ there[1]))


def paired(results: LengthResults, row: str, reference: str, metric: str, seed: int, resamples: int) -> Estimate:
    """One paired difference; its value is None where no clip has both."""
    ours, theirs = results.pairs(row, metric), results.pairs(reference, metric)
    both = [index for index in ours if index in theirs and ours[index].defined and theirs[index].defined]
    cells = [_cells([pairs[index] for index in both]) for pairs in (ours, theirs)]
    people = [results.people[index] for index in both]
    return estimate(*cells, within=SPECS[metric].within, people=people, seed=seed, resamples=resamples)


def _cells(pairs: Sequence[Pair]) -> Cells:
    table = np.array([[pair.numerator, pair.denominator] for pair in pairs], dtype=np.float64).reshape(-1, 2)
    return Cells(table[None, :, 0], table[None, :, 1])
