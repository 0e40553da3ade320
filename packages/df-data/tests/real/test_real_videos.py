"""Real videos and models through the stages and a whole small build. Skipped where the data are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from df_data.build.build import BuildConfig, ClipConfig, build
from df_data.build.encode import mp4_frames
from df_data.format.manifest import read_manifest
from df_data.format.shards import iter_samples
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.stages.decode import decode_clip
from df_data.stages.faces import FaceFilter
from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.prepare import PreparedClip, StageConfig, StageModels
from df_data.stages.readings import TRUTH_NAMES
from df_data.stages.rejection import Rejected
from df_models.crop import CropRule, crop_resize, square_crop
from df_models.encoders import load_audio_encoder
from df_models.encoders.face.yunet import YuNet
from df_models.errors import UserError
from df_models.media import read_image
from df_models.settings import Location, load_config

GRID = StageConfig(size=64, faces=FaceFilter(min_face=64))

Prepare = Callable[[Path, StageConfig, StageModels], PreparedClip]


def test_a_grid_clip_comes_through(
    real_data: Path, detector: YuNet, reader: MediaPipeReader, prepare_clip: Prepare
) -> None:
    clip = prepare_clip(real_data / "grid/s1/bbaf2n.mpg", GRID, StageModels(detector, reader))
    assert clip.frames.shape == (73, 64, 64, 3) and clip.wave.shape == (73 * 640,)
    assert clip.structure.shape == (73, 70) and np.isfinite(clip.structure).all()
    assert clip.scores["landmark_rate"] >= 0.93 and clip.weight == 1.0
    mouth = clip.truth[:, TRUTH_NAMES.index("mouth_open")]
    speech = slice(23, 52)  # by its alignment: 0.95 s to 2.12 s
    assert mouth[speech].mean() > 2 * np.concatenate([mouth[:20], mouth[56:]]).mean()
    assert 0.04 < mouth.max() < 0.2
    centre = clip.mouth_boxes.reshape(-1, 2, 2).mean(axis=1)
    assert (np.abs(centre[:, 0] - 32) < 8).all() and (centre[:, 1] > 36).all()

    small = reader.read(clip.frames)
    assert small.detected.all()
    assert np.corrcoef(small.mouth_open, mouth)[0, 1] > 0.93


def test_a_blank_lead_in_is_cut_off(
    real_data: Path, detector: YuNet, reader: MediaPipeReader, prepare_clip: Prepare
) -> None:
    """The file's first 12 frames are grey."""
    clip = prepare_clip(real_data / "grid/s1/lgbf8n.mpg", GRID, StageModels(detector, reader))
    assert clip.start == 12 and len(clip.frames) == 61 and len(clip.wave) == 61 * 640


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_audio_track.mp4", "no_sound_track"),
        ("silent_audio_track.mp4", "silent_sound_track"),
        ("crowd_many_faces.mp4", "more_than_one_face"),
        ("cat_no_human_face.mp4", "no_face"),
        ("stage_with_shot_changes.mp4", "shot_cut"),
    ],
)
def test_odd_videos_are_refused_for_their_reason(
    real_data: Path, detector: YuNet, reader: MediaPipeReader, prepare_clip: Prepare, name: str, reason: str
) -> None:
    with pytest.raises(Rejected) as refused:
        prepare_clip(
            real_data / "odd" / name, GRID.model_copy(update={"max_seconds": 8.5}), StageModels(detector, reader)
        )
    assert refused.value.reason == reason


def test_portraits_have_one_face_and_two_people_two(real_data: Path, detector: YuNet) -> None:
    assert len(detector.detect(read_image(real_data / "odd/two_people.jpg"))) == 2
    for path in sorted((real_data / "faces").glob("*.jpg")):
        image = read_image(path)
        faces = detector.detect(image)
        assert len(faces) == 1, path.name
        crop = square_crop(faces[0].box, CropRule())
        again = detector.detect(crop_resize(image, crop, 256))
        assert len(again) == 1 and 0.65 < again[0].size / 256 < 0.9


def test_a_mirrored_face_turns_the_other_way(real_data: Path, detector: YuNet, reader: MediaPipeReader) -> None:
    image = read_image(real_data / "faces/facerec_obama.jpg")
    crop = crop_resize(image, square_crop(detector.detect(image)[0].box, CropRule()), 256)
    seen, mirrored = reader.read(crop[None]), reader.read(crop[None, :, ::-1])
    assert seen.yaw[0] == pytest.approx(-mirrored.yaw[0], abs=2.5)
    assert seen.roll[0] == pytest.approx(-mirrored.roll[0], abs=2.5)
    assert seen.pitch[0] == pytest.approx(mirrored.pitch[0], abs=2.5)


def small_build(real_data: Path, real_weights: Path, vae_folder: Path, out: Path) -> BuildConfig:
    return BuildConfig(
        out=str(out),
        sources=(
            SourceConfig(
                name="grid", folder=str(real_data / "grid/s1"), pattern="bba*n.mpg", identity="source",
                licence="CC-BY-4.0", alignments=str(real_data / "grid/align"), limit=2,
            ),
            SourceConfig(name="odd", folder=str(real_data / "odd"), pattern="no_*.mp4", licence="test"),
        ),
        split=SplitConfig(by="sentence", val=1, salt="b"),
        models={
            "face_detector": str(real_weights / "yunet_n_dynamic.onnx"),
            "face_landmarker": str(real_weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
        },  # type: ignore[arg-type]
        stages=GRID,
        clips=ClipConfig(frames=33, stride=20),
        video_vae=str(vae_folder),
        workers=1,
    )  # fmt: skip


def test_a_build_from_videos_to_shards(
    real_data: Path, real_weights: Path, vae_folder: Path, tmp_path: Path, reader: MediaPipeReader
) -> None:
    config = small_build(real_data, real_weights, vae_folder, tmp_path / "set")
    summary = build(config, progress=False)
    assert summary.counts == {"accepted": 2, "rejected": 1, "failed": 0}
    assert summary.reasons == {"no_sound_track": 1}
    assert summary.clips == {"train": 3, "val": 1}

    root = tmp_path / "set"
    train, val = list(iter_samples(root / "train")), list(iter_samples(root / "val"))
    assert {sample.meta.identity for sample in (*train, *val)} == {"grid"}
    assert [sample.meta.num_frames for sample in train] == [33, 33, 33] and val[0].meta.num_frames == 73
    assert val[0].tensors["video_latent"].shape == (19, 16, 8, 8)
    assert val[0].tensors["audio"].shape == (146, 64)
    assert val[0].meta.text is not None and len(val[0].meta.text.split()) == 6
    assert val[0].meta.encoders["structure"].id == "mediapipe" and val[0].meta.truth_names == TRUTH_NAMES
    assert val[0].video is not None and len(val[0].video) > 1000
    assert {s.meta.encoders["video_vae"].id for s in train} == {"random-vae"}
    manifest = read_manifest(root / "train")
    assert manifest.structure_statistics is not None
    assert (manifest.crop, manifest.height, manifest.width) == ("yunet:1.3:-0.03", 64, 64)
    assert mp4_frames(train[0].video or b"").shape == (33, 64, 64, 3)
    ledger = [json.loads(line) for line in (root / "ledger.jsonl").read_text().splitlines()]
    assert sorted(entry["status"] for entry in ledger) == ["accepted", "accepted", "rejected"]
    assert load_config(BuildConfig, root / "config.yaml") == config

    before = {path.name: path.read_bytes() for path in root.glob("*/shard-*")}
    again = build(config, progress=False)
    assert again.counts == summary.counts
    assert before == {path.name: path.read_bytes() for path in root.glob("*/shard-*")}
    with pytest.raises(UserError, match="another configuration"):
        build(config.model_copy(update={"clips": ClipConfig(frames=49)}), progress=False)


def test_a_long_video_is_taken_in_stretches(
    real_data: Path, real_weights: Path, vae_folder: Path, tmp_path: Path
) -> None:
    """A sentence in stretches of 1.4 s: each is cropped for itself, and images, audio and words keep their time."""
    config = small_build(real_data, real_weights, vae_folder, tmp_path / "set")
    faces = GRID.faces.model_copy(update={"min_seconds": 1.0})
    quality = GRID.quality.model_copy(update={"voice": GRID.quality.voice.model_copy(update={"min_share": 0.0})})
    stages = {"segment_seconds": 1.4, "min_seconds": 1.0, "faces": faces, "quality": quality}
    network = {"face_identity": Location(real_weights / "mobilefacenet_foamliu.onnx")}
    config = config.model_copy(
        update={
            "stages": GRID.model_copy(update=stages),
            "sources": config.sources[:1],
            "models": config.models.model_copy(update=network),
        }
    )
    assert build(config, progress=False).counts == {"accepted": 2, "rejected": 0, "failed": 0}
    samples = sorted(iter_samples(tmp_path / "set" / "train"), key=lambda sample: sample.key)
    starts = [sample.meta.provenance["start_s"] for sample in samples]
    name = samples[0].key.removesuffix("-0000")
    assert [sample.key for sample in samples] == [f"{name}-0000", f"{name}-s0001-0000"] and starts == [0.0, 1.4]
    whole = decode_clip(real_data / samples[0].meta.source.replace("grid/", "grid/s1/"))
    for sample, start in zip(samples, starts, strict=True):
        first = round(float(start) * 25)
        features = load_audio_encoder("logmel").encode(whole.wave[640 * first :], 33)
        inner = slice(2, -2)
        assert (sample.tensors["audio"].float()[inner] - features[inner]).abs().max() < 0.05
        assert sample.tensors["identity_vector"].norm() == pytest.approx(1.0, abs=1e-4)


def test_an_interrupted_build_goes_on_and_ends_the_same(
    real_data: Path, real_weights: Path, vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from df_data.build import workers

    whole = small_build(real_data, real_weights, vae_folder, tmp_path / "whole")
    build(whole, progress=False)
    cut = whole.model_copy(update={"out": Location(tmp_path / "cut")})
    process, seen = workers.WorkerModels.process, []

    def stop_at_second(self: workers.WorkerModels, made: object) -> workers.InputResult:
        seen.append(made)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return process(self, made)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(workers.WorkerModels, "process", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            build(cut, progress=False)
    assert not list((tmp_path / "cut" / "train").glob("shard-*"))  # what is held out is taken first
    build(cut, progress=False)
    for split in ("train", "val"):
        paths = sorted((tmp_path / "whole" / split).iterdir())
        assert [(p.name, p.read_bytes()) for p in paths] == [
            (p.name, p.read_bytes()) for p in sorted((tmp_path / "cut" / split).iterdir())
        ]


def test_missing_models_and_folders_are_named(tmp_path: Path, real_data: Path, real_weights: Path) -> None:
    config = small_build(real_data, real_weights, tmp_path, tmp_path / "out")
    gone = config.models.model_copy(update={"face_detector": Location(tmp_path / "gone.onnx")})
    with pytest.raises(UserError, match=r"gone\.onnx.*download"):
        build(config.model_copy(update={"models": gone}), progress=False)
    nowhere = config.sources[0].model_copy(update={"folder": Location(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="no folder"):
        build(config.model_copy(update={"sources": (nowhere,)}), progress=False)
