"""Noise of known level beside speech, and speech of known share: what SNR and voice activity tell.

Shape legend: N samples at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.stages.tables import RULE_HEADER, Section, Tally, percent, table
from df_data.sources.words import read_words
from df_data.stages.decode import decode_clip
from df_data.stages.noise import NoiseFilter, snr_db
from df_data.stages.voice import WINDOW, SileroVAD, VoiceFilter, find_voice, silero_vad
from df_data.synth.speech.phonemes import SILENCE
from df_data.synth.speech.speech import Speech, make_speech
from df_data.synth.speech.voice import make_voice
from df_models.time import SAMPLE_RATE

LEVELS_DB = (-5, 0, 5, 10, 15, 20, 30, 40)
KINDS = ("white", "pink", "babble")
BABBLERS = 6
CLEAR_DB = 2.5
"""Levels this close to the limit of 10 dB are neither to be found nor to be left alone."""
SPEECH_SHARES = (0.0, 0.15, 0.35, 0.5, 0.75, 1.0)


def voices(count: int, seconds: float = 3.0) -> list[Speech]:
    """Return speech of people 0, 1, ..., each with its own words."""
    return [make_speech(i, "train", make_voice(i), round(seconds * SAMPLE_RATE)) for i in range(count)]


def noise(kind: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise float64 ``[length]`` of unknown level; babble is six other people at once."""
    if kind == "babble":
        first = 1000 + int(rng.integers(0, 10_000))
        whole = -(-length // 640) * 640
        return sum(
            make_speech(first + i, "train", make_voice(first + i), whole).wave[:length].astype(np.float64)
            for i in range(BABBLERS)
        )  # type: ignore[return-value]
    white = rng.standard_normal(length)
    if kind == "white":
        return white
    spectrum = np.fft.rfft(white)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 20)), length)


def with_noise(wave_N: np.ndarray, added_N: np.ndarray, level_db: float, spoken_N: np.ndarray) -> np.ndarray:
    """Return speech with noise ``level_db`` below it, float32 within +-1.

    Args:
        spoken_N: bool, where the clean audio has speech: its mean energy there is what the noise is measured by.
    """
    gain = np.sqrt(np.square(wave_N[spoken_N]).mean() / np.square(added_N).mean()) * 10 ** (-level_db / 20)
    noisy = wave_N + gain * added_N
    return (noisy / max(1.0, float(np.abs(noisy).max()))).astype(np.float32)


def measured_snr(wave_N: np.ndarray, vad: SileroVAD) -> float:
    """Return ``snr_db`` as a build measures it."""
    return snr_db(wave_N, find_voice(wave_N, vad, VoiceFilter()).speech)


def spoken_samples(wave_N: np.ndarray, vad: SileroVAD) -> np.ndarray:
    """Return bool ``[N]``: where the detector hears speech in the clean audio."""
    return np.repeat(find_voice(wave_N, vad, VoiceFilter()).speech, WINDOW)[: len(wave_N)]


def noise_section(sets: Mapping[str, Sequence[np.ndarray]]) -> Section:
    """Add noise of each kind and level to every clean audio ``[N]``."""
    vad, limit = silero_vad(), NoiseFilter().min_snr_db
    rng = np.random.default_rng(7)
    rules, rows, figures = [], [], {}
    for name, waves in sets.items():
        spoken = [spoken_samples(wave, vad) for wave in waves]
        decisions: dict[str, list[tuple[bool, bool]]] = {kind: [] for kind in KINDS}
        for kind in KINDS:
            for level in LEVELS_DB:
                found = np.array(
                    [
                        measured_snr(with_noise(wave, noise(kind, len(wave), rng), level, where), vad)
                        for wave, where in zip(waves, spoken)
                    ]
                )
                errors = found - level
                if abs(level - limit) >= CLEAR_DB:
                    decisions[kind] += [(snr < limit, level < limit) for snr in found.tolist()]
                rows.append([
                    name, kind, level, f"{np.median(errors):+.1f}", f"{np.quantile(np.abs(errors), 0.9):.1f}",
                    percent(found < limit),
                ])  # fmt: skip
                figures[f"{name}: {kind} {level} dB"] = {
                    "median_error": float(np.median(errors)), "p90_error": float(np.quantile(np.abs(errors), 0.9)),
                }  # fmt: skip
            tally = Tally.of(decisions[kind])
            rules.append([f"{name}, {kind}", *tally.cells()])
            figures[f"{name}: {kind}"] = tally.figures()
    header = ("clips of", "noise", "true SNR (dB)", "median error", "9 in 10 within", "below 10 dB, halved")
    text = (
        "The true SNR counts the speech's energy where the clean audio has speech. Precision and recall leave 10 dB "
        "itself out. Babble is six other people at once, which the voice detector hears as speech. A recording's own "
        "noise counts, so GRID's clips (17 to 36 dB of their own) cannot reach 30 dB.\n\n"
    )
    return Section(
        "Noise (`snr_db`)", f"{text}{table(('clips of', *RULE_HEADER), rules)}\n\n{table(header, rows)}", figures
    )


def spoken_share(speech: Speech, kept: float = 1.0) -> float:
    """Return the true share of the time in which a phone audio, if only ``kept`` of it in the middle is left."""
    seconds = len(speech.wave) / SAMPLE_RATE
    low, high = (1 - kept) / 2 * seconds, (1 + kept) / 2 * seconds
    spans = [(max(p.start, low), min(p.end, high)) for p in speech.phones if p.symbol != SILENCE.symbol]
    return sum(max(0.0, end - start) for start, end in spans) / seconds


def with_silence(wave_N: np.ndarray, share: float) -> np.ndarray:
    """Return audio of which only a share in the middle is left, the rest a quiet room (-72 dB of full scale)."""
    room = np.random.default_rng(3).normal(0, 10 ** (-72 / 20), len(wave_N)).astype(np.float32)
    keep = round(share * len(wave_N))
    start = (len(wave_N) - keep) // 2
    room[start : start + keep] = wave_N[start : start + keep]
    return room


def voice_section(speeches: Sequence[Speech], grid: Path | None, count: int) -> Section:
    """Compare the share of speech with the phones' of synthetic speech and with GRID's word times."""
    vad, filters = silero_vad(), VoiceFilter()
    rows, figures, decisions = [], {}, []
    for share in SPEECH_SHARES:
        errors, refused = [], []
        for speech in speeches:
            true = spoken_share(speech, share)
            found = find_voice(with_silence(speech.wave, share), vad, filters).scores["speech_share"]
            errors.append(found - true)
            refused.append(found < filters.min_share)
            if abs(true - filters.min_share) > 0.05:
                decisions.append((found < filters.min_share, true < filters.min_share))
        rows.append(_voice_row(f"synthetic, {share:.0%} of the audio kept", errors, refused))
        figures[f"kept {share:g}"] = {"median_error": float(np.median(errors)), "refused": sum(refused)}
    if grid is not None:
        errors, refused = [], []
        files = sorted((grid / "s1").glob("*.mpg"))
        for path in files[:: max(1, len(files) // count)][:count]:
            wave = decode_clip(path).wave
            words = read_words(grid / "align" / f"{path.stem}.align")
            true = sum(end - start for _, start, end in words) / (len(wave) / SAMPLE_RATE)
            found = find_voice(wave, vad, filters).scores["speech_share"]
            errors.append(found - true)
            refused.append(found < filters.min_share)
            if abs(true - filters.min_share) > 0.05:
                decisions.append((found < filters.min_share, true < filters.min_share))
        rows.append(_voice_row("GRID, against its word times", errors, refused))
        figures["grid"] = {"median_error": float(np.median(errors)), "refused": sum(refused)}
    tally = Tally.of(decisions)
    figures["too_little_speech"] = tally.figures()
    header = ("audio", "clips", "median error of the share", "9 in 10 within", "refused")
    rule = table(("rule", *RULE_HEADER), [["`too_little_speech`, more than 0.05 from the limit", *tally.cells()]])
    text = "True speech is the phones (closures of stops included), or the words, as a share of the clip.\n\n"
    return Section("Speech (`speech_share`)", f"{text}{rule}\n\n{table(header, rows)}", figures)


def _voice_row(name: str, errors: Sequence[float], refused: Sequence[bool]) -> list[str]:
    spread = float(np.quantile(np.abs(errors), 0.9))
    return [name, str(len(errors)), f"{np.median(errors):+.3f}", f"{spread:.3f}", percent(refused)]
