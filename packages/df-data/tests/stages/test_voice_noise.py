"""Speech, pauses and noise at known levels, on synthetic speech. Skipped where silero-vad is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from df_data.stages import voice as voice_stage
from df_data.stages.noise import LIMIT_DB, snr_db, window_energy
from df_data.stages.rejection import Rejected
from df_data.stages.voice import (
    WINDOW,
    SileroVAD,
    VoiceFilter,
    check_voice,
    find_voice,
    longest_run,
    packaged_file,
)
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.errors import UserError
from df_models.time import SAMPLE_RATE

LEVELS_DB = (0, 5, 10, 15, 20, 30)
CLIPS = 12


@pytest.fixture(scope="module")
def speeches() -> list[np.ndarray]:
    return [make_speech(seed, "train", make_voice(seed), 3 * SAMPLE_RATE).wave for seed in range(CLIPS)]


def noise(kind: str, length: int, rng: np.random.Generator) -> np.ndarray:
    white = rng.standard_normal(length)
    if kind == "white":
        return white
    spectrum = np.fft.rfft(white)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), length)


def test_probabilities_are_those_of_the_network_that_streams(vad: SileroVAD, speeches: list[np.ndarray]) -> None:
    """The package's other file runs window by window with its state handed on: a second implementation."""
    import onnxruntime

    path = packaged_file().with_name("silero_vad_16k_op15.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    state, context, expected = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for start in range(0, len(speeches[0]) - WINDOW + 1, WINDOW):
        chunk = speeches[0][start : start + WINDOW]
        given = {"input": np.concatenate([context, chunk])[None], "state": state, "sr": np.array(16000)}
        probability, state = (np.asarray(out) for out in session.run(None, given))
        expected.append(probability[0, 0])
        context = chunk[-64:]
    found = vad.probabilities(speeches[0])
    assert len(found) == -(-len(speeches[0]) // WINDOW)
    assert np.allclose(found[: len(expected)], expected, atol=1e-4)
    assert np.array_equal(found, vad.probabilities(speeches[0]))


def test_speech_between_silences_is_found_in_its_place(vad: SileroVAD, speeches: list[np.ndarray]) -> None:
    quiet = np.random.default_rng(0).normal(0, 1e-4, 2 * SAMPLE_RATE).astype(np.float32)
    for speech in speeches[:4]:
        found = find_voice(np.concatenate([quiet, speech, quiet]), vad, VoiceFilter())
        inside = slice(2 * SAMPLE_RATE // WINDOW, 5 * SAMPLE_RATE // WINDOW)
        assert found.speech[inside].mean() > 0.7
        assert found.speech[: inside.start - 6].mean() < 0.05
        assert 1.7 < found.scores["longest_pause"] < 2.7


def test_music_and_noise_are_no_speech(vad: SileroVAD) -> None:
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * time) for hertz in (262.0, 330.0, 392.0))
    hiss = np.random.default_rng(0).normal(0, 0.1, len(time))
    for wave in (chord, hiss, 0 * time):
        found = find_voice(np.asarray(wave, np.float32), vad, VoiceFilter())
        with pytest.raises(Rejected) as refused:
            check_voice(found.scores, VoiceFilter())
        assert refused.value.reason == "too_little_speech" and refused.value.scores["speech_share"] < 0.1


def test_limits_of_share_and_pause_are_the_configs() -> None:
    scores = {"speech_share": 0.3, "longest_pause": 1.5}
    check_voice(scores, VoiceFilter())
    with pytest.raises(Rejected, match="too_little_speech"):
        check_voice(scores, VoiceFilter(min_share=0.31))
    with pytest.raises(Rejected, match="long_pause"):
        check_voice(scores, VoiceFilter(max_pause=1.4))


@pytest.mark.parametrize("kind", ["white", "pink"])
def test_snr_is_within_what_the_docstring_says(vad: SileroVAD, speeches: list[np.ndarray], kind: str) -> None:
    rng = np.random.default_rng(1)
    for level in LEVELS_DB:
        errors = []
        for speech in speeches:
            spoken = np.repeat(vad.probabilities(speech) >= 0.5, WINDOW)[: len(speech)]
            added = noise(kind, len(speech), rng)
            added *= np.sqrt(np.square(speech[spoken]).mean() / np.square(added).mean()) * 10 ** (-level / 20)
            wave = (speech + added).astype(np.float32)
            wave /= max(1.0, float(np.abs(wave).max()))
            errors.append(snr_db(wave, find_voice(wave, vad, VoiceFilter()).speech) - level)
        assert np.quantile(np.abs(errors), 0.9) < (3.0 if level == 0 else 2.0), (kind, level, errors)


def test_snr_needs_no_pause_and_no_speech_is_the_lowest() -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.01, 100 * WINDOW)
    wave[10 * WINDOW :] += np.repeat(np.where(np.arange(90) % 10 < 9, 0.1, 0.0), WINDOW) * rng.normal(0, 1, 90 * WINDOW)
    speech = np.arange(100) >= 10
    assert snr_db(wave, speech) == pytest.approx(10 * np.log10(0.9 * 100), abs=0.3)
    assert snr_db(wave, np.ones(100, bool)) == pytest.approx(10 * np.log10(0.81 * 100), abs=0.6)
    assert snr_db(wave, np.zeros(100, bool)) == -LIMIT_DB


def test_energy_of_a_short_last_window_is_its_own() -> None:
    energy = window_energy(np.full(WINDOW + 10, 0.5, np.float32))
    assert np.allclose(energy, 0.25) and len(window_energy(np.zeros(0))) == 0


def test_longest_run() -> None:
    assert longest_run(np.array([1, 1, 0, 1, 1, 1], bool)) == 3
    assert longest_run(np.zeros(4, bool)) == longest_run(np.zeros(0, bool)) == 0


def test_a_missing_package_or_file_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        SileroVAD(tmp_path / "gone.onnx")
    monkeypatch.setattr(voice_stage, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install df-data\[video\]"):
        packaged_file()


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no network at all")
    with pytest.raises(UserError, match=r"bad\.onnx is no ONNX model that can be read") as error:
        SileroVAD(bad)
    assert "\n" not in str(error.value) and "silero-vad" in str(error.value)
