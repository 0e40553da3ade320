"""Pose, blinks and identity over time on constructed signals."""

from __future__ import annotations

import numpy as np
import pytest

from df_eval.metrics import identity, pose


def test_apd_is_the_mean_absolute_difference_over_read_frames() -> None:
    rng = np.random.default_rng(0)
    read, true = rng.normal(size=(30, 3)) * 10, rng.normal(size=(30, 3)) * 10
    mask = rng.random(30) > 0.3
    total = sum(abs(read[t, a] - true[t, a]) for t in range(30) if mask[t] for a in range(3))
    assert pose.average_pose_distance(read, true, mask).value == pytest.approx(total / (3 * mask.sum()))
    read[:5] = np.nan
    assert pose.average_pose_distance(read, true).value == pytest.approx(np.abs(read[5:] - true[5:]).mean())
    assert pose.average_pose_distance(np.full((30, 3), np.nan), true).value is None


def test_pose_statistics_of_a_known_motion() -> None:
    time = np.arange(101) / 25.0
    angles = np.stack([10 * time, np.zeros(101), -20 * time], axis=1)  # 10, 0 and 20 degrees per second over 4 s
    assert pose.pose_speed(angles).value == pytest.approx(10.0)
    assert pose.pose_range(angles).value == pytest.approx((40 + 0 + 80) / 3)
    assert pose.pose_spread(angles).value == pytest.approx(angles.std(axis=0).mean())


def test_pose_speed_does_not_jump_over_frames_that_were_not_read() -> None:
    angles = np.zeros((20, 3))
    angles[10:] = 90.0
    mask = np.ones(20, bool)
    mask[9:11] = False  # the jump happens in the hole
    assert pose.pose_speed(angles, mask).value == 0.0
    assert pose.pose_speed(angles).value == pytest.approx(90 * 25 / 19)
    assert pose.pose_speed(angles, np.arange(20) % 2 == 0).value is None


def test_blinks_are_counted_with_hysteresis_and_across_holes() -> None:
    closure = np.zeros(100)
    closure[10:13] = [0.6, 1.0, 0.6]
    closure[40:45] = [0.6, 0.45, 0.6, 0.45, 0.6]  # trembling above the re-opening level: one blink
    closure[70] = 0.49  # not closed enough
    assert pose.count_blinks(closure) == 2
    closure[11] = np.nan
    assert pose.count_blinks(closure) == 2
    assert pose.count_blinks(np.ones(10)) == 0  # it never closes
    assert pose.count_blinks(np.array([1.0, 1.0, 0.0, 1.0, 0.0])) == 1
    assert pose.count_blinks(np.full(10, np.nan)) == 0
    assert pose.count_blinks(np.zeros(10)) == 0


def test_blink_rate_is_blinks_over_the_minutes_that_were_read() -> None:
    closure = np.zeros(150)
    closure[[20, 60, 100]] = 1.0
    assert pose.blink_rate(closure).value == pytest.approx(3 / (6 / 60))
    half = np.arange(150) < 75
    assert pose.blink_rate(closure, half).value == pytest.approx(2 / (3 / 60))
    assert pose.blink_rate(closure, np.zeros(150, bool)).value is None


def test_identity_distance_is_the_rms_difference_and_quarters_follow_it() -> None:
    reference = np.array([1.0, 2.0, 3.0])
    steps = np.repeat([0.5, 1.0, 1.5, 2.0], 8)
    vectors = reference + steps[:, None] * np.array([1.0, -1.0, 1.0])
    distance = identity.identity_distance(vectors, reference)
    assert distance == pytest.approx(steps)
    assert identity.quarter_means(distance) == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert identity.last_over_first(distance).value == pytest.approx(4.0)
    assert identity.mean_over_time(distance).value == pytest.approx(1.25)


def test_identity_drift_leaves_out_misses_and_is_undefined_without_an_end() -> None:
    values = np.r_[np.full(8, 1.0), np.full(16, 2.0), np.full(8, 3.0)]
    values[25] = np.nan
    mask = np.ones(32, bool)
    mask[:7] = False
    assert identity.last_over_first(values, mask).value == pytest.approx(3.0)
    mask[24:] = False
    assert identity.last_over_first(values, mask).value is None
    assert identity.last_over_first(np.zeros(32)).value is None
