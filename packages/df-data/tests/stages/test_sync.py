"""The offset of audio and lips, on synthetic speech whose articulation is known exactly, with shifted audio."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from df_data.stages.rejection import Rejected
from df_data.stages.sync import SyncFilter, check_offset, mouth_sound_offset, without_slow_part
from df_data.synth.clip import face_tracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.structure import truths
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.time import samples_for

FRAMES = 75
CLIPS = 20
Clip = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """Exact opening of the mouth and audio, 3 s each."""
    found = []
    for seed in range(CLIPS):
        speech = make_speech(seed, "train", make_voice(seed), samples_for(FRAMES))
        mouth = truths(Identity.sample(seed), face_tracks(seed, speech, FRAMES))["mouth_open"]
        found.append((mouth, speech.wave))
    return found


def shifted(wave: np.ndarray, ms: int) -> np.ndarray:
    """Audio that comes ``ms`` later; what it leaves free is silent."""
    by = 16 * abs(ms)
    return np.pad(wave, (by, 0))[: len(wave)] if ms >= 0 else np.pad(wave[by:], (0, by))


@pytest.mark.parametrize("ms", [-200, -150, -80, -40, 0, 40, 80, 150, 200])
def test_the_offset_is_found_within_a_frame(clips: list[Clip], ms: int) -> None:
    found = [mouth_sound_offset(mouth, shifted(wave, ms), 0.1) for mouth, wave in clips]
    errors = [abs(1000 * offset.offset - ms) for offset in found if offset is not None]
    assert len(errors) == CLIPS
    assert np.mean(np.array(errors) <= 40) >= 0.95, errors
    assert np.median(errors) <= 20


def test_precision_and_recall_of_the_rule(clips: list[Clip]) -> None:
    """Beyond 100 ms and sure: refused. 10 shifts: 5 within the tolerance, 5 beyond by 50 ms or more."""
    filters = SyncFilter()
    refused, wrong = 0, 0
    for mouth, wave in clips:
        for ms in (-200, -150, 150, 175, 200, -60, -30, 0, 30, 60):
            offset = mouth_sound_offset(mouth, shifted(wave, ms), filters.max_offset)
            assert offset is not None
            try:
                check_offset(offset.scores(), filters)
            except Rejected:
                refused += abs(ms) > 100
                wrong += abs(ms) < 100
    assert wrong == 0
    assert refused / (5 * CLIPS) >= 0.95


def test_other_peoples_audio_has_no_sure_offset_as_often(clips: list[Clip]) -> None:
    """Audio that has nothing to do with the lips correlates less than their own."""
    own = [mouth_sound_offset(mouth, wave, 0.1) for mouth, wave in clips]
    other = [mouth_sound_offset(mouth, wave, 0.1) for (mouth, _), (_, wave) in itertools.pairwise(clips)]
    peaks = [np.array([offset.peak for offset in found if offset is not None]) for found in (own, other)]
    assert np.quantile(peaks[0], 0.1) > np.quantile(peaks[1], 0.9)


def test_a_doubtful_offset_is_told_not_refused() -> None:
    filters = SyncFilter(max_offset=0.1, min_margin=0.1)
    assert not check_offset({"mouth_sound_offset": -0.1, "mouth_sound_margin": 0.0}, filters)
    assert check_offset({"mouth_sound_offset": 0.14, "mouth_sound_margin": 0.09}, filters)
    with pytest.raises(Rejected, match="sound_offset: the audio is 140 ms late"):
        check_offset({"mouth_sound_offset": 0.14, "mouth_sound_margin": 0.11}, filters)
    with pytest.raises(Rejected, match="140 ms early"):
        check_offset({"mouth_sound_offset": -0.14, "mouth_sound_margin": 0.11}, filters)


def test_nothing_to_compare_gives_no_offset(clips: list[Clip]) -> None:
    mouth, wave = clips[0]
    assert mouth_sound_offset(np.zeros(FRAMES), wave, 0.1) is None
    assert mouth_sound_offset(mouth, np.zeros_like(wave), 0.1) is None
    assert mouth_sound_offset(mouth[:20], wave[: samples_for(20)], 0.1) is None


def test_the_slow_part_goes_and_the_fast_stays() -> None:
    time = np.arange(300) * 0.01
    slow, fast = np.sin(2 * np.pi * 0.3 * time), np.sin(2 * np.pi * 5 * time)
    left = without_slow_part(slow + fast)[50:-50]
    assert np.abs(left - fast[50:-50]).max() < 0.05
