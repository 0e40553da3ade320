"""Cuts, second faces, covers, blur and exposure of known size, found as ``docs/results/stages.md`` says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.stages import cover, cuts, faces, soft
from benchmarks.stages.talks import Models, Talk
from df_data.stages.quality import QualityFilter
from df_data.stages.shots import shot_cuts


@pytest.mark.parametrize("kind", [kind for kind in cuts.MAKERS if kind != cuts.NEITHER])
def test_cuts_are_found_in_their_place_and_nothing_else(unread: list[Talk], kind: str) -> None:
    for case in cuts.cases(unread, kind):
        errors, false = cuts.judge(case)
        assert errors == [0] * len(case[1]) and not false


def test_an_image_that_stays_away_is_a_cut(unread: list[Talk]) -> None:
    """A blank of four frames is a flash; one of six are two cuts."""
    frames = unread[0].frames
    for length, found in ((4, 0), (6, 2)):
        blank = frames.copy()
        blank[20 : 20 + length] = 255
        assert len(shot_cuts(blank)) == found


@pytest.mark.parametrize("people", ["rendered", pytest.param("real", marks=pytest.mark.slow)])
def test_a_second_face_is_found_by_size_and_share(people: str, models: Models, request: pytest.FixtureRequest) -> None:
    talks: list[Talk] = request.getfixturevalue(people)
    said = faces.verdicts(talks[0], talks[1], models)
    assert all((why == "more_than_one_face") == truth for why, truth in said.values()), said


@pytest.mark.parametrize("people", ["real", pytest.param("rendered", marks=pytest.mark.slow)])
def test_a_cover_is_found_by_its_time(people: str, models: Models, request: pytest.FixtureRequest) -> None:
    """Large covers, part of the time: found if beyond 30 % of the frames; nothing and short ones: never."""
    talk: Talk = request.getfixturevalue(people)[0]
    said = cover.verdicts(talk, models, look=0)
    for (place, area, share), refused in said.items():
        if share < 0.3:
            assert not refused, (place, area, share)
        elif area >= 0.45 and share < 1:
            assert refused, (place, area, share)


@pytest.mark.parametrize("place", cover.PLACES)
def test_covers_are_as_large_as_they_are_said_to_be(place: str) -> None:
    for area in cover.AREAS:
        assert cover.covered_area(cover.patch(place, area)) == pytest.approx(area, abs=0.02)


def test_blur_and_exposure_move_their_scores_one_way(unread: list[Talk]) -> None:
    filters = QualityFilter()
    blur, light = soft.blur_rows(unread, filters), soft.exposure_rows(unread, filters)
    assert soft.monotonous(blur, falling=True) == 1 and soft.monotonous(light, falling=False) == 1
    assert all(all(halved) == wanted for _, _, halved, wanted in blur if wanted is not None)
    assert not any(flag for size, _, halved, _ in light if 0.5 <= size <= 1.5 for flag in halved)


def test_blur_is_the_gaussian_it_is_said_to_be() -> None:
    dot = np.zeros((1, 64, 64, 3), np.uint8)
    dot[0, 32, 32] = 255
    spread = soft.blurred(np.repeat(dot, 1, axis=0), 2.0)[0, :, :, 0].astype(float)
    line = 255 / (2 * np.pi * 4) * np.exp(-0.5 * (np.arange(64) - 32.0) ** 2 / 4)
    assert np.abs(spread[32] - line).max() <= 1.0
    assert all(a >= b for a, b in itertools.pairwise(spread[32, 32:]))


def test_still_lips_and_turned_heads(rendered: list[Talk], models: Models) -> None:
    lips = soft.lip_rows(rendered[:1], models, QualityFilter(), frames=12)
    assert soft.monotonous(lips, falling=False) == 1
    assert lips[-1][2] == [False] and lips[0][1][0] < 0.25 * lips[-1][1][0]
    turned = {yaw: scores[0] for yaw, scores, _, _ in soft.yaw_rows(1, models, QualityFilter(), frames=2) if scores}
    assert {0.0, 15.0, 30.0, 40.0} <= set(turned)
    assert all(abs(read - yaw) < 7 for yaw, read in turned.items() if yaw <= 40), turned
