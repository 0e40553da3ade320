"""The reader of real faces: what it puts together, where it looks, and what it says of the truth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from df_data.stages.landmarks import BLENDSHAPES, Landmarks
from df_eval.clips import EvalClip
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.measure import GROUND_TRUTH, Truth, Video, measure
from df_eval.metrics import SPECS, metric_class
from df_eval.metrics.network_specs import NETWORK_METRICS
from df_eval.metrics.seen import Seen
from df_eval.reading import real
from df_eval.reading.readers import choose_reader
from df_eval.reading.real import RealFaceReader, face_boxes, read_landmarks
from df_eval.rows.codec import SOUND, VIDEO
from df_eval.rows.generation import Generated
from df_eval.rows.sync_codecs import AS_MEASURED, SPREAD
from df_eval.suite import STILL, Suite
from df_models.encoders.face.syncnet import SyncNet
from df_models.media import read_audio, read_video
from df_models.settings import Location

SIZE, FRAMES = 64, 70
SHAPE = np.random.default_rng(0).uniform(-0.4, 0.4, size=(478, 3))


def landmarks_of(frames_THWC: np.ndarray) -> Landmarks:
    """A face whose lower lip sinks as the frame gets brighter; a black frame has no face."""
    level = frames_THWC.mean(axis=(1, 2, 3)) / 255
    seen = level > 0
    points = np.repeat(SHAPE[None], len(level), axis=0)
    points[:, 14] = points[:, 13] + np.stack([0 * level, 0.3 * level, 0 * level], axis=1)
    points[~seen] = np.nan
    rotation = np.where(seen[:, None, None], np.eye(3), np.nan)
    shapes = np.where(seen[:, None], 0.1, np.nan) * np.ones(52)
    return Landmarks(points, rotation, np.where(seen, 50.0, np.nan), shapes, seen, BLENDSHAPES)


class Landmarker:
    id, sha256 = "fake", "f" * 64

    def landmarks(self, frames_THWC: np.ndarray) -> Landmarks:
        return landmarks_of(frames_THWC)


class Identity:
    id, sha256, width = "colour", "c" * 64, 3

    def frame_vectors(self, frames: np.ndarray, landmarks: Landmarks, chosen: np.ndarray) -> np.ndarray:
        return frames[chosen].mean(axis=(1, 2)).astype(np.float64)


class Levels(SyncNet):
    """Lips are told by how bright the face is, sound by how loud it is: five frames of it make a vector."""

    def __init__(self) -> None:
        self.id, self.sha256 = "levels", "1" * 64

    def lips(self, frames_THWC: np.ndarray) -> Tensor:
        return self._windows(frames_THWC[:, 80:140, 80:140].mean(axis=(1, 2, 3)) / 255)

    def audio(self, wave_N: np.ndarray) -> Tensor:
        return self._windows(np.abs(wave_N[: len(wave_N) // 640 * 640].reshape(-1, 640)).mean(axis=1))

    def _windows(self, level_T: np.ndarray) -> Tensor:
        windows = torch.from_numpy(np.lib.stride_tricks.sliding_window_view(level_T, 5).copy()).float()
        return torch.nn.functional.pad(windows, (0, 1024 - 5))


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> RealFaceReader:
    for name, network in (("_landmarker", Landmarker()), ("_identity", Identity()), ("_syncnet", Levels())):
        monkeypatch.setattr(real, name, lambda _, network=network: network)
    return RealFaceReader(ReadersConfig(), "liveportrait", None)


@pytest.fixture
def clip() -> EvalClip:
    level = np.random.default_rng(1).uniform(0.2, 0.9, size=FRAMES)
    frames = np.broadcast_to((level * 255)[:, None, None, None], (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    wave = np.repeat(level, 640).astype(np.float32)
    return EvalClip("clip", "someone", frames.copy(), wave, {})


def test_one_reading_is_put_together_from_several_networks(reader: RealFaceReader, clip: EvalClip) -> None:
    frames = clip.frames_THWC.copy()
    frames[7] = 0
    read = reader.read(frames)
    assert read is not None and reader.id == "fake (ffffffff) + colour (cccccccc) + levels (11111111)"
    assert read.presence_T.sum() == FRAMES - 1
    assert read.identity_TD is not None and read.seen_TD is not None and read.lips_TK2 is not None
    for values in (read.mouth_open_T, read.angles_TA, read.identity_TD, read.lips_TK2, read.eyes_T):
        assert values is not None and np.flatnonzero(~np.isfinite(values).reshape(FRAMES, -1).all(axis=1)).tolist() == [
            7
        ]
    assert read.identity_TD[3] == pytest.approx(frames[3].mean(axis=(0, 1)))
    assert np.isfinite(read.seen_TD[:-4]).all() and np.isnan(read.seen_TD[-4:]).all(), "the crop goes on over a gap"
    assert read.lips_TK2.shape == (FRAMES, 40, 2) and len(set(real.LIPS)) == 40
    assert np.corrcoef(np.delete(read.mouth_open_T, 7), np.delete(clip.wave_N[::640], 7))[0, 1] > 0.99
    only = set(reader.unavailable)
    no_file = {"face_quality", "theval_silent_lip", "theval_lip_sync", *(spec.name for spec in NETWORK_METRICS)}
    not_decoded = {"structure_lip_sync", "structure_lip_width", "structure_mouth"}
    assert only == not_decoded | no_file, "structure of LivePortrait is not decoded"


def test_a_video_without_a_face_is_measured_as_one_and_not_left_out(reader: RealFaceReader, clip: EvalClip) -> None:
    nobody = reader.read(np.zeros_like(clip.frames_THWC))
    assert nobody.identity_TD is not None and nobody.identity_TD.shape == (FRAMES, 3)
    person = np.zeros(3)
    truth = Truth(clip.frames_THWC, reader.truth(clip), person, person)
    measured = measure("generated", Video(clip.frames_THWC, nobody), truth, max_lag=5, shifts=(25,))
    for name in ("identity_ratio", "identity_person_ratio", "csim", "acd_reference"):
        assert not measured.pairs[name].defined and measured.pairs[name].note, name


def test_sync_is_found_where_it_is_and_not_with_sound_of_a_second_later(reader: RealFaceReader, clip: EvalClip) -> None:
    read, truth = reader.read(clip.frames_THWC), reader.truth(clip)
    published = Levels().compare(real_crop(clip.frames_THWC), clip.wave_N)
    seen = Seen(Video(clip.frames_THWC, read), Truth(clip.frames_THWC, truth, None))
    found = [pair.value for pair in seen.sync]
    assert found == pytest.approx([published.confidence, published.distance, published.offset], rel=1e-5)
    assert published.offset == 0
    late = reader.truth(EvalClip("late", "someone", clip.frames_THWC, np.roll(clip.wave_N, 25 * 640), {}))
    rolled = Seen(Video(clip.frames_THWC, read), Truth(clip.frames_THWC, late, None))
    assert rolled.sync[0].value < 0.5 * found[0] and rolled.sync[1].value > 2 * found[1]
    still = reader.read(np.repeat(clip.frames_THWC[:1], 13, axis=0))
    assert still is not None
    frozen = Seen(Video(clip.frames_THWC, still.repeated(FRAMES)), Truth(clip.frames_THWC, truth, None))
    assert frozen.sync[0].value < 0.5 * found[0], "a static face"


def test_sync_is_measured_again_behind_every_codec(reader: RealFaceReader, clip: EvalClip) -> None:
    def system(clips: Sequence[EvalClip], frames: int, progress: Callable[[int], object]) -> Iterator[Generated]:
        for each in clips:
            yield Generated(each.frames_THWC[:frames], np.zeros((frames, 0), np.float32))

    theirs: Any = SimpleNamespace(row="theirs", layout=None, make=system)
    config = EvalConfig(frames=(69,), resamples=100, videos=0, sync_codecs=True)
    clips = [replace(clip, key=f"{index}", identity=f"{index}") for index in range(2)]
    suite = Suite([theirs], reader, clips, config, quiet=True)
    results = suite.run([69])[69].table(0, 100)
    assert suite.sync_codecs is not None and suite.sync_codecs.missing == ""
    scores = suite.sync_codecs.scores(0, 100)
    assert set(scores) == {GROUND_TRUTH, "theirs"}
    for row, codecs in scores.items():
        assert set(codecs) == {AS_MEASURED, *VIDEO, *SOUND, SPREAD}
        assert codecs[AS_MEASURED]["sync_c"].value == pytest.approx(results[row]["sync_c"].value)
        assert all(codecs[codec]["sync_c"].value != results[row]["sync_c"].value for codec in (*VIDEO, *SOUND))
        assert codecs[SPREAD]["sync_c"].value > 0 and codecs[SPREAD]["sync_offset"].value == 0, "no codec moves it"


def test_no_image_is_read_twice(reader: RealFaceReader, clip: EvalClip, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(
        Landmarker, "landmarks", lambda _, frames: (looked.append(len(frames)), landmarks_of(frames))[1]
    )

    def theirs(clips: Sequence[EvalClip], frames: int, progress: Callable[[int], object]) -> Iterator[Generated]:
        for each in clips:
            yield Generated(each.frames_THWC[:frames], np.zeros((frames, 0), np.float32))

    system: Any = SimpleNamespace(row="theirs", layout=None, make=theirs)
    suite = Suite([system], reader, [clip], EvalConfig(frames=(33, 69), resamples=100, videos=0), quiet=True)
    tables = {frames: found.table(0, 100) for frames, found in suite.run([33, 69]).items()}
    assert looked == [FRAMES, STILL, 69], "the true clip, its still image, and the system's longest video"
    for frames, table in tables.items():
        assert table["theirs"]["lip_sync"].value == pytest.approx(1), frames
        assert table["theirs"]["ssim"].value == pytest.approx(1) and table["theirs"]["presence"].value == 1


def test_without_syncnet_codecs_are_unavailable_with_the_setting(
    monkeypatch: pytest.MonkeyPatch, clip: EvalClip
) -> None:
    monkeypatch.setattr(real, "_landmarker", lambda _: Landmarker())
    reader = RealFaceReader(ReadersConfig(), "liveportrait", None)
    suite = Suite([], reader, [clip], EvalConfig(frames=(69,), sync_codecs=True), quiet=True)
    suite.run([69])
    assert suite.sync_codecs is not None and "readers.syncnet=PATH" in suite.sync_codecs.missing
    assert suite.sync_codecs.pairs == {}


def real_crop(frames_THWC: np.ndarray) -> np.ndarray:
    from df_models.encoders.face.syncnet import crop_faces

    boxes = face_boxes(landmarks_of(frames_THWC), SIZE)
    assert boxes is not None
    return crop_faces(frames_THWC, boxes)


def test_the_truth_is_what_the_dataset_stores_if_this_landmarker_read_it(
    monkeypatch: pytest.MonkeyPatch, clip: EvalClip
) -> None:
    monkeypatch.setattr(real, "_landmarker", lambda _: Landmarker())
    stored = {"mouth_open": np.arange(float(FRAMES)), "blink": np.zeros(FRAMES)}
    held = EvalClip("held", "someone", clip.frames_THWC, clip.wave_N, stored)
    mine = RealFaceReader(ReadersConfig(), "liveportrait", None, stored_by=Landmarker.sha256)
    others = RealFaceReader(ReadersConfig(), "liveportrait", None, stored_by="0" * 64)
    assert mine.truth(held).mouth_open_T is stored["mouth_open"] and "when the dataset was built" in mine.truth_note
    assert mine.truth(held).lips_TK2 is not None and mine.truth(held).angles_TA is not None
    read = others.truth(held).mouth_open_T
    assert read is not None and read.max() < 10 and "dataset's true pixels" in others.truth_note
    assert "readers.identity=PATH" in mine.unavailable["csim"] and "readers.syncnet=PATH" in mine.unavailable["sync_c"]
    assert "lip_sync" not in mine.unavailable and "lmd" not in mine.unavailable


def test_a_face_that_is_gone_too_long_has_no_crop() -> None:
    frames = np.full((40, 8, 8, 3), 90, np.uint8)
    frames[5:29] = 0
    boxes = face_boxes(landmarks_of(frames), 8)
    assert boxes is not None and boxes.shape == (40, 4) and np.isfinite(boxes).all()
    assert (boxes[:, 0] < boxes[:, 2]).all() and np.ptp(boxes, axis=0).max() < 0.6
    frames[5:30] = 0
    assert face_boxes(landmarks_of(frames), 8) is None
    assert face_boxes(landmarks_of(frames * 0), 8) is None


def test_the_eyes_and_lips_are_where_the_face_has_them() -> None:
    frames = np.full((2, 8, 8, 3), 90, np.uint8)
    found = read_landmarks(landmarks_of(frames))
    left, right = SHAPE[[33, 133], :2].mean(axis=0), SHAPE[[263, 362], :2].mean(axis=0)
    assert found["eyes_T"] == pytest.approx(np.linalg.norm(left - right))
    assert found["lips_TK2"][0, 0] == pytest.approx(SHAPE[61, :2])


def folder(variable: str, fallback: str) -> Path:
    found = Path(os.environ.get(variable) or fallback).resolve()
    if not found.is_dir():
        pytest.skip(f"no real test data: set {variable} (no folder {found})")
    return found


def test_real_people_are_like_themselves_and_a_still_face_does_not_speak() -> None:
    pytest.importorskip("mediapipe")
    data, weights = folder("DF_TEST_DATA", "../shared/data"), folder("DF_TEST_WEIGHTS", "../shared/weights")
    files = ReadersConfig(
        landmarker=Location(weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
        identity=Location(f"mobilefacenet:{weights / 'mobilefacenet_foamliu.onnx'}"),
    )
    reader = choose_reader("liveportrait", files)
    clips = []
    for path in (data / "grid/s1/bbaf2n.mpg", sorted((data / "grid/others").glob("*.mpg"))[0]):
        frames = read_video(path)[0][15:45, :, 36:324]
        clips.append(EvalClip(path.stem, path.stem, np.ascontiguousarray(frames), read_audio(path)[9600:], {}))
    (mine, other), truths = [reader.read(clip.frames_THWC) for clip in clips], [reader.truth(clip) for clip in clips]
    assert mine is not None and other is not None and mine.identity_TD is not None
    truth = Truth(clips[0].frames_THWC, truths[0], mine.identity_TD[0])

    def value(name: str, readings: object) -> float:
        metric = metric_class(name)()
        metric.update([Seen(Video(clips[0].frames_THWC, readings), truth)], [0])  # type: ignore[arg-type]
        return float(metric.compute())

    still = mine.first(1).repeated(30)
    assert value("presence", mine) > 0.95
    assert value("csim", mine) > 0.7 and value("csim", other) < 0.4
    assert value("acd_mocogan", still) < 1e-6 and 0.05 < value("acd_mocogan", mine) < 1
    assert value("lip_sync", mine) == pytest.approx(1) and value("lip_sync", still) == 0
    assert 0 == value("lmd", mine) < value("lmd", still) < value("lmd", other)
    assert value("mouth_soft_dtw", mine) < 1e-9 and value("mouth_soft_dtw", still) > 0.1
    assert value("brow_corr", mine) == pytest.approx(1) and value("brow_corr", still) == 0
    assert value("gaze_distance", mine) == 0 < value("gaze_distance", still) and value("gaze_amplitude", still) < 1e-9
    assert 0 == value("expression_landmarks", mine) < value("expression_landmarks", still)
    assert value("expression_landmarks", still) < value("expression_landmarks", other)
    gaze, mirrored = (
        readings.gaze_T2
        for readings in (mine, reader.read(np.ascontiguousarray(clips[0].frames_THWC[:10, :, ::-1])))
        if readings is not None and readings.gaze_T2 is not None
    )
    away = gaze[:10, 0].mean()
    assert abs(away) > 0.01 and np.sign(mirrored[:, 0].mean()) == -np.sign(away)
    assert SPECS["sync_c"].name in reader.unavailable
