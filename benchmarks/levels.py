"""How far a trained model bears change of its speech: gain from -40 to +10 dB, with and without levelling, and noise.

Every line generates the same held-out clips from their first frame and changed audio, reads the mouth from the pixels
as df-eval does, and correlates it with the true mouth. The changed audio goes through what `df-infer` does with a file
(:func:`df_infer.hearing.loudness.levelled`); encoder, rollout, seed and noise are those of df-eval. The document that
it writes also says at what level and how clean the clips themselves are.

    uv run python benchmarks/levels.py runs/quickstart --out docs/results/levels.md

Shape legend: N samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import table
from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.dataset import dataset_of
from df_eval.evaluate import structure_encoder
from df_eval.metrics import ClipRatio, sync
from df_eval.protocols.held_out import held_out_clips, person_of
from df_eval.reading.reader_files import reader_files, stored_landmarker
from df_eval.reading.readers import FaceReader, choose_reader
from df_eval.rows.generation import check_size, generate_clips
from df_infer.hearing.loudness import TOLERANCE_DB, levelled
from df_infer.pipeline import Pipeline
from df_infer.run_dir import open_run_dir
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.intervals.ranges import CORRELATION
from df_models.media.levels import speech_level
from df_models.time import samples_for

GAINS_DB = (-40, -34, -28, -22, -16, -10, -5, 0, 5, 10)
SNRS_DB = (30, 20, 15, 10, 5, 0)
HEARD = 129
"""Pixel frames of each clip whose audio is changed and levelled (5 s): levelling knows speech by its pauses."""


def amplified(wave_N: np.ndarray, gain_db: float) -> np.ndarray:
    """Return audio made louder."""
    return (wave_N * 10 ** (gain_db / 20)).astype(np.float32)


def noisy(wave_N: np.ndarray, snr_db: float, kind: str, seed: int) -> np.ndarray:
    """Return speech with ``white`` or ``pink`` (1/f power) noise, its power so far below the speech's level."""
    noise_N = np.random.default_rng(seed).normal(size=len(wave_N))
    if kind == "pink":
        spectrum = np.fft.rfft(noise_N)
        noise_N = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), len(wave_N))
    wanted_db = speech_level(wave_N).level - snr_db
    return (wave_N + noise_N / noise_N.std() * 10 ** (wanted_db / 20)).astype(np.float32)


class Bench:
    """The run, its held-out clips and their reader."""

    def __init__(self, run: Path, config: EvalConfig) -> None:
        self.run = open_run_dir(run)
        root = dataset_of(self.run, config)
        self.pipeline = Pipeline.from_run(self.run.root, config.device, config.dtype)
        encoder = structure_encoder(root)
        self.reader: FaceReader = choose_reader(encoder, reader_files(config.readers, root), stored_landmarker(root))
        self.clips, listed = held_out_clips(root, config, encoder, self.pipeline.size, person_of(self.run, root))
        self.source = listed.source
        check_size(self.pipeline, self.clips)
        self.config, self.frames = config, config.frames[0]
        self.trained_db = self.pipeline.model.config.speech_level
        if self.trained_db is None:
            raise UserError(f"{run} does not know the level of its training speech; train it anew")
        self.mouths = [self.reader.truth(clip).mouth_open_T for clip in self.clips]
        if any(mouth is None for mouth in self.mouths):
            raise UserError(f"the reader {self.reader.id} knows no true mouth for this run's clips")

    def waves(self) -> list[np.ndarray]:
        """The clips' audio, at most 5 s of each."""
        return [clip.wave_N[: samples_for(HEARD)] for clip in self.clips]

    def line(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Generate the clips with other audio; return lip-sync, its interval and the amplitude."""
        changed = [self._with(clip, wave) for clip, wave in zip(self.clips, waves, strict=True)]
        made = generate_clips(
            self.pipeline,
            changed,
            self.frames,
            rollout=self.pipeline.rollout,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            progress=lambda _: None,
        )
        lips, amplitude = ClipRatio(), ClipRatio()
        for index, (clip, mouth_T) in enumerate(zip(made, self.mouths, strict=True)):
            readings = self.reader.read(clip.frames_THWC)
            assert readings is not None and readings.mouth_open_T is not None and mouth_T is not None
            true_T = mouth_T[: self.frames]
            lips.update([sync.correlation(readings.mouth_open_T, true_T)], [index])
            amplitude.update([sync.amplitude(readings.mouth_open_T, true_T)], [index])
        score = lips.score(self.config.seed, self.config.resamples, within=CORRELATION)
        open_ = amplitude.score(self.config.seed)
        unread = f" ({score.undefined} unreadable)" if score.undefined else ""
        return [_number(score.value) + unread, f"{_number(score.low)} to {_number(score.high)}", _number(open_.value)]

    def _with(self, clip: EvalClip, wave_N: np.ndarray) -> EvalClip:
        return dataclasses.replace(clip, wave_N=wave_N, audio_TD=None, audio_encoder="")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def gain_rows(bench: Bench, progress: tqdm) -> list[list[str]]:
    """One row for each gain: what the model makes of it as it is, and what df-infer makes of it."""
    rows = []
    for gain in GAINS_DB:
        plain = [amplified(wave, gain) for wave in bench.waves()]
        heard = [levelled(wave, bench.trained_db) for wave in plain]
        changed = sum(after is not before for before, after in zip(plain, heard, strict=True))
        as_it_is = bench.line(plain)
        after = bench.line(heard) if changed else as_it_is
        rows.append([f"{gain:+d}", *as_it_is, str(changed), *after])
        progress.update(1)
    return rows


def noise_rows(bench: Bench, progress: tqdm) -> list[list[str]]:
    """One row for each ratio of speech to noise."""
    rows = []
    for snr in SNRS_DB:
        row = [str(snr)]
        for kind in ("white", "pink"):
            row += bench.line([noisy(wave, snr, kind, index) for index, wave in enumerate(bench.waves())])
            progress.update(1)
        rows.append(row)
    return rows


def document(bench: Bench, gains: list[list[str]], noise: list[list[str]], command: str) -> str:
    """The two tables and what they were measured on, as Markdown."""
    found = [speech_level(wave) for wave in bench.waves()]
    levels, ranges = np.array([f.level for f in found]), np.array([f.range for f in found])
    own = ["lip-sync", "95 % interval", "amplitude"]
    gain_head = ["gain, dB", *own, "clips levelled", *(f"{name}, levelled" for name in own)]
    noise_head = ["SNR, dB", *(f"{name}, {kind}" for kind in ("white", "pink") for name in own)]
    return f"""# How far a model bears other levels and noise

`{command}`

Run `{bench.run.name}`; {bench.source}; the first {bench.frames} frames of each, reader `{bench.reader.id}`.
Lip-sync is df-eval's (the correlation of the mouth read from the pixels with the true one; 1 is perfect, a still mouth
is 0); amplitude is the read mouth's movement over the true one's.

**What the model was trained on.** Its training speech is at {bench.trained_db:.1f} dB of full scale on average. That
of these clips is at {levels.mean():.1f} dB (standard deviation {levels.std():.1f}, from {levels.min():.1f} to
{levels.max():.1f}), the quiet parts {ranges.mean():.0f} dB below the loud ones ({ranges.min():.0f} to
{ranges.max():.0f}). Neither level nor noise was varied in training beyond that.

## Gain

`df-infer` brings speech further than {TOLERANCE_DB:g} dB from the training speech's level to that level, with a
warning, where it is plainly speech; `--keep-level` leaves it alone.

{table(gain_head, gains)}

## Noise

The ratio is of the speech's level (its loud parts) to the noise.

{table(noise_head, noise)}
"""


def main(argv: list[str]) -> int:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    parser.add_argument("--out", type=Path, required=True, help="Markdown document to write")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=65, help="pixel frames to generate of each clip, 1 + 4 n")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's own)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.getLogger("df_infer.hearing.loudness").setLevel(logging.ERROR)
    bench = Bench(args.run, EvalConfig(clips=args.clips, frames=(args.frames,)))
    with tqdm(total=len(GAINS_DB) + 2 * len(SNRS_DB), desc="measuring", unit="line") as progress:
        gains, noise = gain_rows(bench, progress), noise_rows(bench, progress)
    command = f"uv run python benchmarks/levels.py {args.run} --out {args.out}"
    if (args.clips, args.frames) != (16, 65):
        command += f" --clips {args.clips} --frames {args.frames}"
    text = document(bench, gains, noise, command)
    atomic_write(args.out, text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "levels"))
