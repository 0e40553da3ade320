"""Curves of a run's log."""

from __future__ import annotations

import pytest

from df_infer.run_log import smoothed


def test_a_smoothed_curve_neither_lags_nor_is_pulled_by_its_ends():
    assert smoothed([]) == [] and smoothed([1.0]) == [1.0]
    assert smoothed([2.0] * 50) == pytest.approx([2.0] * 50)
    line = [float(step) for step in range(60)]
    assert smoothed(line)[3:-3] == pytest.approx(line[3:-3])
    assert smoothed([0.0, 4.0, 2.0])[1] == 2.0
