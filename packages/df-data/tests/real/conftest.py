"""Real videos and small models for these tests; each is skipped with its reason where they are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.prepare import PreparedClip, StageConfig, StageModels, prepare_clips
from df_data.stages.rejection import Rejected
from df_models.encoders.face.yunet import YuNet
from df_models.encoders.video.wan_vae import WanVAE
from df_models.encoders.video.wan_vae_files import write_autoencoder


@pytest.fixture(scope="session")
def detector(real_weights: Path) -> YuNet:
    pytest.importorskip("onnxruntime")
    return YuNet(real_weights / "yunet_n_dynamic.onnx")


@pytest.fixture(scope="session")
def reader(real_weights: Path) -> MediaPipeReader:
    pytest.importorskip("mediapipe", exc_type=ImportError)
    return MediaPipeReader(real_weights / "mediapipe_face_landmarker_v2_with_blendshapes.task")


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of the right shape with random weights, as a directory that the build can be given."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("vae") / "random-vae"
    write_autoencoder(WanVAE.random(0).module, folder)
    return folder


@pytest.fixture(scope="session")
def prepare_clip() -> Callable[[Path, StageConfig, StageModels], PreparedClip]:
    """Return a video's first stretch alone, or raise why it was refused."""

    def prepare(path: Path, config: StageConfig, models: StageModels) -> PreparedClip:
        with contextlib.closing(prepare_clips(path, config, models)) as stretches:
            first = next(stretches)
        if isinstance(first, Rejected):
            raise first
        return first

    return prepare
