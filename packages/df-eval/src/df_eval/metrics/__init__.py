"""Metrics of talking-head video: pure functions per clip, and one aggregator over clips."""

from __future__ import annotations

from df_eval.metrics.aggregate import ClipRatio, Score, bootstrap_interval, ratio_of_sums
from df_eval.metrics.catalog import CATALOG, GROUPS, SPECS, MetricSpec, add_metric
from df_eval.metrics.pair import Pair
from df_eval.metrics.signals import LagCurve, lag_curve, pearson

__all__ = [
    "CATALOG",
    "GROUPS",
    "SPECS",
    "ClipRatio",
    "LagCurve",
    "MetricSpec",
    "Pair",
    "Score",
    "add_metric",
    "bootstrap_interval",
    "lag_curve",
    "pearson",
    "ratio_of_sums",
]
