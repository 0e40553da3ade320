"""What a sample's mp4 must agree in with its metadata and its tensors: size, frames, time stamps, audio.

Shape legend: P pixel frames, N samples of 16 kHz audio, F = 2P features of 50 Hz.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from df_data.format.sample import Sample
from df_data.format.stored_video import VideoFacts, probe_video, read_audio
from df_models.encoders.audio.logmel import LogMel
from df_models.errors import UserError
from df_models.time import AUDIO_RATE, FPS

TIME_SLACK = 0.002
"""Seconds that an image's time stamp may be off its place (time bases round)."""
AUDIO_SLACK = 0.13
"""Seconds by which the audio may be longer or shorter than the images: two AAC frames of 1024 samples at 16 kHz."""
LAGS = 10
"""The alignment of audio and features is looked for within this many features of 20 ms."""
CLEAR = 0.05
"""By so much another lag must correlate better than none before it is called a shift."""


def video_problems(sample: Sample, *, compare_audio: bool = True) -> list[str]:
    """Return what is wrong with a sample's mp4, a line each; nothing where it has none.

    Args:
        compare_audio: compare the audio with the audio features, where the features are audio themselves.
    """
    if sample.video is None:
        return []
    try:
        facts = probe_video(sample.video)
        problems = [*_images(sample, facts), *_audio(sample, facts)]
        if compare_audio and not problems:
            problems += _alignment(sample, read_audio(sample.video))
        return problems
    except UserError as error:
        return [str(error)]


def _images(sample: Sample, facts: VideoFacts) -> Iterator[str]:
    meta = sample.meta
    if len(facts.times) != meta.num_frames:
        yield f"its mp4 has {len(facts.times)} frames, the metadata says {meta.num_frames}"
        return
    if (facts.height, facts.width) != (meta.height, meta.width):
        yield f"its mp4 is {facts.width}x{facts.height}, the metadata says {meta.width}x{meta.height}"
    late = max(abs(time - index / FPS) for index, time in enumerate(facts.times))
    if late > TIME_SLACK:
        yield f"an image of its mp4 is {late * 1000:.0f} ms off its place at {FPS} frames a second"


def _audio(sample: Sample, facts: VideoFacts) -> Iterator[str]:
    if not sample.meta.has_face:
        return
    if facts.audio_start is None:
        yield "its mp4 has no audio"
        return
    wanted = sample.meta.num_frames / FPS
    if abs(facts.audio_start) > AUDIO_SLACK:
        yield f"the audio of its mp4 begins at {facts.audio_start:.2f} s"
    elif abs(facts.audio_seconds - wanted) > AUDIO_SLACK:
        yield f"the audio of its mp4 lasts {facts.audio_seconds:.2f} s, its images {wanted:.2f} s"


def _alignment(sample: Sample, wave_N: np.ndarray) -> Iterator[str]:
    """Compare loudness over time in the mp4 with that in the features, where the features are ``logmel``'s."""
    audio = sample.meta.encoders.get("audio")
    if audio is None or audio.id != LogMel.id:
        return
    stored_F = sample.tensors["audio"].float().mean(dim=1).numpy()
    heard_F = LogMel().encode(wave_N, sample.meta.num_frames).mean(dim=1).numpy()
    lag = best_lag(stored_F, heard_F)
    if lag:
        when = "later" if lag > 0 else "earlier"
        yield f"the audio of its mp4 lies {abs(lag) * 1000 // AUDIO_RATE} ms {when} than its audio features"


def best_lag(first_F: np.ndarray, second_F: np.ndarray) -> int:
    """Return by how many places ``second`` lies later than ``first``; 0 unless another lag is clearly better."""
    scores = {lag: _correlation(first_F, second_F, lag) for lag in range(-LAGS, LAGS + 1)}
    best = max(scores, key=lambda lag: scores[lag])
    return best if scores[best] > scores[0] + CLEAR else 0


def _correlation(first_F: np.ndarray, second_F: np.ndarray, lag: int) -> float:
    """Return the correlation of ``first[i]`` with ``second[i + lag]``, without the outermost feature on each side."""
    low, high = max(1, 1 - lag), len(first_F) - 1 - max(0, lag)
    if high - low < 4 * LAGS:
        return 0.0
    first, second = first_F[low:high], second_F[low + lag : high + lag]
    spread = float(first.std() * second.std())
    return float(((first - first.mean()) * (second - second.mean())).mean()) / spread if spread > 1e-6 else 0.0
