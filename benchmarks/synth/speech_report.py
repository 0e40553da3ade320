"""How much of the mouth can be heard: a linear reading of the synthetic speech, and the speed of making it.

It bounds from below what lip-sync a model of this corpus can learn. Run
``uv run python -m benchmarks.synth.speech_report``.

Legend: T pixel frames, M mel bands, F features.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

import numpy as np

from df_data.synth.clip import IDENTITIES
from df_data.synth.speech.articulation import CONTROL_RATE
from df_data.synth.speech.sentences import Split
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.cli_support import run_cli
from df_models.time import FPS, samples_for

ARTICULATORS = ("jaw", "lip_width", "lip_round")
_WINDOW = 5
_FFT, _BLOCK, _HOP = 1024, 400, 320


def log_mel(wave: np.ndarray, bands: int = 80) -> np.ndarray:
    """Log mel energies float64 ``[2 T, M]`` of 16 kHz audio ``[640 T]``, 50 a second, block i centred on sample 320 i.

    Triangular filters on the mel scale of O'Shaughnessy (1987), 40 to 7800 Hz, blocks of 25 ms.
    """
    low, high = 2595 * np.log10(1 + np.array([40, 7800]) / 700)
    edges = 700.0 * (10.0 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(_FFT, 1 / 16000)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    blocks = np.lib.stride_tricks.sliding_window_view(np.pad(wave, _BLOCK // 2), _BLOCK)[::_HOP][: len(wave) // _HOP]
    power = np.abs(np.fft.rfft(blocks * np.hanning(_BLOCK), _FFT)) ** 2
    return np.log(power @ filters.T + 1e-5)


def windows(wave: np.ndarray) -> np.ndarray:
    """What is heard from 5 frames before to 5 frames after each pixel frame, ``[T, F]``; ends repeat."""
    pairs = log_mel(wave)
    frames = pairs.reshape(len(pairs) // 2, -1)
    padded = np.pad(frames, ((_WINDOW, _WINDOW), (0, 0)), mode="edge")
    return np.concatenate([padded[k : k + len(frames)] for k in range(2 * _WINDOW + 1)], axis=1)


def heard_and_done(split: Split, voices: Iterable[int], seconds: int) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[T, F]`` and articulators ``[T, 3]`` of one stretch of speech by each of the split's voices."""
    heard, done = [], []
    for voice in voices:
        speech = make_speech(voice, split, make_voice(IDENTITIES[split][voice]), samples_for(seconds * FPS))
        mouth = speech.mouth.every(CONTROL_RATE // FPS)
        heard.append(windows(speech.wave))
        done.append(np.stack([mouth.jaw, mouth.width, mouth.rounding], axis=1))
    return np.concatenate(heard), np.concatenate(done)


def ridge_correlations(train_voices: int, val_voices: int, seconds: int = 6, ridge: float = 300.0) -> dict[str, float]:
    """Correlation of each articulator with a ridge regression's reading of it, on unseen voices and unseen words."""
    heard, done = heard_and_done("train", range(train_voices), seconds)
    mean, deviation = heard.mean(0), heard.std(0) + 1e-3
    x = np.column_stack([(heard - mean) / deviation, np.ones(len(heard))])
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ done)
    heard, done = heard_and_done("val", range(val_voices), seconds)
    read = np.column_stack([(heard - mean) / deviation, np.ones(len(heard))]) @ weights
    return {name: float(np.corrcoef(read[:, k], done[:, k])[0, 1]) for k, name in enumerate(ARTICULATORS)}


def real_time_factor(seconds: int = 30) -> float:
    """Seconds of speech with its mouth movement made per second of one core (compilation not counted)."""
    make_speech(0, "train", make_voice(0), samples_for(FPS))
    start = time.process_time()
    make_speech(1, "train", make_voice(1), samples_for(seconds * FPS))
    return seconds / (time.process_time() - start)


def _main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synth.speech_report", description=__doc__)
    parser.add_argument("--train-voices", type=int, default=400, help="voices the regression is fitted on")
    parser.add_argument("--val-voices", type=int, default=100, help="unseen voices it is tested on")
    options = parser.parse_args(argv)
    correlations = ridge_correlations(options.train_voices, options.val_voices)
    print(f"ridge regression on {options.train_voices} voices, tested on {options.val_voices} unseen ones, 6 s each:")
    for name, value in correlations.items():
        print(f"  {name:10s} r = {value:.3f}")
    print(f"speech is made {real_time_factor():.0f} times faster than real time on one core")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_cli(_main, "speech_report", argv)


if __name__ == "__main__":
    raise SystemExit(main())
