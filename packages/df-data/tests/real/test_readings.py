"""Landmarks to measures and structure, on point clouds with known pose, size and mouth; and gaps, windows, hold-out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import list_inputs
from df_data.sources.words import read_words
from df_data.stages.faces import FaceFilter, track_face
from df_data.stages.gaps import fill_gaps, longest_gap
from df_data.stages.landmarker import camera_rotation
from df_data.stages.landmarks import BLENDSHAPES, Landmarks
from df_data.stages.prepare import clip_windows
from df_data.stages.quality import QualityFilter, audio_scores, check_audio, sharpness
from df_data.stages.readings import (
    CHIN,
    FOREHEAD,
    KEYPOINTS,
    LOWER_LIP,
    RIGID,
    TEMPLES,
    UPPER_LIP,
    head_frame,
    keypoints_of,
    mouth_boxes,
    readings_of,
    structure_vectors,
)
from df_data.stages.rejection import Rejected
from df_data.synth.head.keypoints import KEYPOINTS as SYNTHETIC_KEYPOINTS
from df_data.synth.head.structure import keypoints_from_structure
from df_models.crop import CropRule
from df_models.encoders.face.yunet import Face
from df_models.errors import UserError
from df_models.settings import expand_path
from df_models.structure import LIVEPORTRAIT_70

FRAMES = 30


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    x, y, z = np.radians([pitch, yaw, roll])
    rot_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    rot_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rot_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rot_z @ rot_y @ rot_x


def talking_head(seed: int = 0) -> tuple[Landmarks, dict[str, np.ndarray]]:
    """A random rigid head with a moving lower lip under a known pose, size and place."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform(-0.4, 0.4, (478, 3))
    rest -= rest[list(RIGID)].mean(axis=0)
    rest[FOREHEAD], rest[CHIN] = (0, -0.5, 0.1), (0, 0.5, 0.1)
    rest[LOWER_LIP] = rest[UPPER_LIP] = (0, 0.3, -0.1)
    rest[list(RIGID)] -= rest[list(RIGID)].mean(axis=0)
    gap = np.clip(0.1 * np.sin(np.arange(FRAMES) / 2), 0, None)
    pose = np.stack([8 * np.sin(np.arange(FRAMES) / p) for p in (5, 6, 7)], axis=1)
    size = 1.2 + 0.1 * np.sin(np.arange(FRAMES) / 9)
    place = np.stack([0.1 * np.sin(np.arange(FRAMES) / 8), 0.05 * np.cos(np.arange(FRAMES) / 8)], axis=1)
    head = np.repeat(rest[None], FRAMES, axis=0)
    head[:, LOWER_LIP, 1] += gap
    turns = np.stack([rotation(*angles) for angles in pose])
    points = size[:, None, None] * head @ turns.swapaxes(1, 2)
    points[..., :2] += place[:, None]
    landmarks = Landmarks(
        points, turns, np.full(FRAMES, 34.0), rng.uniform(0, 1, (FRAMES, 52)), np.ones(FRAMES, bool), BLENDSHAPES
    )
    height = np.linalg.norm(rest[FOREHEAD] - rest[CHIN])
    return landmarks, {"gap": gap / height, "pose": pose, "size": size * height, "place": place}


def test_pose_size_and_mouth_come_out_as_they_went_in() -> None:
    landmarks, truth = talking_head()
    readings = readings_of(landmarks)
    assert np.allclose(readings.mouth_open, truth["gap"], atol=1e-9)
    found = np.stack([readings.pitch, readings.yaw, readings.roll], axis=1)
    assert np.allclose(found, truth["pose"], atol=1e-9)
    head = head_frame(landmarks.points, landmarks.rotation)
    assert np.allclose(head.height, truth["size"])
    assert np.allclose(head.centre[:, :2], truth["place"], atol=1e-9)


def test_structure_obeys_liveportraits_equation() -> None:
    landmarks, _ = talking_head()
    vectors = structure_vectors(landmarks)
    assert vectors.shape == (FRAMES, LIVEPORTRAIT_70.dim) and vectors.dtype == np.float32
    neutral = keypoints_of(head_frame(landmarks.points, landmarks.rotation).neutral)
    rebuilt = keypoints_from_structure(vectors, neutral)
    assert np.allclose(rebuilt[..., :2], keypoints_of(landmarks.points)[..., :2], atol=1e-5)
    still = vectors[:, LIVEPORTRAIT_70.slice("expression")].reshape(FRAMES, 21, 3)
    moving = [i for i, name in enumerate(KEYPOINTS) if name == "lower_lip_inner"]
    assert np.abs(np.delete(still, moving, axis=1)).max() < 1e-6 < np.abs(still[:, moving]).max()


def test_noise_of_one_matrix_does_not_reach_the_expression() -> None:
    landmarks, truth = talking_head()
    landmarks.rotation[7] = rotation(20, -15, 9) @ landmarks.rotation[7]
    assert np.allclose(readings_of(landmarks).mouth_open, truth["gap"], atol=1e-6)


def test_keypoints_are_the_synthetic_corpus_ones_in_its_order() -> None:
    names = [
        "lower_lids" if group == ("lower_lid_left", "lower_lid_right") else group[0] for group in SYNTHETIC_KEYPOINTS
    ]
    assert names == list(KEYPOINTS)


def test_a_matrix_of_mediapipe_turns_into_the_cameras_axes() -> None:
    """MediaPipe: y up, z to the viewer. A nose that points down there must give a positive pitch here."""
    down = np.eye(4)
    down[:3, :3] = rotation(10, 0, 0)  # about x, y up and z to the viewer: the nose (0, 0, 1) goes to y < 0
    assert (down[:3, :3] @ [0, 0, 1])[1] < 0
    landmarks, _ = talking_head()
    landmarks.rotation[:] = camera_rotation(down)
    assert np.allclose(readings_of(landmarks).pitch, 10)


def test_frames_without_a_face_stay_nan() -> None:
    landmarks, truth = talking_head()
    landmarks.detected[3] = False
    landmarks.points[3] = np.nan
    readings = readings_of(landmarks)
    assert np.isnan(readings.mouth_open[3]) and np.isnan(readings.yaw[3])
    assert np.allclose(np.delete(readings.mouth_open, 3), np.delete(truth["gap"], 3), atol=1e-9)
    landmarks.detected[:] = False
    assert np.isnan(readings_of(landmarks).table()).all()


def test_short_gaps_are_filled_and_long_ones_refused() -> None:
    landmarks, truth = talking_head()
    for index in (0, 10, 11):
        landmarks.detected[index] = False
        landmarks.points[index] = landmarks.rotation[index] = landmarks.blendshapes[index] = np.nan
    filled = fill_gaps(landmarks, max_gap=2)
    assert filled.detected.all() and np.isfinite(structure_vectors(filled)).all()
    assert np.abs(readings_of(filled).yaw - truth["pose"][:, 1]).max() < 2.5
    assert np.allclose(filled.points[0], landmarks.points[1])
    assert longest_gap(landmarks.detected) == 2
    landmarks.detected[12] = False
    with pytest.raises(Rejected) as refused:
        fill_gaps(landmarks, max_gap=2)
    assert refused.value.reason == "landmarks_missing" and refused.value.scores["landmark_gap"] == 3


def test_mouth_boxes_surround_the_lips() -> None:
    landmarks, _ = talking_head()
    boxes = mouth_boxes(landmarks.points, 64)
    lip = (landmarks.points[:, 61, :2] + 1) * 32
    assert boxes.shape == (FRAMES, 4)
    assert (boxes[:, :2] <= lip + 1e-3).all() and (lip - 1e-3 <= boxes[:, 2:]).all()
    assert boxes.min() >= 0 and boxes.max() <= 64


def test_temples_and_forehead_do_not_move_with_speech() -> None:
    assert not {UPPER_LIP, LOWER_LIP, CHIN} & set(RIGID)
    assert {FOREHEAD, *TEMPLES} <= set(RIGID)


def test_windows_cover_the_clip_to_its_end() -> None:
    assert clip_windows(73, 33, 20) == [0, 20, 40]
    assert clip_windows(61, 33, 20) == [0, 20, 28]
    assert clip_windows(33, 33, 20) == [0]
    assert clip_windows(29, 33, 20) == []


def face(x: float, size: float = 100.0) -> Face:
    return Face(np.array([x, 50, x + 0.8 * size, 50 + size]), np.zeros((5, 2)), 0.9)


@pytest.mark.parametrize(
    ("faces", "reason"),
    [
        ([[]] * 25, "no_face"),
        ([[face(100), face(250, 60)]] * 25, "more_than_one_face"),
        ([[face(100, 40)]] * 25, "face_too_small"),
        ([[face(100)]] * 6 + [[]] * 19, "too_short"),
        ([[face(100)], []] * 13, "no_face"),
        ([[face(100)]] * 20 + [[face(230)]] * 5, "face_moves_away"),
        ([[face(-60)]] * 25, "face_cut_off"),
    ],
)
def test_each_wrong_face_has_its_reason(faces: list[list[Face]], reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        track_face(faces, (75, 288, 400), FaceFilter(min_face=64), CropRule())
    assert refused.value.reason == reason


def test_a_small_second_face_and_a_blank_lead_in_are_no_reason() -> None:
    faces = [[]] * 4 + [[face(100), face(300, 20)]] * 21
    track = track_face(faces, (75, 288, 400), FaceFilter(min_face=64), CropRule())
    assert (track.start, track.stop) == (12, 75)
    assert track.scores["face_presence"] == 1.0


def test_silence_and_missing_audio_are_refused() -> None:
    with pytest.raises(Rejected) as silent:
        check_audio(audio_scores(np.zeros(16_000, np.float32), 1.0), QualityFilter())
    with pytest.raises(Rejected) as short:
        check_audio(audio_scores(np.full(16_000, 0.1, np.float32), 0.5), QualityFilter())
    assert (silent.value.reason, short.value.reason) == ("silent_sound_track", "sound_too_short")
    assert audio_scores(np.full(100, 0.1), 1.0)["sound_db"] == pytest.approx(-20)


def test_sharpness_falls_with_blur() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3)).astype(np.uint8)
    blurred = ((frames[:, :-1].astype(int) + frames[:, 1:]) // 2).astype(np.uint8)
    assert sharpness(blurred) < 0.7 * sharpness(frames)


def test_paths_take_variables_with_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_SOME_FOLDER", "/set")
    assert expand_path("${DF_SOME_FOLDER:-else}/a") == Path("/set/a")
    monkeypatch.delenv("DF_SOME_FOLDER")
    assert expand_path("${DF_SOME_FOLDER:-../else}/a") == Path("../else/a")
    with pytest.raises(UserError, match="DF_SOME_FOLDER is not set"):
        expand_path("${DF_SOME_FOLDER}/a")


def test_hold_out_is_reproducible_and_by_what_was_asked(tmp_path: Path) -> None:
    for person in ("p1", "p2", "p3"):
        (tmp_path / person).mkdir()
        for number in range(4):
            (tmp_path / person / f"{number}.mpg").touch()
    source = SourceConfig(name="x", folder=str(tmp_path), pattern="*/*.mpg", identity="folder", licence="CC0-1.0")
    by_file = list_inputs((source,), SplitConfig(by="sentence", val=3))
    assert sum(made.split == "val" for made in by_file) == 3
    assert by_file == list_inputs((source,), SplitConfig(by="sentence", val=3))
    by_person = list_inputs((source,), SplitConfig(by="identity", val=1))
    persons = {split: {m.identity for m in by_person if m.split == split} for split in ("train", "val")}
    assert len(persons["val"]) == 1 and not persons["val"] & persons["train"]
    assert len({made.key for made in by_person}) == 12 and by_person[0].key == "x-p1_0"


def test_word_times_are_seconds_without_silences(tmp_path: Path) -> None:
    path = tmp_path / "a.align"
    path.write_text("0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 74500 sil\n")
    assert read_words(path) == [("bin", 0.95, 1.18), ("blue", 1.18, 1.36)]
    path.write_text("bin 1 2\n")
    with pytest.raises(UserError, match="not a GRID alignment"):
        read_words(path)
