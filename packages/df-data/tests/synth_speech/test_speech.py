from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.signal import find_peaks

from benchmarks.synth.speech_report import real_time_factor, ridge_correlations
from df_data.synth.speech.phonemes import BILABIALS
from df_data.synth.speech.speech import Speech, make_speech, speak_stream
from df_data.synth.speech.voice import make_voice
from df_models.time import FPS, samples_for

SECONDS = 12
DIGEST = (
    "import hashlib; from df_data.synth.speech.speech import make_speech;"
    "from df_data.synth.speech.voice import make_voice;"
    "s = make_speech(3, 'train', make_voice(3), 16000);"
    "print(hashlib.sha256(s.wave.tobytes() + s.mouth.jaw.tobytes()).hexdigest())"
)


@pytest.fixture(scope="module")
def speeches() -> list[Speech]:
    return [make_speech(i, "train", make_voice(i), samples_for(SECONDS * FPS)) for i in range(8)]


def loudness(wave: np.ndarray, low: float, high: float) -> np.ndarray:
    """Energy in dB between two frequencies, 200 a second, block g centred on sample 80 g."""
    blocks = np.lib.stride_tricks.sliding_window_view(np.pad(wave, 160), 320)[::80][: len(wave) // 80]
    power = np.abs(np.fft.rfft(blocks * np.hanning(320))) ** 2
    bins = np.fft.rfftfreq(320, 1 / 16000)
    return 10 * np.log10(power[:, (bins >= low) & (bins < high)].sum(1) + 1e-6)


def test_same_bytes_in_another_process() -> None:
    speech = make_speech(3, "train", make_voice(3), 16000)
    mine = hashlib.sha256(speech.wave.tobytes() + speech.mouth.jaw.tobytes()).hexdigest()
    other = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == mine


def test_seed_split_and_voice_each_matter() -> None:
    base = make_speech(3, "train", make_voice(3), 8000)
    others = [
        make_speech(4, "train", make_voice(3), 8000),
        make_speech(3, "val", make_voice(3), 8000),
        make_speech(3, "train", make_voice(4), 8000),
    ]
    assert all(not np.array_equal(base.wave, other.wave) for other in others)


def test_longer_speech_begins_with_the_shorter() -> None:
    short, long = (make_speech(9, "train", make_voice(9), samples_for(n)) for n in (33, 129))
    assert np.array_equal(short.wave, long.wave[: len(short.wave)])
    assert np.array_equal(short.mouth.jaw, long.mouth.jaw[: len(short.mouth.jaw)])


def test_starts_at_random_moments() -> None:
    first = [speak_stream(seed, "train", make_voice(seed), 1.0)[0] for seed in range(60)]
    along = np.array([-u.speech_start / (u.end - u.speech_start) for u in first])
    assert (along < 0).any() and np.ptp(along) > 0.8 and 0.3 < np.median(along) < 0.6


def test_levels_and_ranges(speeches: list[Speech]) -> None:
    for speech in speeches:
        assert speech.wave.dtype == np.float32 and len(speech.wave) == 80 * len(speech.mouth.jaw)
        assert 0.02 < speech.wave.std() < 0.15 and 0.2 < np.abs(speech.wave).max() < 1.0
        assert abs(speech.wave.mean()) < 1e-3
        assert speech.mouth.jaw.min() >= 0 and speech.mouth.jaw.max() <= 1
        assert np.abs(speech.mouth.width).max() <= 1
        assert speech.mouth.rounding.min() >= 0 and speech.mouth.rounding.max() <= 1


def test_mouth_moves_strongly_in_the_rhythm_of_syllables(speeches: list[Speech]) -> None:
    jaws = np.stack([s.mouth.jaw for s in speeches])
    assert jaws.std() > 0.18 and np.quantile(jaws, 0.95) > 0.6 and np.quantile(jaws, 0.15) < 0.02
    spectrum = np.abs(np.fft.rfft((jaws - jaws.mean(1, keepdims=True)) * np.hanning(jaws.shape[1]))) ** 2
    frequency = np.fft.rfftfreq(jaws.shape[1], 1 / 200)
    power = spectrum.sum(0)
    assert power[(frequency >= 2) & (frequency < 6)].sum() > 0.38 * power[frequency >= 1].sum()
    assert power[frequency > 12.5].sum() < 0.01 * power.sum()
    openings = sum(len(find_peaks(jaw, prominence=0.08)[0]) for jaw in jaws)
    speaking = sum(p.end - p.start for s in speeches for p in s.phones if p.symbol != "SIL")
    assert 2.2 < openings / speaking < 5.0


def test_mouth_closes_in_pauses(speeches: list[Speech]) -> None:
    seen = 0
    for speech in speeches:
        for phone in speech.phones:
            middle = round((phone.start + phone.end) * 100)
            if phone.symbol == "SIL" and phone.end - phone.start > 0.25 and 0 <= middle < len(speech.mouth.jaw):
                assert speech.mouth.jaw[middle] == 0
                seen += 1
    assert seen > 15


def test_bilabials_close_the_lips_and_the_sound_at_once(speeches: list[Speech]) -> None:
    hits, drops, seen = 0, [], 0
    for speech in speeches:
        above = loudness(speech.wave, 500, 4000)
        for phone in speech.phones:
            first, last = round(phone.start * 200), round(phone.end * 200)
            if phone.symbol not in BILABIALS or first < 40 or last > len(above) - 40:
                continue
            seen += 1
            quietest = first + int(np.argmin(above[first : last + 1]))
            hits += bool((speech.mouth.jaw[max(0, quietest - 8) : quietest + 9] < 0.01).any())
            drops.append(above[first - 20 : last + 20].max() - above[quietest])
    assert seen > 30
    assert hits == seen
    assert np.median(drops) > 20


def test_loudness_and_mouth_are_aligned(speeches: list[Speech]) -> None:
    voiced = [loudness(s.wave, 400, 1200) for s in speeches]
    lags = range(-20, 21)
    edge = slice(20, -20)
    r = [
        np.mean([np.corrcoef(np.roll(v, lag)[edge], s.mouth.jaw[edge])[0, 1] for v, s in zip(voiced, speeches)])
        for lag in lags
    ]
    assert max(r) > 0.6
    assert abs(lags[int(np.argmax(r))]) <= 4, "20 ms: half a pixel frame"


def test_mouth_of_unseen_voices_can_be_heard() -> None:
    found = ridge_correlations(train_voices=130, val_voices=25)
    assert found["jaw"] >= 0.85
    assert found["lip_width"] >= 0.75 and found["lip_round"] >= 0.68


def test_speech_is_made_much_faster_than_real_time() -> None:
    assert real_time_factor() > 20


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 80"):
        make_speech(0, "train", make_voice(0), 1001)
