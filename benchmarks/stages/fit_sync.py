"""Fit what of lips and audio goes together, and what it is worth: writes ``df_data/stages/sync_fit.json``.

    uv run python -m benchmarks.stages.fit_sync

Fitted on the *calibration* people alone (:data:`benchmarks.stages.corpora.CALIBRATION`); the reported tables are of all
others. Mean, spread and noise of the statistic are measured on each calibration person with weights fitted without that
person, so that they hold for strangers.

Shape legend: M steps of 20 ms, V tracks of the lips, B bands, O moments, K pairs.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.stages.corpora import add_places, calibration, corpora
from benchmarks.stages.seen import Seen
from df_data.stages.sync import LAGS, curve_of
from df_data.stages.sync_tracks import FIT, STEP_S, SyncFit, at_moments, audio_tracks, lip_tracks
from df_models.cli_support import run_cli
from df_models.files import atomic_write

PAIRS = 4
RIDGE = 0.1
"""Added to the variances, which are 1: weights of tracks that hardly differ stay small."""
TRUE_WITHIN_S = 0.1
"""A person's own offset is looked for within it."""


@dataclass(frozen=True)
class Tracks:
    """One stretch: ``[M, V]`` of the lips and ``[M, B]`` of the audio."""

    person: str
    lips: np.ndarray
    audio: np.ndarray


def tracks_of(seen: Sequence[Seen]) -> list[Tracks]:
    """Return the tracks of stretches."""
    lips = [lip_tracks(one.readings) for one in seen]
    return [Tracks(one.person, track, audio_tracks(one.wave, len(track))) for one, track in zip(seen, lips)]


def canonical(clips: Sequence[Tracks], pairs: int = PAIRS, ridge: float = RIDGE) -> SyncFit:
    """Fit the pairs; a person with four times as much speech counts twice as much.

    A pair's correlation counts by rho / (1 - rho^2), as in the likelihood ratio of two Gaussian tracks.
    """
    steps: dict[str, int] = defaultdict(int)
    for clip in clips:
        steps[clip.person] += len(clip.lips)
    total, parts = 0.0, [0.0, 0.0, 0.0]
    for clip in clips:
        lips, audio, weight = at_moments(clip.lips), at_moments(clip.audio), steps[clip.person] ** -0.5
        total += weight * len(lips)
        parts = [a + weight * b for a, b in zip(parts, (lips.T @ lips, audio.T @ audio, lips.T @ audio))]
    seen, heard, both = (np.asarray(part) / total for part in parts)
    seen_root, heard_root = (_inverse_root(m + ridge * np.eye(len(m))) for m in (seen, heard))
    left, rho, right = np.linalg.svd(seen_root @ both @ heard_root)
    weights = rho[:pairs] / (1 - rho[:pairs] ** 2)
    return SyncFit(seen_root @ left[:, :pairs], heard_root @ right.T[:, :pairs], weights / weights.sum(), 0.0, 0.0, 0.0)


def worth(clips: Sequence[Tracks]) -> tuple[float, float, float]:
    """Return mean, spread and noise of the statistic on people that the weights have not seen."""
    own, squares = [], []
    for person in sorted({clip.person for clip in clips}):
        fit = canonical([clip for clip in clips if clip.person != person])
        mine = [clip for clip in clips if clip.person == person]
        curves = [curve_of(clip.lips, clip.audio, fit) for clip in mine]
        known = curves[0]
        for curve in curves[1:]:
            known = known.with_more(curve)
        near = np.abs(LAGS * STEP_S) <= TRUE_WITHIN_S
        own.append((float(known.statistic[near].max()), known.length))
        for clip in mine:
            for other in clips:
                if other.person != person:
                    count = min(len(clip.lips), len(other.audio))
                    curve = curve_of(clip.lips[:count], other.audio[:count], fit)
                    squares.append(np.mean((curve.statistic**2 * curve.seconds)[curve.seconds >= 1.0]))
    noise = float(np.sqrt(np.mean(squares)))
    values, seconds = np.array(own).T
    mean, spread = random_effects(values, noise**2 / seconds)
    print("\n".join(f"{p}: {v:.3f} of {s:.0f} s" for p, (v, s) in zip(sorted({c.person for c in clips}), own)))
    return mean, spread, noise


def random_effects(values: np.ndarray, errors2: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation over people of values that are known with squared errors.

    Each counts by 1 / (deviation^2 + error^2), and the deviation is that which makes what is left over 1 a degree of
    freedom (Paule and Mandel 1982).
    """
    deviations = np.linspace(0.0, 2 * values.std(), 400)
    for deviation in deviations:
        weight = 1 / (deviation**2 + errors2)
        mean = float((weight * values).sum() / weight.sum())
        if (weight * (values - mean) ** 2).sum() <= len(values) - 1:
            break
    return mean, float(deviation)


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def _main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages.fit_sync", description=__doc__)
    add_places(parser)
    clips = tracks_of(calibration(corpora(parser.parse_args(argv))))
    mean, spread, noise = worth(clips)
    fit = replace(canonical(clips), mean=mean, spread=spread, noise=noise)
    people = sorted({clip.person for clip in clips})
    held = {
        "fitted_on": people,
        **{name: np.round(getattr(fit, name), 4).tolist() for name in ("weights", "lips", "audio")},
        **{name: round(getattr(fit, name), 4) for name in ("mean", "spread", "noise")},
    }
    atomic_write(FIT, json.dumps(held) + "\n")
    print(f"{FIT}: {len(people)} people, mean {mean:.3f}, spread {spread:.3f}, noise {noise:.3f}")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_cli(_main, "stages.fit_sync", argv)


if __name__ == "__main__":
    raise SystemExit(main())
