"""Curves of a run's log."""

from __future__ import annotations

from pathlib import Path

import pytest

from df_infer.run_log import read_log, smoothed


def test_lines_that_a_crash_damaged_are_passed_over(tmp_path: Path):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"step": 1}\n{"step": 2, "lo{"step": 3}\n[4]\n\xff\n{"step": 5}\n{"step": 6')
    assert [line["step"] for line in read_log(log)] == [1, 5]
    assert read_log(tmp_path / "none") == []


def test_a_smoothed_curve_neither_lags_nor_is_pulled_by_its_ends():
    assert smoothed([]) == [] and smoothed([1.0]) == [1.0]
    assert smoothed([2.0] * 50) == pytest.approx([2.0] * 50)
    line = [float(step) for step in range(60)]
    assert smoothed(line)[3:-3] == pytest.approx(line[3:-3])
    assert smoothed([0.0, 4.0, 2.0])[1] == 2.0
