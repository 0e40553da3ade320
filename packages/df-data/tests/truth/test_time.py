"""Frames and audio show the instant that they are said to show, in files of every kind and in what a build stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.stages.files import FORMATS, FileFormat, resample_exactly
from benchmarks.stages.scene import Scene, stamp_of, stamped
from benchmarks.stages.timing import audio_lag, built_clocks, decoded_clock
from df_data.build.config import ModelPaths
from df_models.crop import CropBox, crop_resize

STAMP_MS = 1.0
"""Matroska, WebM and mp4's edit lists count in milliseconds."""
IN_A_BUILD = next(made for made in FORMATS if made.schedule == "dropped")


@pytest.mark.parametrize("made", FORMATS, ids=lambda made: made.name)
def test_every_frame_is_the_nearest_and_the_audio_with_it(made: FileFormat, tmp_path: Path) -> None:
    clock = decoded_clock(made, 1, tmp_path)
    assert clock.worst_ms <= clock.bound_ms + STAMP_MS
    assert abs(clock.mean_ms) <= 0.2 * clock.bound_ms
    assert max(map(abs, clock.audio_ms)) <= STAMP_MS


def _check_samples(formats: tuple[FileFormat, ...], tmp_path: Path, models: ModelPaths, seconds: float) -> None:
    found = built_clocks(formats, tmp_path, models, seconds=seconds)
    starts = [sample.start_s for samples in found.values() for sample in samples]
    assert min(starts) == 0 and max(starts) >= 0.8
    for name, samples in found.items():
        for sample in samples:
            clock = sample.clock
            assert clock.worst_ms <= clock.bound_ms + STAMP_MS, name
            assert max(map(abs, clock.audio_ms)) <= STAMP_MS, name
            assert (sample.audio_features, sample.latent_frames) == (0, 0), name
            assert abs(sample.structure_ms) <= 20 and sample.structure_r > 0.9, (name, sample)


def test_samples_of_a_build_are_aligned_to_the_frame(tmp_path: Path, model_paths: ModelPaths) -> None:
    _check_samples((FORMATS[0], IN_A_BUILD), tmp_path, model_paths, 2.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_samples_of_every_format_are_aligned_to_the_frame(tmp_path: Path, model_paths: ModelPaths) -> None:
    _check_samples(FORMATS, tmp_path, model_paths, 3.2)


def test_a_wrong_clock_would_be_seen(tmp_path: Path) -> None:
    """The measure itself: audio and stamps that are off by known amounts."""
    scene = Scene.make(0, 0, 1.0)
    true = scene.audio(0.0, 16_000)
    assert audio_lag(scene.audio(-0.01, 16_000), true) == 160
    assert audio_lag(scene.audio(0.0125, 16_000), true) == -200
    image = np.full((256, 256, 3), 100, np.uint8)
    for number in (0, 1, 77, 682, 1023):
        whole = stamped(image, number)
        box = CropBox(-7.5, -20.0, 274.0)
        assert stamp_of(whole) == number
        assert stamp_of(crop_resize(whole, box, 64), box, 256) == number


def test_audio_is_resampled_without_delay() -> None:
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * time) * np.hanning(16_000)
    finer = resample_exactly(tone, 44_100)
    at = np.arange(44_100) / 44_100
    assert np.abs(finer - np.sin(2 * np.pi * 440 * at) * np.interp(at, time, np.hanning(16_000))).max() < 2e-3
