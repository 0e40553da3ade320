"""Metrics of talking-head video: pure functions per clip, and one aggregator over clips."""

from __future__ import annotations

from df_eval.metrics.aggregate import ClipRatio, Score
from df_eval.metrics.catalog import CATALOG, SPECS, add_metric
from df_eval.metrics.clip_metric import ClipMetric, metric_class
from df_eval.metrics.frechet import frechet_distance, frechet_of_sets
from df_eval.metrics.pair import Pair
from df_eval.metrics.set_class import set_metric
from df_eval.metrics.sets import SET_SPECS, SETS, SetDistance, SetSpec
from df_eval.metrics.signals import LagCurve, lag_curve, pearson
from df_eval.metrics.spec import GROUPS, MetricSpec
from df_models.intervals.estimate import ratio_of_sums

__all__ = [
    "CATALOG",
    "GROUPS",
    "SETS",
    "SET_SPECS",
    "SPECS",
    "ClipMetric",
    "ClipRatio",
    "LagCurve",
    "MetricSpec",
    "Pair",
    "Score",
    "SetDistance",
    "SetSpec",
    "add_metric",
    "frechet_distance",
    "frechet_of_sets",
    "lag_curve",
    "metric_class",
    "pearson",
    "ratio_of_sums",
    "set_metric",
]
