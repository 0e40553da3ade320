"""From clips to one number with an interval: sums over clips, bootstrap over people, safe under distributed padding.

Shape suffixes: N clips, U units that are resampled, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from df_eval.metrics.pair import Pair

RESAMPLES = 2000
"""Bootstrap resamples of every interval."""


@dataclass(frozen=True)
class Score:
    """One cell of the table.

    Attributes:
        value: pooled over the clips, None if undefined on all of them (or unavailable: see ``reason``).
        low, high: bootstrap 95 % interval (percentiles), None with fewer than 2 units.
        n: clips that entered; ``undefined``: clips on which the metric does not exist, left out.
        units: people, or clips, that the interval resamples (:func:`units_of`).
        reason: why there is no value, or a remark on it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    undefined: int = 0
    reason: str = ""
    units: int = 0

    @staticmethod
    def unavailable(reason: str) -> Score:
        """A metric that cannot be measured in this row; nothing is put in its place."""
        return Score(None, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: no NaN, no infinity."""
        return asdict(self)


def units_of(people: Sequence[str]) -> np.ndarray:
    """What intervals resample, a number for each clip: its person, or the clip itself where all are of one person.

    Clips of one person are alike, so an interval over clips would be too narrow for a claim about people (the cluster
    bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Of one person's clips
    it speaks of that person's other sentences, and of nobody else.
    """
    names, units_N = np.unique(np.asarray(people, dtype=str), return_inverse=True)
    return units_N if len(names) > 1 else np.arange(len(people))


def summed_by(units_N: np.ndarray, values_N: np.ndarray) -> np.ndarray:
    """The values' sums over each unit that occurs, ``[U]``."""
    _, place_N = np.unique(units_N, return_inverse=True)
    return np.bincount(place_N, weights=values_N)


def ratio_of_sums(numerator_N: np.ndarray, denominator_N: np.ndarray) -> float:
    """Sum over sum; NaN without a denominator."""
    total = float(np.sum(denominator_N))
    return float(np.sum(numerator_N)) / total if total != 0 else float("nan")


def bootstrap_interval(
    numerator_U: np.ndarray, denominator_U: np.ndarray, seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of `ratio_of_sums`, resampling units with replacement (Efron 1979).

    Returns:
        (low, high), or None with fewer than 2 units, for which resampling says nothing.
    """
    count = len(numerator_U)
    if count < 2:
        return None
    picks_RU = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    denominators = denominator_U[picks_RU].sum(axis=1)
    kept = denominators != 0
    ratios = numerator_U[picks_RU].sum(axis=1)[kept] / denominators[kept]
    if not len(ratios):
        return None
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return float(low), float(high)


class ClipStates(Metric):
    """A metric whose states are lists of clips' values, gathered with ``cat``: an empty rank counts as nothing.

    Attributes:
        kinds: the states' names and dtypes, each a list of 1-D tensors. torchmetrics gathers an empty list as float32,
            whatever the other ranks hold, so it is given an empty tensor of the right kind before.
    """

    kinds: ClassVar[dict[str, torch.dtype]] = {}
    is_differentiable = False
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in self.kinds:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all ranks."""
        for name, dtype in self.kinds.items():
            if isinstance(state := getattr(self, name), list) and not state:
                setattr(self, name, [torch.zeros(0, dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)

    def gathered(self, name: str) -> np.ndarray:
        """A state's values, of all updates and, in `compute`, of all ranks."""
        state = getattr(self, name)
        if isinstance(state, Tensor):
            return state.cpu().numpy()
        return torch.cat(list(state)).cpu().numpy() if len(state) else np.zeros(0)


class ClipRatio(ClipStates):
    """Pools per-clip pairs as sum of numerators over sum of denominators, each clip once.

    Distributed samplers pad the last batch with repeated clips, and ranks may hold different numbers of clips: the
    states are lists gathered with ``cat`` together with the clips' ids, so repeated clips count once and an empty rank
    counts as nothing. `compute` gives the pooled value; `score` adds the bootstrap interval and the counts.

    >>> metric = ClipRatio()
    >>> metric.update([Pair(1.0), Pair(0.0)], [7, 8])
    >>> float(metric.compute())
    0.5
    """

    kinds: ClassVar[dict[str, torch.dtype]] = {
        "numerators": torch.float64,
        "denominators": torch.float64,
        "sample_ids": torch.int64,
    }
    higher_is_better = None

    numerators: list[Tensor]
    denominators: list[Tensor]
    sample_ids: list[Tensor]

    def update(self, pairs: Sequence[Pair], sample_ids: Sequence[int] | Tensor) -> None:
        """Add clips. ``sample_ids`` are integers that tell clips apart (equal id: the same clip again)."""
        ids = torch.as_tensor(sample_ids, dtype=torch.int64)
        if len(ids) != len(pairs):
            raise ValueError(f"{len(pairs)} values but {len(ids)} sample ids")
        defined = [pair if pair.defined else Pair(0.0, 0.0) for pair in pairs]
        self.numerators.append(torch.tensor([pair.numerator for pair in defined], dtype=torch.float64))
        self.denominators.append(torch.tensor([pair.denominator for pair in defined], dtype=torch.float64))
        self.sample_ids.append(ids)

    def _unique(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        numerators, denominators = self.gathered("numerators"), self.gathered("denominators")
        ids, first = np.unique(self.gathered("sample_ids"), return_index=True)
        return numerators[first], denominators[first], ids.astype(np.int64)

    def compute(self) -> Tensor:
        """The pooled value; NaN if the metric is undefined on every clip."""
        return torch.tensor(ratio_of_sums(*self._unique()[:2]), dtype=torch.float64)

    def score(
        self, seed: int = 0, resamples: int = RESAMPLES, reason: str = "", units_N: np.ndarray | None = None
    ) -> Score:
        """Value, interval and counts over the clips of this process.

        Args:
            units_N: what the interval resamples, by sample id (:func:`units_of`); by default each clip is its own.
        """
        numerators, denominators, ids = self._unique()
        kept = denominators != 0
        undefined = int((~kept).sum())
        if not kept.any():
            return Score(None, n=0, undefined=undefined, reason=reason or "undefined on every clip")
        units = ids[kept] if units_N is None else units_N[ids[kept]]
        by_unit = [summed_by(units, values[kept]) for values in (numerators, denominators)]
        interval = bootstrap_interval(by_unit[0], by_unit[1], seed, resamples)
        low, high = interval if interval is not None else (None, None)
        value = ratio_of_sums(numerators[kept], denominators[kept])
        return Score(value, low, high, int(kept.sum()), undefined, reason, len(by_unit[0]))


def pooled_score(
    pairs: Mapping[int, Pair], units_N: np.ndarray | None, seed: int, resamples: int, reason: str = ""
) -> Score:
    """The cell of some clips' pairs, by the clips' ids; ``units_N`` as in :meth:`ClipRatio.score`."""
    pooled = ClipRatio()
    pooled.update(list(pairs.values()), list(pairs))
    return pooled.score(seed, resamples, reason, units_N)
