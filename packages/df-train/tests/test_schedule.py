from __future__ import annotations

import pytest

from df_train.schedule import decayed_weight, ema_decay, learning_rate

RATE = {"peak": 1e-3, "warmup": 10, "total": 110, "floor": 0.1}


def test_learning_rate_rises_linearly_then_follows_a_half_cosine_to_the_floor():
    assert learning_rate(0, **RATE) == pytest.approx(1e-4)
    assert learning_rate(9, **RATE) == pytest.approx(1e-3)
    assert learning_rate(10, **RATE) == pytest.approx(1e-3)
    assert learning_rate(60, **RATE) == pytest.approx(1e-3 * (0.1 + 0.9 * 0.5))
    assert learning_rate(110, **RATE) == pytest.approx(1e-4)
    assert learning_rate(500, **RATE) == pytest.approx(1e-4)


def test_learning_rate_without_warm_up_starts_at_the_peak():
    assert learning_rate(0, peak=1.0, warmup=0, total=10, floor=0.0) == 1.0


def test_average_follows_fast_at_first_and_never_faster_than_configured():
    assert ema_decay(0, decay=0.99) == pytest.approx(0.1)
    decays = [ema_decay(step, decay=0.99) for step in range(3000)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_decayed_weight_runs_from_start_to_end():
    weight = {"start": 0.1, "end": 0.02, "over": 100}
    assert decayed_weight(0, **weight) == pytest.approx(0.1)
    assert decayed_weight(50, **weight) == pytest.approx(0.06)
    assert decayed_weight(100, **weight) == pytest.approx(0.02)
    assert decayed_weight(9999, **weight) == pytest.approx(0.02)
    assert decayed_weight(0, start=0.1, end=0.02, over=0) == 0.02
