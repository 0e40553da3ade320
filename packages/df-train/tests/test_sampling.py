from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from df_data.format.sample import Sample
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_audio, read_image, read_video, write_video
from df_train import sampling
from df_train.config import TrainConfig
from df_train.preflight import preflight
from df_train.run import train
from df_train.sampling import generate, validation_clips, write_contact_sheet, write_example, write_samples

FRAMES, SIZE = 9, 16


@pytest.fixture(scope="module")
def model(tiny_model: dict[str, int]) -> DualForce:
    torch.manual_seed(0)
    return DualForce.from_preset("quickstart", **tiny_model)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A clip with audio, as shards keep it; frame i is grey of value 20 i."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.stack([np.full((SIZE, SIZE, 3), 20 * i, dtype=np.uint8) for i in range(FRAMES)])
    wave = np.sin(np.arange(640 * FRAMES) / 10).astype(np.float32) * 0.3
    write_video(path, frames, audio=wave, lossless=True)
    return path.read_bytes()


@pytest.fixture
def rollout(make_config: Callable[..., TrainConfig]) -> Any:
    return make_config(Path("run"), rollout={"steps": 2}).rollout


@pytest.fixture
def clips(dataset: Path, filmed: bytes, monkeypatch: pytest.MonkeyPatch) -> list[sampling.ValidationClip]:
    """The dataset's validation clips with a film each."""
    kept = sampling.iter_samples

    def with_film(directory: Path) -> list[Sample]:
        return [Sample(sample.meta, sample.tensors, filmed) for sample in kept(directory)]

    monkeypatch.setattr(sampling, "iter_samples", with_film)
    return validation_clips(dataset / "val", 2, 33, "concat")


def test_clips_are_of_different_people_and_no_longer_than_asked(dataset: Path):
    assert len(validation_clips(dataset / "val", 2, 33, "concat")) == 2
    assert len(validation_clips(dataset / "val", 9, 33, "concat")) == 3
    short = validation_clips(dataset / "val", 1, 5, "concat")[0]
    assert short.audio_TSD.shape == (2, 4, 128)
    assert short.frames_PHWC is None and short.wave is None


def test_further_clips_of_one_person_follow_when_people_run_out(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    kept = sampling.iter_samples

    def two_people(directory: Path) -> list[Sample]:
        samples = list(kept(directory))
        samples[1].meta.__dict__["identity"] = samples[0].meta.identity
        return samples

    keys = [sample.key for sample in kept(dataset / "val")]
    monkeypatch.setattr(sampling, "iter_samples", two_people)
    assert [clip.key for clip in validation_clips(dataset / "val", 9, 33, "concat")] == [keys[0], keys[2], keys[1]]


def test_what_is_written_can_be_watched_heard_and_compared(
    clips: list[sampling.ValidationClip], model: DualForce, rollout: Any, tmp_path: Path
):
    vae = random_tiny_vae()
    generated = generate(model, vae, clips, rollout, seed=0)
    assert [frames.shape for frames in generated] == [(FRAMES, SIZE, SIZE, 3)] * 2
    videos, sheet = write_samples(tmp_path / "samples", clips, generated, vae)
    assert [path.name for path in videos] == ["clip-0.mp4", "clip-1.mp4"]
    frames, fps = read_video(videos[0])
    assert (len(frames), fps) == (FRAMES, 25.0)
    assert np.abs(read_audio(videos[0])).max() > 0.1
    assert read_image(sheet).ndim == 3


def test_the_example_is_the_reference_image_and_the_audio(clips: list[sampling.ValidationClip], tmp_path: Path):
    example = write_example(tmp_path, clips[0])
    assert example is not None
    face, speech = example
    assert (read_image(face) == 0).all()
    assert len(read_audio(speech)) == 640 * FRAMES


def test_the_contact_sheet_shows_truth_and_generation_of_each_clip(tmp_path: Path):
    white, black = (np.full((FRAMES, SIZE, SIZE, 3), value, dtype=np.uint8) for value in (255, 0))
    write_contact_sheet(tmp_path / "one.png", [white], [black])
    write_contact_sheet(tmp_path / "two.png", [white, white], [black, black])
    one, two = read_image(tmp_path / "one.png"), read_image(tmp_path / "two.png")
    assert two.shape[0] > 1.7 * one.shape[0]
    assert (one[one.shape[0] * 3 // 4] == 0).mean() > 0.5


def test_an_empty_val_split_is_told_before_the_first_step(
    make_config: Callable[..., TrainConfig], dataset_at: Callable[..., Path], tmp_path: Path
):
    config = make_config(
        tmp_path / "run",
        data={"root": str(dataset_at(tmp_path / "data", val=0))},
        sample={"clips": 1},
        rollout={"steps": 1},
    )
    with pytest.raises(UserError, match=r"val holds no clip to generate samples of .* sample\.clips=0"):
        preflight(config)


def test_samples_come_during_and_after_training(
    make_config: Callable[..., TrainConfig], clips: list[sampling.ValidationClip], tmp_path: Path, monkeypatch: Any
):
    monkeypatch.setattr(sampling, "load_video_vae", lambda name: random_tiny_vae())
    monkeypatch.setattr("df_train.preflight.load_video_vae", lambda name: random_tiny_vae())
    config = make_config(
        tmp_path / "run",
        optim={"steps": 4, "warmup": 1},
        sample={"every": 2, "clips": 1},
        rollout={"steps": 1},
    )
    result = train(config)
    samples = config.directory / "samples"
    assert sorted(path.name for path in samples.iterdir()) == ["face.png", "speech.wav", "step-2", "step-4"]
    assert result.contact_sheet == samples / "step-4" / "contact_sheet.png"
    assert result.videos == [samples / "step-4" / "clip-0.mp4"]
    assert result.example == (samples / "face.png", samples / "speech.wav")
