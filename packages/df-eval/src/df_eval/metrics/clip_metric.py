"""Every metric of the list as a torchmetrics class."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from df_eval.metrics.aggregate import ClipRatio
from df_eval.metrics.catalog import SPECS
from df_eval.metrics.pair import Pair
from df_eval.metrics.seen import Seen
from df_eval.metrics.sets import SET_SPECS
from df_eval.metrics.spec import MetricSpec
from df_models.errors import nearest

BETTER = {"higher": True, "lower": False, "truth": None}


class ClipMetric(ClipRatio):
    """One of the list's metrics, measured on the clips it is given; see :func:`metric_class`."""

    spec: MetricSpec

    def update(self, seen: Sequence[Seen], sample_ids: Sequence[int] | Tensor) -> None:
        """Add clips (:class:`~df_eval.metrics.seen.Seen`), with ids that tell them apart."""
        super().update([self._measured(clip) for clip in seen], sample_ids)

    def _measured(self, seen: Seen) -> Pair:
        missing = [need for need in self.spec.needs if getattr(seen, need) is None]
        return Pair.undefined(f"{missing[0]} is not there") if missing else self.spec.measure(seen)


def metric_class(name: str) -> type[ClipMetric]:
    """The torchmetrics class of a metric of the list, with its direction.

    >>> metric_class("csim").higher_is_better
    True

    Raises:
        ValueError: there is no such metric of a clip.
    """
    if name in SET_SPECS:
        raise ValueError(f"{name} compares sets of clips; take SetDistance({name!r})")
    if name not in SPECS:
        raise ValueError(f"there is no metric {name!r}{nearest(name, SPECS)}; docs/metrics.md lists them")
    spec = SPECS[name]
    told = {"spec": spec, "higher_is_better": BETTER[spec.better], "within": spec.within}
    return type(f"ClipMetric_{name}", (ClipMetric,), told)
