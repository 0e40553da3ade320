"""What a study names of df-eval, held against df-eval's own lists. It loads torch with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from df_eval.metrics import SPECS
from df_eval.metrics.seen import ROWS
from df_eval.study.config import StudyConfig
from df_eval.study.plan import Plan
from df_models.errors import UserError, nearest


def check_metrics(config: StudyConfig, plan: Plan) -> None:
    """Refuse, before any run, metrics, rows and lengths that no run will have.

    Raises:
        UserError: naming it.
    """
    check_names(config.metrics, "metrics")
    for hypothesis in config.hypotheses:
        where = f"the hypothesis {hypothesis.name!r}"
        _known(hypothesis.metric, SPECS, where, "metric")
        _known(hypothesis.row, ROWS, where, "row")
        for arm in hypothesis.arms:
            lengths = plan.evaluations[arm].get("frames", [])
            if hypothesis.frames not in lengths:
                raise UserError(
                    f"{where} is about {hypothesis.frames} frames, but {arm} is measured at {lengths}; set frames of "
                    "the hypothesis, or evaluation.set.frames"
                )


def check_names(metrics: Iterable[str], where: str) -> None:
    """Raise UserError for a name that is no metric; ``where``: where it stands."""
    for name in metrics:
        _known(name, SPECS, where, "metric")


def _known(name: str, options: Collection[str], where: str, kind: str) -> None:
    if name not in options:
        raise UserError(f"{where}: there is no {kind} {name!r}{nearest(name, options)}")
