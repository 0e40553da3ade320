"""Small random samples and datasets, and real videos and models, whose tests are skipped where they are missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from df_data.format.manifest import Manifest
from df_data.format.sample import EncoderRecord, Sample, SampleMeta
from df_data.format.shards import SplitWriter, staged_shards
from df_data.stages.voice import SileroVAD, silero_vad
from df_models.time import latent_length

ENCODERS = {"video_vae": EncoderRecord(id="vae", sha256="v"), "audio": EncoderRecord(id="audio", sha256="a")}
SIZE = 16

MakeSample = Callable[..., Sample]
MakeSplit = Callable[..., Manifest]


def _folder(variable: str, fallback: str) -> Path:
    folder = Path(os.environ.get(variable) or fallback).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real test data: set {variable} (no folder {folder})")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    return _folder("DF_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    return _folder("DF_TEST_WEIGHTS", "../shared/weights")


@pytest.fixture(scope="session")
def vad() -> SileroVAD:
    pytest.importorskip("onnxruntime")
    if find_spec("silero_vad") is None:
        pytest.skip("the package silero-vad is not installed")
    return silero_vad()


@pytest.fixture(scope="session")
def make_sample() -> MakeSample:
    """(index, frames=5, split="train", video=None) -> a valid sample whose tensors depend on the index."""

    def make(index: int, frames: int = 5, split: str = "train", video: bytes | None = None) -> Sample:
        generator = torch.Generator().manual_seed(index)
        cells = SIZE // 8
        tensors = {
            "video_latent": torch.full((latent_length(frames), 16, cells, cells), float(index)).half(),
            "structure": torch.randn(frames, 70, generator=generator),
            "flame": torch.randn(frames, 159, generator=generator),
            "audio": torch.randn(2 * frames, 6, generator=generator).half(),
            "reference_latents": torch.randn(3, 16, cells, cells, generator=generator).half(),
            "reference_frames": torch.tensor([0, 1, 4], dtype=torch.int32),
            "reference_features": torch.randn(3, 2, 4, generator=generator).half(),
            "mouth_boxes": torch.tensor([4.0, 8.0, 12.0, 16.0]).repeat(frames, 1),
        }
        tensors["structure"][:, -1] = 1.0  # scale
        tensors["reference_latents"][0] = tensors["video_latent"][0]
        meta = SampleMeta(
            key=f"{split}-{index:04d}",
            source="test",
            licence="CC0-1.0",
            identity=f"{split}-{index}",
            weight=1 / (1 + index % 3),
            split=split,
            num_frames=frames,
            height=SIZE,
            width=SIZE,
            encoders=ENCODERS,
        )
        return Sample(meta, tensors, video)

    return make


@pytest.fixture(scope="session")
def make_split(make_sample: MakeSample) -> MakeSplit:
    """(root, clips, num_shards=3, **sample) -> the manifest of a whole `root/train`."""

    def make(root: Path, clips: int, num_shards: int = 3, **options: object) -> Manifest:
        writer = SplitWriter(root, "train", num_shards=num_shards, build="b", encoders=ENCODERS)
        staged = [writer.stage(make_sample(index, **options)) for index in range(clips)]
        for shard in staged_shards(staged):
            writer.finish_shard(shard, staged)
        return writer.finish()

    return make
