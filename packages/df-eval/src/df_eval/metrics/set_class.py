"""The list's second kind as torchmetrics classes, each with its direction."""

from __future__ import annotations

from df_eval.metrics.sets import SET_SPECS, SetDistance


class SetScore(SetDistance):
    """One of the list's second kind of which more is better."""

    higher_is_better = True


def set_metric(name: str) -> SetDistance:
    """A metric of `df_eval.metrics.SETS`.

    >>> set_metric("theval_part").higher_is_better, set_metric("fid").higher_is_better
    (True, False)
    """
    return (SetScore if SET_SPECS[name].better == "higher" else SetDistance)(name)
