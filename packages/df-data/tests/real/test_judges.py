"""SyncNet with random weights and FSA-Net with its own, on real clips and rendered heads, through the pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.build.config import BuildConfig, ClipConfig, ModelPaths
from df_data.build.pool.messages import InputResult, MadeSample
from df_data.build.workers import WorkerModels
from df_data.format.sample import meta_from_json
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import Input, list_inputs
from df_data.stages import lip_sync
from df_data.stages.decode import decode_clip
from df_data.stages.faces import FaceFilter, detect_faces, track_face
from df_data.stages.head_pose import head_pose_disagreement
from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.prepare import StageConfig
from df_data.stages.quality import QualityFilter
from df_data.stages.readings import euler_degrees
from df_data.stages.sync import LAGS, LagCurve
from df_data.stages.sync_tracks import STEP_S
from df_data.synth.head.camera import rotation_matrix
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.render import render
from df_models.crop import CropRule, crop_resize
from df_models.encoders.face.head_pose import HeadPose, angle_between
from df_models.encoders.face.syncnet import SyncNetTowers
from df_models.encoders.face.yunet import YuNet
from df_models.errors import UserError
from df_models.files import sha256_file

FACES = FaceFilter(min_face=64, min_seconds=1.0)


@pytest.fixture(scope="module")
def pose_files(real_weights: Path) -> tuple[str, str]:
    return str(real_weights / "fsanet-1x1.onnx"), str(real_weights / "fsanet-var.onnx")


@pytest.fixture(scope="module")
def pose(pose_files: tuple[str, str]) -> HeadPose:
    pytest.importorskip("onnxruntime")
    return HeadPose(pose_files)


def test_both_poses_of_real_faces_agree(
    real_data: Path, detector: YuNet, reader: MediaPipeReader, pose: HeadPose
) -> None:
    paths = sorted((real_data / "grid/others").glob("*.mpg"))[:5]
    found, worse = [], []
    for path in paths:
        frames = decode_clip(path, min_seconds=1, max_seconds=10).frames[:41]
        track = track_face(detect_faces(frames, detector, 5), frames.shape[:3], FACES, CropRule())  # type: ignore[arg-type]
        every = np.linspace(0, 40, 9).astype(int)
        rotation = np.tile(np.eye(3), (41, 1, 1))
        rotation[every] = reader.landmarks(crop_resize(frames[every], track.crop, 256)).rotation
        found.append(head_pose_disagreement(frames, track.box_track(41), rotation, pose))
        mirrored = rotation * np.outer([-1, 1, 1], [-1, 1, 1])
        worse.append(head_pose_disagreement(frames, track.box_track(41), mirrored, pose))
    assert max(found) < 10 and np.median(found) < 6, found
    assert np.mean(worse) > np.mean(found), (found, worse)


def test_a_mirrored_face_turns_and_tilts_the_other_way(real_data: Path, detector: YuNet, pose: HeadPose) -> None:
    for path in sorted((real_data / "grid/others").glob("*.mpg"))[:4]:
        frame = decode_clip(path, min_seconds=1, max_seconds=10).frames[30]
        box = detector.detect(frame)[0].box
        flipped = np.array([frame.shape[1] - box[2], box[1], frame.shape[1] - box[0], box[3]])
        both = pose.rotations([frame, frame[:, ::-1]], np.stack([box, flipped]))
        assert angle_between(both[:1], both[1:] * np.outer([-1, 1, 1], [-1, 1, 1]))[0] < 6


def test_known_poses_are_read_with_their_signs(detector: YuNet, pose: HeadPose) -> None:
    """Rendered heads turned, lowered and tilted; the bounds are about twice what was measured."""
    turns = np.array([(y, p, r) for y in (-35, 0, 35) for p, r in ((-15, 0), (15, 0), (0, -20), (0, 20))], dtype=float)
    zero = np.zeros(len(turns))
    tracks = {field.name: zero for field in dataclasses.fields(FaceTracks)}
    tracks |= {"yaw": turns[:, 0], "pitch": turns[:, 1], "roll": turns[:, 2], "light_intensity": zero + 1}
    errors, read = [], []
    for person in (0, 3):
        frames = render(Identity.sample(person), FaceTracks(**tracks), 256).frames
        boxes = np.stack([detector.detect(frame)[0].box for frame in frames])
        found = pose.rotations(frames, boxes)
        truth = np.swapaxes(rotation_matrix(turns[:, 1], turns[:, 0], turns[:, 2]), -1, -2)
        errors.append(angle_between(found, truth))
        read.append(np.stack(euler_degrees(found), axis=1))
    assert np.median(errors) < 13
    pitch, yaw, roll = np.mean(read, axis=0).T
    assert (np.sign(yaw[turns[:, 0] != 0]) == np.sign(turns[turns[:, 0] != 0, 0])).all()
    ahead = turns[:, 0] == 0
    assert np.diff(pitch[ahead][:2]) > 15 and np.diff(roll[ahead][2:]) > 25


@pytest.fixture(scope="module")
def config(
    real_data: Path, real_weights: Path, pose_files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> BuildConfig:
    """A build of one GRID clip with both networks; SyncNet's weights are random ones of the true layout."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(SyncNetTowers().state_dict(), file)
    quality = QualityFilter.model_validate({"voice": {"enabled": False}, "noise": {"enabled": False}})
    grid = {"name": "grid", "folder": str(real_data / "grid/s1"), "pattern": "bba*.mpg", "licence": "CC-BY-4.0"}
    return BuildConfig(
        out=str(file.parent / "set"),
        sources=(SourceConfig.model_validate(grid),),
        split=SplitConfig(by="sentence", val=1),
        models=ModelPaths(
            face_detector=str(real_weights / "yunet_n_dynamic.onnx"),
            face_landmarker=str(real_weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
            syncnet=str(file),
            head_pose=pose_files,
        ),
        stages=StageConfig(
            size=64, faces=FACES, segment_seconds=1.7, max_seconds=1.0, min_seconds=1.0, quality=quality
        ),  # the first stretch alone
        clips=ClipConfig(frames=33, stride=40),
        video_vae="df-tiny",
        workers=1,
        device="cpu",
    )


@pytest.fixture(scope="module")
def models(config: BuildConfig) -> WorkerModels:
    pytest.importorskip("mediapipe", exc_type=ImportError)
    return WorkerModels(config)


def training_clip(config: BuildConfig) -> Input:
    return next(made for made in list_inputs(config.sources, config.split) if made.split == "train")


def test_both_networks_score_a_real_clip(config: BuildConfig, models: WorkerModels) -> None:
    made = training_clip(config)
    *samples, result = models.process(made)
    assert isinstance(result, InputResult) and result.status == "accepted", result
    scores = result.scores
    assert abs(scores["syncnet_offset"]) <= 0.6 and scores["syncnet_distance"] > 0
    assert 0 <= scores["syncnet_confidence"] < 3  # random weights are sure of nothing
    assert 0 < scores["head_pose_disagreement"] < 10 and "mouth_sound_offset" in scores
    assert isinstance(samples[0], MadeSample)
    meta = meta_from_json(samples[0].members[f"{samples[0].key}.json"], "the sample")
    assert meta.weight == 0.5 and meta.weight_lowered_by() == ("perhaps_out_of_sync",)
    assert scores["halved_perhaps_out_of_sync"] == len(samples)
    assert meta.encoders["sync"].id == "syncnet_v2" and meta.encoders["head_pose"].id == "fsanet"
    assert meta.encoders["sync"].sha256 == sha256_file(Path(str(config.models.syncnet)))
    assert {"lip sync", "head pose"} <= result.seconds.keys()


def test_a_clip_that_syncnet_finds_late_is_refused(
    config: BuildConfig, models: WorkerModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(lips_WD: torch.Tensor, audio_WD: torch.Tensor) -> LagCurve:
        assert lips_WD.shape == audio_WD.shape == (36, 1024)
        statistic = np.where(np.abs(LAGS * STEP_S - 0.4) < 0.01, 7.0, 0.0)
        return LagCurve(statistic, np.full(len(LAGS), 6.0), **lip_sync.WORTH)

    monkeypatch.setattr(lip_sync, "distance_curve", late)
    made = training_clip(config)
    *_, result = models.process(made)
    assert isinstance(result, InputResult) and (result.status, result.reason) == ("rejected", "sound_offset")
    assert result.detail == "the audio is 400 ms late for the lips"
    assert result.scores["syncnet_evidence"] < -2 and "head_pose_disagreement" in result.scores


def test_settings_that_do_not_fit_the_detector_are_refused_first(config: BuildConfig, real_weights: Path) -> None:
    other = f"retinaface:{real_weights / 'retinaface_mobilenet0.25_Final.pth'}"
    changed = config.model_copy(update={"models": config.models.model_copy(update={"face_detector": other})})
    with pytest.raises(UserError, match=r"face detector is retinaface.*set stages.crop=retinaface:1.3:-0.03"):
        WorkerModels(changed)
    stages = config.stages.model_copy(update={"crop": "retinaface:1.3:-0.03"})
    with pytest.raises(UserError, match="the occlusion stage reads YuNet's confidence"):
        WorkerModels(changed.model_copy(update={"stages": stages}))
