"""Shifted audio, noise of known level and speech of known share, found as ``docs/results/stages.md`` says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stages import audio
from benchmarks.stages.fit_sync import random_effects
from benchmarks.stages.report import document
from benchmarks.stages.tables import Tally, rate, wilson
from df_data.stages.voice import SileroVAD, VoiceFilter, find_voice

CLIPS = 8


def test_intervals_are_wilsons() -> None:
    """Against the worked example of Newcombe 1998: 81 of 263, and the ends."""
    assert np.allclose(wilson(81, 263), (0.2553, 0.3662), atol=1e-4)
    assert wilson(0, 20)[0] == 0 and wilson(20, 20)[1] == pytest.approx(1) and rate(0, 0) == "-"
    assert rate(1, 20) == "5.0 % (0.9-23.6)"


@pytest.mark.parametrize("kind", audio.KINDS)
def test_noise_is_measured_and_judged(kind: str, vad: SileroVAD) -> None:
    """Babble is speech itself: its level is told too low, and only the rule above 10 dB holds."""
    rng = np.random.default_rng(1)
    for level in (0, 5, 15, 20):
        errors, low = [], []
        for speech in audio.voices(CLIPS):
            spoken = audio.spoken_samples(speech.wave, vad)
            noisy = audio.with_noise(speech.wave, audio.noise(kind, len(speech.wave), rng), level, spoken)
            found = audio.measured_snr(noisy, vad)
            errors.append(found - level)
            low.append(found < 10)
        if kind != "babble":
            assert np.quantile(np.abs(errors), 0.9) < 3.5, (level, errors)
            assert all(low) if level < 10 else not any(low), (level, low)
        elif level > 10:
            assert np.mean(low) < 0.2


def test_noise_has_the_level_it_is_said_to_have(vad: SileroVAD) -> None:
    wave = audio.voices(1)[0].wave
    spoken = audio.spoken_samples(wave, vad)
    added = np.random.default_rng(0).normal(0, 3.0, len(wave))
    noisy = audio.with_noise(wave, added, 12.0, spoken).astype(np.float64)
    gain = np.dot(noisy, added) / np.dot(added, added)
    clean = noisy - gain * added
    ratio = np.square(clean[spoken]).mean() / np.square(gain * added).mean()
    assert 10 * np.log10(ratio) == pytest.approx(12.0, abs=0.3)


def test_the_share_of_speech_is_that_of_the_phones(vad: SileroVAD) -> None:
    for speech in audio.voices(CLIPS):
        true = audio.spoken_share(speech)
        assert find_voice(speech.wave, vad, VoiceFilter()).scores["speech_share"] == pytest.approx(true, abs=0.12)
        assert find_voice(audio.with_silence(speech.wave, 0.0), vad, VoiceFilter()).scores["speech_share"] == 0


def test_precision_and_recall_are_counted_as_they_are_named() -> None:
    tally = Tally.of([(True, True)] * 6 + [(True, False)] * 2 + [(False, True)] * 4 + [(False, False)] * 8)
    assert (tally.hits, tally.false_alarms, tally.misses, tally.rests) == (6, 2, 4, 8)
    assert (tally.precision, tally.recall) == (0.75, 0.6)
    assert tally.cells() == ["10", "10", "0.750", "0.600"]


def test_the_report_holds_its_sections_in_order() -> None:
    text = document({"b": {"title": "Second", "text": "two"}, "a": {"title": "First", "text": "one"}}, 3, real=False)
    assert text.index("## Second\n\ntwo") < text.index("## First\n\none") and "3 people" in text and "none in" in text


def test_people_count_by_what_is_known_of_them() -> None:
    """Values that differ by their errors alone have no spread; well-known ones count more than the others."""
    mean, spread = random_effects(np.array([0.4, 0.5, 0.6]), np.array([0.01, 0.01, 0.01]))
    assert mean == pytest.approx(0.5) and spread == 0
    mean, spread = random_effects(np.array([0.2, 0.8, 0.8]), np.array([1e-6, 0.2, 0.2]))
    assert mean < 0.4
    drawn = np.random.default_rng(0).normal(0.5, 0.2, 4000)
    assert random_effects(drawn, np.full(4000, 1e-4)) == pytest.approx((0.5, 0.2), abs=0.01)
