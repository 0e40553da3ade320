"""Every sampler draws from the distribution that it states, in every mode and at the ends of every range."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy import stats

from df_models.flow import HistoryConfig, HistoryMode, keyed_noise, sample_sigmas, shift_sigma, unshift_sigma

FRAMES, CLIPS = 5, 500
LEAST_P = 1e-3
"""Draws are keyed, so a test passes always or never; 1 in 1000 right samplers would have to change its seed."""
ENDS = {
    "video_shift": (0.2, 1.0, 3.0, 12.0),
    "structure_max": (1e-3, 0.7, 0.999, 1.0),
    "structure_tail": (0.0, 0.1, 0.3, 1.0),
    "clean_past_probability": (0.0, 0.3, 1.0),
    "context_noise_max": (0.0, 0.1, 1.0),
    "error_probability": (0.0, 0.9, 1.0),
}
ONE_CHANGED = [{name: value} for name, values in ENDS.items() for value in values]
TOGETHER = [{"structure_max": 1.0, "structure_tail": 0.3}, {"structure_max": 0.5, "structure_tail": 0.3}]


def _draw(config: HistoryConfig):
    return sample_sigmas(config, FRAMES, list(range(CLIPS)), seed=3, step=11)


def _video_cdf(config):
    return lambda x: unshift_sigma(np.asarray(x), config.video_shift)


def _structure_cdf(config):
    """Return the mixture's: U(0, max), and above it a share ``tail`` of U(max, 1)."""
    top = config.structure_max
    tail = config.structure_tail if top < 1 else 0.0

    def cdf(x):
        below = np.clip(x / top, 0, 1)
        above = np.clip((x - top) / (1 - top), 0, 1) if top < 1 else 0.0
        return (1 - tail) * below + tail * above

    return cdf


def _follows(values, cdf):
    assert stats.kstest(np.asarray(values, dtype=np.float64), cdf).pvalue > LEAST_P


def _share(found, wanted, trials):
    """A count follows the binomial distribution; at 0 and 1 exactly."""
    if wanted in (0, 1):
        assert found == wanted * trials
    else:
        assert stats.binomtest(int(found), trials, wanted).pvalue > LEAST_P


@pytest.mark.parametrize("changes", [*ONE_CHANGED, *TOGETHER], ids=str)
@pytest.mark.parametrize("mode", get_args(HistoryMode))
def test_levels_follow_their_stated_distributions(mode, changes):
    config = replace(HistoryConfig(mode=mode), **changes)
    drawn = _draw(config)
    if mode == "one_level":
        assert all((levels == levels[:, :1]).all() for levels in (drawn.video, drawn.structure))
        drawn = drawn._replace(**{name: getattr(drawn, name)[:, :1] for name in ("video", "structure", "given_clean")})
    noised = ~drawn.given_clean.numpy()
    assert noised.any()
    _follows(drawn.video.numpy()[noised], _video_cdf(config))
    _follows(drawn.structure.numpy()[noised], _structure_cdf(config))
    for levels in (drawn.video.numpy(), drawn.structure.numpy()):
        assert not levels[~noised].any()
        _, counts = np.unique(levels[noised], return_counts=True)
        assert counts.max() <= 3 * max(1, noised.sum() / 2**20), "levels have no mass at a point"
        assert levels.min() >= 0 and levels.max() <= 1


@pytest.mark.parametrize("share", ENDS["clean_past_probability"])
def test_the_stated_share_of_clips_has_a_clean_past_of_every_length(share):
    clean = _draw(HistoryConfig(clean_past_probability=share)).given_clean.sum(dim=1).numpy()
    _share((clean > 0).sum(), share, CLIPS)
    if share:
        lengths = np.bincount(clean[clean > 0], minlength=FRAMES)[1:]
        assert len(lengths) == FRAMES - 1 and stats.chisquare(lengths).pvalue > LEAST_P


@pytest.mark.parametrize("limit", ENDS["context_noise_max"])
@pytest.mark.parametrize("mode", get_args(HistoryMode))
def test_the_history_copy_has_one_level_per_clip(mode, limit):
    drawn = _draw(HistoryConfig(mode=mode, context_noise_max=limit))
    if mode not in ("teacher_forcing", "error_recycling"):
        assert drawn.history_video is None and drawn.history_structure is None
        return
    levels = drawn.history_video.numpy()
    assert (levels == levels[:, :1]).all() and np.array_equal(levels, drawn.history_structure.numpy())
    if limit:
        _follows(levels[:, 0], stats.uniform(0, limit).cdf)
    else:
        assert not levels.any()


@pytest.mark.parametrize("share", ENDS["error_probability"])
@pytest.mark.parametrize("mode", get_args(HistoryMode))
def test_the_stated_share_of_clips_carries_errors(mode, share):
    carries = _draw(HistoryConfig(mode=mode, error_probability=share)).carries_errors
    _share(carries.sum(), share if mode == "error_recycling" else 0, CLIPS)


def test_streams_frames_and_clips_are_drawn_independently():
    drawn = _draw(HistoryConfig(mode="independent"))
    rows = np.stack([drawn.video.numpy(), drawn.structure.numpy()], axis=1).reshape(CLIPS, -1)
    assert np.abs(np.corrcoef(rows.T) - np.eye(2 * FRAMES)).max() < 4 / CLIPS**0.5
    assert np.abs(np.corrcoef(rows[:-1, 0], rows[1:, 0])[0, 1]) < 4 / CLIPS**0.5


def test_noise_is_standard_normal():
    noise = keyed_noise((40,), seed=0, step=1, sample_ids=range(500), stream="video").numpy()
    _follows(noise.ravel(), stats.norm.cdf)


def test_the_shift_is_its_own_distribution():
    u = np.random.default_rng(0).random(20_000)
    for shift in ENDS["video_shift"]:
        _follows(shift_sigma(u, shift), lambda x, shift=shift: unshift_sigma(x, shift))
