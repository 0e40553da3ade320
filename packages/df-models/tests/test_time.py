"""The rules of time, at both ends of a clip."""

from __future__ import annotations

import pytest
import torch

from df_models import time
from df_models.errors import UserError


def test_lengths_round_trip_and_others_are_refused():
    for latent in (1, 2, 9, 129):
        assert time.latent_length(time.pixel_length(latent)) == latent
    for wrong in (0, 2, 4, 34):
        with pytest.raises(UserError, match="1 \\+ 4 n"):
            time.latent_length(wrong)


def test_valid_and_covering_lengths_enclose_any_length():
    for count in range(1, 40):
        low, high = time.valid_pixel_length(count), time.covering_pixel_length(count)
        assert low <= count <= high
        assert high - low == (0 if (count - 1) % 4 == 0 else 4)


def test_every_pixel_frame_belongs_to_one_latent_frame():
    covered = [p for k in range(9) for p in time.pixels_of_latent(k)]
    assert covered == list(range(33))
    assert all(p in time.pixels_of_latent(time.latent_of_pixel(p)) for p in range(33))


def test_slots_hold_the_pixel_frames_of_their_latent_frame():
    pixels_PD = torch.arange(33.0)[:, None]
    slots_TSD = time.to_slots(pixels_PD)
    assert slots_TSD.shape == (9, 4, 1)
    assert slots_TSD[0, :, 0].tolist() == [0, 0, 0, 0]
    assert slots_TSD[8, :, 0].tolist() == list(time.pixels_of_latent(8))
    assert torch.equal(time.from_slots(slots_TSD), pixels_PD)


def test_marked_slots_are_exactly_the_repeats():
    mask_TS = time.slot_mask(3)
    assert mask_TS.sum() == time.pixel_length(3)
    assert mask_TS[0].tolist() == [False, False, False, True]


def test_positions_are_the_pixel_index_over_four():
    positions_TS = time.slot_positions(9)
    pixels_TS = time.to_slots(torch.arange(33.0, dtype=torch.float64)[:, None])[..., 0]
    assert torch.equal(positions_TS, pixels_TS / 4)
    assert torch.equal(positions_TS[1:, 3], time.video_positions(9)[1:])
    assert torch.equal(time.slot_positions(2, first=5), time.slot_positions(7)[5:])


def test_audio_pools_two_features_to_a_pixel_frame():
    features_AD = torch.arange(12.0).view(6, 2)
    assert time.pool_audio(features_AD, "mean").tolist() == [[1, 2], [5, 6], [9, 10]]
    assert time.pool_audio(features_AD, "concat").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(UserError, match="two per pixel frame"):
        time.pool_audio(features_AD[:5], "mean")
    with pytest.raises(UserError, match="mean"):
        time.pool_audio(features_AD, "max")  # type: ignore[arg-type]
