"""From clips to one number with an interval (`df_models.intervals.estimate`), safe under distributed padding."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from df_eval.metrics.pair import Pair
from df_models.intervals.estimate import RESAMPLES, Cells, estimate, ratio_of_sums
from df_models.intervals.ranges import ANY, Range


@dataclass(frozen=True)
class Score:
    """One cell of the table.

    Attributes:
        value: pooled over the clips, None if undefined on all of them (or unavailable: see ``reason``).
        low, high: 95 % interval over people, or over the clips of one person; None with one clip.
        n: clips that entered; ``undefined``: clips on which the metric does not exist, left out.
        people: that the clips are of; 0 if that is not known.
        reason: why there is no value, or a remark on it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    undefined: int = 0
    reason: str = ""
    people: int = 0

    @staticmethod
    def unavailable(reason: str) -> Score:
        """A metric that cannot be measured in this row; nothing is put in its place."""
        return Score(None, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: no NaN, no infinity."""
        return asdict(self)


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


def whole_ids(sample_ids: Sequence[int] | Tensor) -> list[int]:
    """The ids as Python's whole numbers.

    Raises:
        ValueError: one is none, such as a clip's name.
    """
    ids = sample_ids.tolist() if isinstance(sample_ids, Tensor) else list(sample_ids)
    try:
        return [operator.index(each) for each in ids]
    except TypeError:
        raise ValueError(f"clip ids are whole numbers, and these are {ids!r}; number the clips") from None


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
    within: ClassVar[Range] = ANY

    numerators: list[Tensor]
    denominators: list[Tensor]
    sample_ids: list[Tensor]

    def update(self, pairs: Sequence[Pair], sample_ids: Sequence[int] | Tensor) -> None:
        """Add clips. ``sample_ids`` are integers that tell clips apart (equal id: the same clip again).

        Raises:
            ValueError: another number of ids than of clips, or one that is no whole number.
        """
        ids = torch.tensor(whole_ids(sample_ids), dtype=torch.int64)
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
        self,
        seed: int = 0,
        resamples: int = RESAMPLES,
        reason: str = "",
        people: Sequence[str] | None = None,
        within: Range | None = None,
    ) -> Score:
        """Value, interval and counts over the clips of this process.

        Args:
            within: the values that the metric can have; by default the class's own.
            people: of the clips, by sample id; what the interval resamples.
        """
        numerators, denominators, ids = self._unique()
        own = None if people is None else [str(people[int(index)]) for index in ids]
        cells, within = Cells(numerators[None], denominators[None]), self.within if within is None else within
        found = estimate(cells, within=within, people=own, seed=seed, resamples=resamples)
        if found.value is None:
            return Score(None, undefined=found.undefined, reason=reason or "undefined on every clip")
        return Score(found.value, found.low, found.high, found.clips, found.undefined, reason, found.people)


def pooled_score(
    pairs: Mapping[int, Pair],
    people: Sequence[str] | None,
    seed: int,
    resamples: int,
    reason: str = "",
    *,
    within: Range,
) -> Score:
    """The cell of some clips' pairs, by the clips' ids; ``people`` and ``within`` as in :meth:`ClipRatio.score`."""
    pooled = ClipRatio()
    pooled.update(list(pairs.values()), list(pairs))
    return pooled.score(seed, resamples, reason, people, within)
