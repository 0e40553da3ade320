import logging

import numpy as np
import pytest

from df_infer.hearing.loudness import TOLERANCE_DB, levelled
from df_models.errors import UserError
from df_models.media.levels import speech_level

RATE = 16_000
TRAINED_DB = -19.6


def speech(level_db: float, floor_db: float = -100.0) -> np.ndarray:
    """Three seconds of noise with pauses over a steady floor, its loud parts at a level."""
    rng = np.random.default_rng(0)
    spoken = (np.arange(3 * RATE) % RATE < 0.6 * RATE) * rng.normal(size=3 * RATE)
    floor = rng.normal(size=3 * RATE) * 10 ** (floor_db / 20)
    return (spoken * 10 ** (level_db / 20) + floor).astype(np.float32)


@pytest.mark.parametrize("level", [-50.0, -20.0, 3.0])
def test_the_level_is_that_of_the_loud_parts(level: float) -> None:
    found = speech_level(speech(level))
    assert found.level == pytest.approx(level, abs=0.7) and found.plain
    assert speech_level(speech(level)[: 2 * RATE]).level == pytest.approx(level, abs=0.7)


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.zeros(0), 0.01 * np.sin(np.arange(RATE)), 1e-6 * speech(0.0)])
def test_silence_and_hum_are_not_plainly_speech(wave: np.ndarray) -> None:
    assert not speech_level(wave).plain


def test_speech_within_the_tolerance_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    for level in (TRAINED_DB - TOLERANCE_DB + 1, TRAINED_DB, TRAINED_DB + TOLERANCE_DB - 1):
        wave = speech(level)
        assert levelled(wave, TRAINED_DB) is wave
    assert not caplog.records


@pytest.mark.parametrize(("level", "word"), [(-54.0, "louder"), (5.0, "quieter")])
def test_speech_far_away_comes_to_the_target_and_is_told(caplog: pytest.LogCaptureFixture, level, word) -> None:
    with caplog.at_level(logging.WARNING):
        wave = levelled(speech(level), TRAINED_DB)
    assert speech_level(wave).level == pytest.approx(TRAINED_DB, abs=0.01) and wave.dtype == np.float32
    assert word in caplog.text


def test_nothing_changes_for_a_model_that_does_not_know_its_level() -> None:
    wave = speech(-60.0)
    assert levelled(wave, None) is wave


def test_noise_is_not_made_louder(caplog: pytest.LogCaptureFixture) -> None:
    hum = (1e-3 * np.sin(np.arange(RATE))).astype(np.float32)
    with caplog.at_level(logging.WARNING):
        assert levelled(hum, TRAINED_DB) is hum and levelled(np.zeros(RATE, np.float32), TRAINED_DB).max() == 0
    assert caplog.text.count("not plainly speech") == 2


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="no numbers"):
        levelled(np.full(RATE, np.nan, np.float32), TRAINED_DB)
