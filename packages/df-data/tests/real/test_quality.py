"""Sync, occlusion and identity on real clips: a few of GRID's, or all of them (slow)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from df_data.stages.decode import decode_clip
from df_data.stages.faces import FaceFilter, detect_faces, track_face
from df_data.stages.gaps import fill_gaps
from df_data.stages.identity import SAME_PERSON, FaceIdentity
from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.landmarks import Landmarks
from df_data.stages.measure import measure
from df_data.stages.occlusion import OcclusionFilter, face_confidences, hidden_share
from df_data.stages.prepare import PreparedClip, StageConfig, StageModels
from df_data.stages.quality import QualityFilter
from df_data.stages.readings import Readings, readings_of
from df_data.stages.rejection import Rejected
from df_data.stages.sync import FileSync, SyncFilter, check_sync, lag_curve, verdict
from df_data.synth.clip import make_clip
from df_models.crop import CropRule, crop_resize
from df_models.encoders.face.yunet import YuNet
from df_models.media import write_video
from df_models.time import samples_for

FACES = FaceFilter(min_face=64)
NEEDS_VOICE = pytest.mark.skipif(find_spec("silero_vad") is None, reason="the package silero-vad is not installed")

Prepare = Callable[[Path, StageConfig, StageModels], PreparedClip]


@dataclass(frozen=True)
class Clip:
    frames: np.ndarray
    wave: np.ndarray
    landmarks: Landmarks
    readings: Readings


def read_clip(path: Path, detector: YuNet, reader: MediaPipeReader) -> Clip:
    decoded = decode_clip(path, min_seconds=2, max_seconds=10)
    faces = detect_faces(decoded.frames, detector, FACES.detect_every)
    num, height, width = decoded.frames.shape[:3]
    track = track_face(faces, (num, height, width), FACES, CropRule())
    frames = crop_resize(decoded.frames[track.start : track.stop], track.crop, 256)
    landmarks = fill_gaps(reader.landmarks(frames), 2)
    wave = decoded.wave[samples_for(track.start) : samples_for(track.stop)]
    return Clip(frames, wave, landmarks, readings_of(landmarks))


@pytest.fixture(scope="module")
def clips(real_data: Path, detector: YuNet, reader: MediaPipeReader) -> list[Clip]:
    """Six clips of other speakers, then four of one speaker."""
    paths = (
        sorted((real_data / "grid/others").glob("*.mpg"))[:6] + sorted((real_data / "grid/s1").glob("*.mpg"))[:200:50]
    )
    return [read_clip(path, detector, reader) for path in paths]


def shifted(wave: np.ndarray, ms: int) -> np.ndarray:
    by = 16 * abs(ms)
    return np.pad(wave, (by, 0))[: len(wave)] if ms >= 0 else np.pad(wave[by:], (0, by))


def judged(clips: list[Clip], waves: list[np.ndarray]) -> tuple[str, float]:
    """What becomes of the last of one file's stretches, and the offset that the file is found to have, in ms."""
    filters, known, found = SyncFilter(), FileSync(), ("", 0.0)
    for clip, wave in zip(clips, waves, strict=True):
        curve = lag_curve(clip.readings, wave)
        assert curve is not None
        own, file = verdict(curve, 0.1), verdict(known.together("lips", curve), 0.1)
        known.add("lips", curve)
        try:
            found = "doubtful" if check_sync(own, file, filters, {}) else "good", 1000 * file.offset
        except Rejected as refused:
            found = refused.reason, 1000 * file.offset
    return found


def test_audio_and_lips_of_real_clips(clips: list[Clip]) -> None:
    """Of 3 s alone none is refused, whatever its audio; two stretches of one speaker know more than one."""
    alone = [judged([clip], [clip.wave])[0] for clip in clips]
    assert set(alone) <= {"good", "doubtful"} and alone.count("good") >= 9
    others = [judged([clip], [clips[index - 1].wave])[0] for index, clip in enumerate(clips)]
    assert set(others) <= {"good", "doubtful"} and others.count("good") < 6  # GRID's sentences have one rhythm
    same = clips[6:]
    assert judged(same, [clip.wave for clip in same])[0] == "good"
    for ms in (-500, 300):
        reason, offset = judged(same, [shifted(clip.wave, ms) for clip in same])
        assert reason == "sound_offset" and abs(offset - ms) <= 40


def test_audio_and_lips_of_rendered_heads_from_pixels(reader: MediaPipeReader) -> None:
    """The lips are read from the images, as in a build; the audio's shift is known exactly."""
    for seed in (0, 4):
        clip = make_clip(seed, seed, 75, 256)
        readings = readings_of(fill_gaps(reader.landmarks(clip.frames), 2))
        for ms in (-200, -100, 0, 100, 200):
            curve = lag_curve(readings, shifted(clip.wave, ms))
            assert curve is not None and abs(1000 * verdict(curve, 0.1).offset - ms) <= 41, (seed, ms)


def cover(frames: np.ndarray, place: str, colour: np.ndarray) -> np.ndarray:
    """Frames of 256 with a patch over the mouth (28 % of the face), one side (50 %) or the chin (4 %)."""
    y, x = np.mgrid[:256, :256]
    patch = {
        "mouth": ((x - 128) / 70) ** 2 + ((y - 182) / 42) ** 2 < 1,
        "side": (x < 128) & (y > 20) & (y < 245),
        "chin": ((x - 128) / 28) ** 2 + ((y - 225) / 22) ** 2 < 1,
    }[place]
    covered = frames.copy()
    covered[:, patch] = colour
    return covered


def test_a_hand_that_passes_is_seen_and_a_bare_face_is_not(clips: list[Clip], detector: YuNet) -> None:
    filters = OcclusionFilter()
    for clip in clips[::3]:
        num = len(clip.frames)
        skin = clip.frames[0, 150:170, 70:90].reshape(-1, 3).mean(axis=0).astype(np.uint8)
        half = slice(0, num // 2)
        shares = {"bare": hidden_share(face_confidences(clip.frames, detector, 3), filters)}
        for place, colour in (("mouth", np.array([40, 40, 40])), ("mouth", skin), ("side", skin), ("chin", skin)):
            frames = clip.frames.copy()
            frames[half] = cover(clip.frames[half], place, colour)
            shares[f"{place} {colour[0]}"] = hidden_share(face_confidences(frames, detector, 3), filters)
        for name, share in shares.items():
            assert share <= 0.04 if name.startswith(("bare", "chin")) else 0.44 <= share <= 0.56, shares


def test_a_face_half_covered_all_along_is_refused(clips: list[Clip], detector: YuNet) -> None:
    for clip in clips[::4]:
        covered = cover(clip.frames, "side", np.array([150, 180, 205]))
        assert hidden_share(face_confidences(covered, detector, 3), OcclusionFilter()) == 1


def test_people_are_told_apart(clips: list[Clip], real_weights: Path) -> None:
    network = FaceIdentity(real_weights / "mobilefacenet_foamliu.onnx")
    vectors = np.stack([network.clip_vector(clip.frames, clip.landmarks) for clip in clips])
    assert vectors.dtype == np.float32 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alike = vectors @ vectors.T
    same = np.equal.outer(people := np.array([0, 1, 2, 3, 4, 5, 6, 6, 6, 6]), people)
    assert alike[same].min() > 0.8 and alike[~same].max() < 0.4 < SAME_PERSON < 0.8


@NEEDS_VOICE
def test_all_scores_of_a_real_clip(clips: list[Clip], detector: YuNet) -> None:
    for clip in clips[::3]:
        found = measure(clip.frames, clip.wave, clip.readings, detector, QualityFilter())
        assert found.weight == 1.0, found.scores
        assert 0.3 < found.scores["speech_share"] < 0.7 and 0.4 < found.scores["longest_pause"] < 1.7
        assert 15 < found.scores["snr_db"] < 40 and found.scores["face_hidden"] == 0
        assert 0.3 < found.scores["brightness"] < 0.7 and abs(found.scores["mouth_sound_offset"]) <= 0.1


@NEEDS_VOICE
def test_audio_of_another_time_is_in_doubt_and_then_refused_by_its_reason(clips: list[Clip], detector: YuNet) -> None:
    """Alone 3 s of it are doubtful; the same file's next 3 s are refused, with all scores."""
    known = FileSync()
    first, then = (
        (clip.frames, shifted(clip.wave, 400), clip.readings, detector, QualityFilter(), None, known)
        for clip in clips[7:9]
    )
    assert measure(*first).faults == ("perhaps_out_of_sync",)
    with pytest.raises(Rejected) as refused:
        measure(*then)
    assert refused.value.reason == "sound_offset"
    assert refused.value.scores["mouth_sound_offset"] == pytest.approx(0.4, abs=0.04)
    assert {"snr_db", "face_hidden", "sharpness"} <= set(refused.value.scores)


def test_a_video_that_ends_at_the_lips_is_refused(
    real_data: Path, detector: YuNet, reader: MediaPipeReader, prepare_clip: Prepare, tmp_path: Path
) -> None:
    decoded = decode_clip(sorted((real_data / "grid/others").glob("*.mpg"))[0])
    face = detector.detect(decoded.frames[20])[0]
    lips = round(float(face.points[3:, 1].mean()) / 2) * 2
    config = StageConfig(size=64, faces=FACES.model_copy(update={"min_inside": 0.3}))
    write_video(tmp_path / "cut.mp4", decoded.frames[:51, :lips], audio=decoded.wave[: samples_for(51)])
    with pytest.raises(Rejected, match="face_cut_off: the lips are at the edge") as refused:
        prepare_clip(tmp_path / "cut.mp4", config, StageModels(detector, reader))
    assert refused.value.scores["lips_outside"] > 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
@NEEDS_VOICE
def test_every_grid_clip_comes_through(
    real_data: Path, detector: YuNet, reader: MediaPipeReader, prepare_clip: Prepare
) -> None:
    config = StageConfig(size=64, faces=FACES)
    weights = []
    for path in sorted((real_data / "grid").glob("*/*.mpg")):
        weights.append(prepare_clip(path, config, StageModels(detector, reader)).weight)
    assert len(weights) == 257 and np.mean(np.array(weights) == 1.0) > 0.9  # of 3 s some are in doubt
