"""Every encoder through a whole build of a real clip: random weights of the true layouts, real ones where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from df_data.build.build import build, workers
from df_data.build.config import BuildConfig
from df_data.check.inspect.gallery import write_gallery
from df_data.check.stats import describe
from df_data.check.validate import check_dataset
from df_data.format.manifest import read_manifest
from df_data.format.sample import Sample
from df_data.format.shards import iter_samples
from df_data.reading import ShardReader
from df_data.stages.agreement import AgreementFilter
from df_data.stages.face_vectors import FaceEncoders
from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.prepare import PreparedClip, StageModels, prepare_clips
from df_models.encoders import encoder_names
from df_models.encoders.face.face_detectors import load_face_detector
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.structure import FLAME_159, LIVEPORTRAIT_70, VectorLayout

PROMPT = "a person is talking"
SCORES = [
    f"{pair}_{what}"
    for pair in ("flame_mediapipe", "liveportrait_flame", "liveportrait_mediapipe")
    for what in ("head_deg", "mouth")
]


class MovingFace:
    """Vectors that move from frame to frame, in place of a network that takes a second for each."""

    licence = "none"

    def __init__(self, name: str, layout: VectorLayout, size: int) -> None:
        self.id, self.sha256, self.layout, self.size = name, f"hash of {name}", layout, size
        self.crop_scale, self.crop_offset_y, self.given = 2.0, 0.0, 0

    def encode(self, faces_BCHW: Tensor) -> Tensor:
        assert faces_BCHW.shape[1:] == (3, self.size, self.size) and 0.05 < faces_BCHW.mean() < 0.95
        generator = torch.Generator().manual_seed(self.given)
        self.given += len(faces_BCHW)
        vectors = 0.1 * torch.randn(len(faces_BCHW), self.layout.dim, generator=generator)
        vectors[:, -1] = 1.0
        return vectors

    def to(self, device: object = None, dtype: object = None) -> MovingFace:
        return self


def with_encoders(config: BuildConfig, folder: Path, **more: object) -> BuildConfig:
    specs = {
        "video_vae": f"wan:{folder / 'wan'}",
        "audio_encoder": f"hubert-large:{folder / 'hubert-large'}",
        "reference_encoder": f"dinov2-base:{folder / 'dinov2-base'}",
        "text": {"text_encoder": f"umt5-xxl:{folder / 'umt5-xxl'}", "prompt": PROMPT},
    }
    return BuildConfig.model_validate(config.model_dump() | specs | more)


@pytest.fixture
def small_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "load_motion_extractor", lambda spec: MovingFace("liveportrait", LIVEPORTRAIT_70, 256))
    monkeypatch.setattr(workers, "load_flame_encoder", lambda spec: MovingFace("deca", FLAME_159, 224))


def check(root: Path) -> Sample:
    """Check a whole dataset with every tensor, and return a sample to train on."""
    report = check_dataset(root)
    assert report.problems == () and report.clips == 3
    samples = list(iter_samples(root / "train"))
    tensors = samples[0].tensors
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "video_latent": (4, 16, 8, 8),
        "structure": (13, 70),
        "flame": (13, 159),
        "audio": (26, tensors["audio"].shape[1]),
        "reference_latents": (2, 16, 8, 8),
        "reference_frames": (2,),
        "reference_features": (2, 257, tensors["reference_features"].shape[2]),
        "mouth_boxes": (13, 4),
        "truth": (13, 7),
        "text_features": tuple(tensors["text_features"].shape),
    }
    manifest = read_manifest(root / "train")
    roles = {
        "video_vae",
        "audio",
        "reference",
        "structure",
        "flame",
        "text",
        "face_detector",
        "face_landmarker",
        "voice",
    }
    assert set(manifest.encoders) == roles and samples[0].meta.encoders == manifest.encoders
    assert manifest.encoders["face_landmarker"].id == "mediapipe"
    assert manifest.structure_statistics is not None
    stored = torch.cat([sample.tensors["structure"] for sample in samples]).double().numpy()
    assert np.allclose(manifest.structure_statistics.mean, stored.mean(axis=0), atol=1e-6)
    assert np.allclose(manifest.structure_statistics.std, stored.std(axis=0), atol=1e-6)
    assert samples[0].meta.prompt == PROMPT
    return samples[0]


@pytest.mark.usefixtures("small_faces")
def test_all_encoders_in_one_build(grid_build: BuildConfig, checkpoints: Path) -> None:
    config = with_encoders(
        grid_build, checkpoints, structure="liveportrait", flame="deca:somewhere", batch={"faces": 7}
    )
    assert build(config, progress=False).counts == {"accepted": 2, "rejected": 0, "failed": 0}
    root = Path(config.out)
    sample = check(root)
    ids = {role: record.id for role, record in sample.meta.encoders.items()}
    assert ids["video_vae"] == "wan" and ids["structure"] == "liveportrait" and ids["flame"] == "deca"
    assert sample.meta.encoders["text"].sha256 == sha256_file(
        checkpoints / "umt5-xxl" / "text_encoder" / "model.safetensors"
    )
    assert sample.tensors["text_features"].shape == (len(PROMPT) + 2, 24)

    assert [name for name in sorted(sample.meta.scores) if name in SCORES] == SCORES
    assert sample.meta.scores["liveportrait_flame_head_deg"] > 1, "noise does not agree with noise"
    told = "\n".join(describe(root))
    page = write_gallery(root).read_text()
    ledger = [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]
    for name in SCORES:
        assert name in told and name in page and all(name in entry["scores"] for entry in ledger)
    assert "face vectors" in ledger[0]["seconds"]

    batch = next(iter(ShardReader(root / "train", batch_size=1, seed=0, audio_pool="mean")))
    assert batch.video.shape == (1, 4, 16, 8, 8) and batch.structure.shape == (1, 4, 4, 70)
    assert batch.flame is not None and batch.flame.shape == (1, 4, 4, 159)
    assert batch.text is not None and batch.text.shape == (1, len(PROMPT) + 2, 24)


def test_readers_that_disagree_halve_the_weight_where_a_limit_is_set(grid_build: BuildConfig) -> None:
    detector = load_face_detector(grid_build.models.face_detector)
    path = Path(grid_build.sources[0].folder) / "bbaf2n.mpg"
    clips = []
    with MediaPipeReader(grid_build.models.face_landmarker) as reader:
        for limit in (None, 0.01):
            stages = grid_build.stages.model_copy(update={"agreement": AgreementFilter(max_head_deg=limit)})
            faces = FaceEncoders(flame=MovingFace("deca", FLAME_159, 224))
            clips += prepare_clips(path, stages, StageModels(detector, reader, encoders=faces))
    assert [isinstance(clip, PreparedClip) for clip in clips] == [True, True]
    assert clips[1].weight == clips[0].weight / 2 > 0
    assert clips[0].flame.shape == (33, 159) and clips[0].scores["flame_mediapipe_head_deg"] > 0.01
    later = clips[0].window(8, 5)
    assert np.array_equal(later.flame, clips[0].flame[8:13]), "a window has its own frames' vectors"


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"structure": "liveportrait:nowhere/else/x.pth"}, "liveportrait"),
        ({"flame": "emoca:nowhere/else/x.ckpt"}, "emoca"),
        ({"video_vae": "wan:nowhere/else/vae"}, "wan"),
        ({"audio_encoder": "hubert-large:nowhere/else/hubert"}, "hubert-large"),
        ({"reference_encoder": "dinov2-base:nowhere/else/dino"}, "dinov2-base"),
        ({"text": {"text_encoder": "umt5-xxl:nowhere/else/umt5"}}, "umt5-xxl"),
    ],
)
def test_a_location_without_weights_is_one_line_and_nothing_is_written(
    grid_build: BuildConfig, setting: dict[str, object], name: str
) -> None:
    config = BuildConfig.model_validate(grid_build.model_dump() | setting)
    with pytest.raises(UserError, match=rf"{name}: there is no nowhere.*; ") as caught:
        build(config, progress=False)
    assert "\n" not in str(caught.value)
    assert not list(Path(config.out).glob("*/*"))


@pytest.mark.slow
def test_the_face_encoders_at_full_size(
    grid_build: BuildConfig, checkpoints: Path, face_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LivePortrait's and DECA's own layouts, named by a variable and by a path, in workers of their own."""
    monkeypatch.setenv("FACES", str(face_checkpoints))
    named = {"structure": "liveportrait:${FACES}", "flame": f"deca:{face_checkpoints / 'deca_model.tar'}"}
    config = with_encoders(grid_build, checkpoints, workers=2, **named)
    assert build(config, progress=False).counts == {"accepted": 2, "rejected": 0, "failed": 0}
    sample = check(Path(config.out))
    assert sample.meta.encoders["structure"].sha256 == sha256_file(face_checkpoints / "motion_extractor.pth")
    assert sample.meta.encoders["flame"].sha256 == sha256_file(face_checkpoints / "deca_model.tar")
    assert sample.tensors["structure"].std(dim=0).min() > 0, "every frame has its own"
    assert sample.tensors["flame"].std(dim=0).min() > 0


@pytest.mark.slow
def test_real_weights_by_path(grid_build: BuildConfig) -> None:
    """With ``$DF_WEIGHTS``, a folder with the published models by name: LivePortrait, and DECA or EMOCA if there."""
    folder = Path(os.environ.get("DF_WEIGHTS") or "/nonexistent")
    if not list(folder.glob("liveportrait*")):
        pytest.skip("no real weights: set DF_WEIGHTS to a folder with liveportrait (and deca or emoca)")
    flame = next((name for name in encoder_names("flame") if list(folder.glob(f"{name}*"))), None)
    config = grid_build.model_copy(update={"structure": "liveportrait", "flame": flame})
    build(config, progress=False)
    scores = next(iter(iter_samples(Path(config.out) / "train"))).meta.scores
    assert scores["liveportrait_mediapipe_head_deg"] < 5 and scores["liveportrait_mediapipe_mouth"] > 0.5
    assert flame is None or scores["liveportrait_flame_head_deg"] < 5
