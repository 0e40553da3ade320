"""Draws of noise and noise levels: their statistics, their keys, and the four ways with history."""

from __future__ import annotations

import pytest
import torch

from df_models import UserError
from df_models.flow import ErrorBank, HistoryConfig, keyed_generator, keyed_noise, sample_sigmas

CLIPS, FRAMES = 4000, 9


def _draw(clips=CLIPS, frames=FRAMES, seed=0, step=5, **options):
    return sample_sigmas(HistoryConfig(**options), frames, list(range(clips)), seed=seed, step=step)


def test_independent_levels_are_uniform_and_unrelated():
    sigmas = _draw(mode="independent", structure_tail=0.0)
    assert sigmas.video.shape == sigmas.structure.shape == (CLIPS, FRAMES)
    assert sigmas.video.dtype == torch.float32
    assert not sigmas.given_clean.any() and sigmas.history_video is None
    assert sigmas.video.mean() == pytest.approx(0.5, abs=0.01)
    assert sigmas.video.std() == pytest.approx(12**-0.5, abs=0.01)
    assert sigmas.structure.max() <= 0.7
    assert sigmas.structure.mean() == pytest.approx(0.35, abs=0.01)
    columns = torch.cat([sigmas.video, sigmas.structure], dim=1).T
    related = torch.corrcoef(columns) - torch.eye(2 * FRAMES)
    assert related.abs().max() < 0.08


def test_a_share_of_structure_levels_reaches_up_to_noise():
    structure = _draw(mode="independent", structure_tail=0.1).structure
    high = structure > 0.7
    assert high.float().mean() == pytest.approx(0.1, abs=0.01)
    assert structure[high].mean() == pytest.approx(0.85, abs=0.01)
    assert structure.max() > 0.99


def test_shifted_levels_have_the_shifted_median():
    video = _draw(mode="independent", video_shift=3.0).video
    assert video.median() == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.01)


def test_the_default_mixes_independent_levels_with_a_clean_past():
    sigmas = _draw()
    clean = sigmas.given_clean
    mixed = clean.any(dim=1)
    assert mixed.float().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(sigmas.video == 0, clean) and torch.equal(sigmas.structure == 0, clean)
    lengths = clean.sum(dim=1)[mixed]
    assert lengths.min() == 1 and lengths.max() == FRAMES - 1
    assert torch.bincount(lengths, minlength=FRAMES)[1:].float().std() < 40
    ordered = clean.int().diff(dim=1)
    assert (ordered <= 0).all()


def test_separate_histories_are_lightly_noised_per_clip():
    for mode, carries in (("teacher_forcing", 0.0), ("error_recycling", 0.9)):
        sigmas = _draw(mode=mode, context_noise_max=0.2)
        assert not sigmas.given_clean.any()
        assert sigmas.history_video is not None and sigmas.history_structure is not None
        assert sigmas.history_video.shape == (CLIPS, FRAMES)
        assert (sigmas.history_video == sigmas.history_video[:, :1]).all()
        assert sigmas.history_video.max() <= 0.2 and sigmas.history_video.mean() == pytest.approx(0.1, abs=0.01)
        assert sigmas.carries_errors.float().mean() == pytest.approx(carries, abs=0.03)


def test_draws_depend_on_their_keys_alone():
    whole = sample_sigmas(HistoryConfig(), FRAMES, [7, 8, 9], seed=1, step=2)
    part = sample_sigmas(HistoryConfig(), FRAMES, torch.tensor([9]), seed=1, step=2)
    assert torch.equal(whole.video[2:], part.video) and torch.equal(whole.structure[2:], part.structure)
    for seed, step in ((2, 2), (1, 3)):
        other = sample_sigmas(HistoryConfig(), FRAMES, [9], seed=seed, step=step)
        assert not torch.equal(other.video, part.video)


def test_modes_differ_in_nothing_but_their_mode():
    assert torch.equal(_draw(mode="independent").video, _draw(mode="teacher_forcing").video)


def test_keyed_noise_is_normal_and_independent_of_the_batch():
    noise = keyed_noise((4, 16, 8, 8), seed=0, step=1, sample_ids=range(8), stream="video")
    assert noise.shape == (8, 4, 16, 8, 8)
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    alone = keyed_noise((4, 16, 8, 8), seed=0, step=1, sample_ids=torch.tensor([5]), stream="video")
    assert torch.equal(noise[5], alone[0])
    other = keyed_noise((4, 16, 8, 8), seed=0, step=1, sample_ids=[5], stream="structure")
    assert not torch.equal(other, alone)
    before = torch.get_rng_state()
    keyed_noise((4,), seed=0, step=1, sample_ids=[5], stream="video")
    assert torch.equal(before, torch.get_rng_state())


def test_generators_differ_by_every_key():
    keys = [(0, 0, 0, "a"), (1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b"), (0, 0, -(2**62), "a")]
    draws = {float(torch.rand(1, generator=keyed_generator(*key), dtype=torch.float64)) for key in keys}
    assert len(draws) == len(keys)


def test_the_error_bank_gives_back_recorded_errors_and_resumes():
    bank = ErrorBank((2,), capacity=4)
    clean = torch.zeros(2, 3, 2)
    carries, keys = torch.tensor([True, False]), {"sample_ids": [1, 2], "seed": 0, "step": 0, "stream": "video"}
    assert torch.equal(bank.corrupt(clean, carries, **keys), clean)
    errors = torch.arange(12.0).view(2, 3, 2) + 1
    bank.add(clean + errors, clean)
    assert len(bank) == 4
    kept = errors.flatten(0, 1)[-4:]
    found = bank.corrupt(clean, carries, **keys)
    assert torch.equal(found[1], clean[1])
    assert all(any(torch.equal(row, error) for error in kept) for row in found[0])
    again = ErrorBank((2,), capacity=4)
    again.load_state_dict(bank.state_dict())
    assert torch.equal(again.corrupt(clean, carries, **keys), found)
    bank.add(clean[:, :1] - 5, clean[:, :1])
    again.add(clean[:, :1] - 5, clean[:, :1])
    assert torch.equal(bank.errors, again.errors) and (bank.errors == -5).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "teacher_forcng"}, "did you mean 'teacher_forcing'"),
        ({"clean_past_probability": 1.2}, "clean_past_probability must lie"),
        ({"structure_max": 0.0}, "structure_max must lie"),
        ({"video_shift": 0.0}, "must be positive"),
    ],
)
def test_impossible_settings_are_told(options, message):
    with pytest.raises(UserError, match=message):
        HistoryConfig(**options)
