"""Talking people for the tests of known truth; those that need networks or real clips are skipped without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.stages.talks import Models, Talk, grid_talks, rendered_talks
from df_data.build.config import ModelPaths
from df_data.synth.clip import make_clip


@pytest.fixture(scope="session")
def model_paths(real_weights: Path) -> ModelPaths:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("mediapipe", exc_type=ImportError)
    return ModelPaths(
        face_detector=str(real_weights / "yunet_n_dynamic.onnx"),
        face_landmarker=str(real_weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
    )


@pytest.fixture(scope="session")
def models(model_paths: ModelPaths) -> Models:
    return Models.load(model_paths)


@pytest.fixture(scope="session")
def grid(real_data: Path) -> Path:
    return real_data / "grid"


@pytest.fixture(scope="session")
def rendered(models: Models) -> list[Talk]:
    """Two rendered people, 2.2 s each."""
    return rendered_talks(2, models, frames=55)


@pytest.fixture(scope="session")
def real(models: Models, grid: Path) -> list[Talk]:
    """Two of GRID's speakers."""
    return grid_talks(grid, 2, models)


@pytest.fixture(scope="session")
def unread() -> list[Talk]:
    """Two rendered people at 128 px, of whom nothing was read: for what needs images only."""
    clips = [make_clip(number, number, 45, 128) for number in (2, 5)]
    nothing = np.zeros(0)
    return [
        Talk(f"person {clip.identity}", clip.frames, 100.0, clip.frames, clip.wave, nothing, nothing, clip)
        for clip in clips
    ]
