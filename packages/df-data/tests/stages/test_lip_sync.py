"""SyncNet's stage with a network made by hand, whose lips and audio carry a clock: sign, unit, crop, verdict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from df_data.build.config import BuildConfig
from df_data.stages.faces import FaceFilter, track_face
from df_data.stages.judges import Judged, Judges, load_judges
from df_data.stages.lip_sync import WORTH, lip_sync
from df_data.stages.measure import StageMeasures, measure
from df_data.stages.quality import QualityFilter
from df_data.stages.readings import Readings
from df_data.stages.rejection import Rejected
from df_data.stages.sync import LAGS, FileSync, LagCurve, SyncFilter, verdict
from df_data.stages.sync_tracks import STEP_S
from df_models.crop import CropRule
from df_models.encoders.face.syncnet import SyncNet, SyncNetTowers
from df_models.encoders.face.yunet import Face
from df_models.errors import UserError
from df_models.settings import Location, load_config

FRAMES = 75
SCALE = 10.0
"""Makes the clock's distances about as large as SyncNet's."""
CODE = np.random.default_rng(0).uniform(20, 230, FRAMES + 40).astype(np.uint8)
"""Grey value of every image's face and, over 255, level of the audio of its 40 ms; 20 frames more on either side."""


class Clock(SyncNet):
    """Embeds five frames as their five grey values, and 0.2 s of audio as its five levels, times ``SCALE``."""

    def __init__(self) -> None:
        self.crops: list[np.ndarray] = []

    def lips(self, frames_THWC: np.ndarray) -> Tensor:
        self.crops.append(frames_THWC)
        inner = frames_THWC[:, 80:140, 80:140].astype(np.float64).mean(axis=(1, 2, 3)) / 255
        return SCALE * torch.from_numpy(inner).float().unfold(0, 5, 1)

    def audio(self, wave_N: np.ndarray) -> Tensor:
        levels = np.abs(wave_N[: len(wave_N) // 640 * 640]).reshape(-1, 640).mean(axis=1)
        return SCALE * torch.from_numpy(levels).float().unfold(0, 5, 1)


def images() -> np.ndarray:
    """A grey face of 80 px that is the clock, on a darker ground."""
    frames = np.full((FRAMES, 160, 200, 3), 5, dtype=np.uint8)
    frames[:, 30:140, 40:160] = CODE[20:-20, None, None, None]
    return frames


BOXES = np.tile([60.0, 40.0, 130.0, 120.0], (FRAMES, 1))


def audio(late: int) -> np.ndarray:
    """The clock's audio, ``late`` frames after its images."""
    return np.repeat(CODE[20 - late :][:FRAMES] / 255, 640).astype(np.float32)


@pytest.mark.parametrize("late", [-8, -3, -1, 0, 1, 2, 3, 8])
def test_the_offset_is_in_seconds_and_positive_for_late_audio(late: int) -> None:
    network = Clock()
    scores, curve = lip_sync(images(), BOXES, audio(late), network)
    assert scores["syncnet_offset"] == pytest.approx(0.04 * late)
    assert scores["syncnet_confidence"] > 2 and 0 <= scores["syncnet_distance"] < 4
    assert network.crops[0].shape == (FRAMES - 1, 224, 224, 3)  # the protocol leaves the last window out
    assert curve is not None
    assert LAGS[curve.statistic.argmax()] * STEP_S == pytest.approx(0.04 * late, abs=0.021)
    assert curve.length == pytest.approx((FRAMES - 5) / 25)


def syncnet_curve(seconds: float, at_s: float | None, confidence: float = 7.0) -> LagCurve:
    """A curve with one peak, as SyncNet would give it."""
    statistic = np.zeros(len(LAGS))
    if at_s is not None:
        statistic[np.abs(LAGS * STEP_S - at_s) < 0.01] = confidence
    return LagCurve(statistic, np.maximum(seconds - np.abs(LAGS * STEP_S), 0), **WORTH)


def test_too_short_a_stretch_has_no_scores() -> None:
    assert lip_sync(images()[:34], BOXES[:34], audio(0)[: 34 * 640], Clock()) == ({}, None)
    assert lip_sync(images()[:35], BOXES[:35], audio(0)[: 35 * 640], Clock())[1] is not None


def quiet_filters() -> QualityFilter:
    """Only the two measures of the offset are on."""
    off = {"enabled": False}
    return QualityFilter.model_validate({"voice": off, "noise": off, "occlusion": off, "min_sharpness": None})


def readings(mouth_open: np.ndarray) -> Readings:
    zero = np.zeros(FRAMES)
    return Readings(mouth_open, zero, zero, zero, zero, zero, zero, np.ones(FRAMES, bool))


def made_of(opening: np.ndarray, late: int = 0) -> np.ndarray:
    """Audio as loud as the mouth is open, ``late`` frames after it."""
    rng = np.random.default_rng(3)
    level = np.repeat(np.roll(opening, late), 640)
    return (level * rng.standard_normal(level.size) * 0.2).astype(np.float32)


def opening(frames: int) -> np.ndarray:
    """A mouth that opens and closes at random."""
    return np.convolve(np.random.default_rng(3).random(frames + 10), np.ones(3) / 3, mode="same")[5:-5]


def lips(mouth_open: np.ndarray) -> Readings:
    """A mouth whose jaw goes with it."""
    zero = np.zeros(len(mouth_open))
    return Readings(mouth_open, zero, zero, mouth_open, zero, zero, zero, zero == 0)


def test_with_the_network_the_lips_own_measure_judges_no_more() -> None:
    """The same clip, by its lips a second apart from its audio: in sync, in doubt or apart by SyncNet's curve."""
    mouth = opening(150)
    frames = np.full((150, 64, 64, 3), 128, dtype=np.uint8)
    given = (frames, made_of(mouth, 25), lips(mouth), None, quiet_filters())
    with pytest.raises(Rejected, match=r"sound_offset: the audio is (9|10)[0-9]*0 ms late"):
        measure(*given)  # type: ignore[arg-type]
    score = {"syncnet_confidence": 7.0}
    together = measure(*given, Judged(score, syncnet_curve(6.0, 0.0), True))  # type: ignore[arg-type]
    assert together.weight == 1.0 and together.scores["mouth_sound_offset"] == pytest.approx(1.0, abs=0.05)
    assert score.items() <= together.scores.items() and together.scores["syncnet_evidence"] > 1.3
    unsure = measure(*given, Judged({}, syncnet_curve(6.0, 0.0, 2.5), True))  # type: ignore[arg-type]
    assert unsure.weight == 0.5 and unsure.faults == ("perhaps_out_of_sync",)
    with pytest.raises(Rejected, match="the audio is 400 ms early") as refused:
        measure(*given, Judged({}, syncnet_curve(6.0, -0.4), True))  # type: ignore[arg-type]
    assert {"mouth_sound_offset", "syncnet_evidence", "syncnet_file_evidence"} <= refused.value.scores.keys()


def test_the_network_too_refuses_nothing_by_a_short_stretch_alone() -> None:
    frames = np.full((FRAMES, 64, 64, 3), 128, dtype=np.uint8)
    mouth, known = opening(FRAMES), FileSync()

    def judge() -> StageMeasures:
        judged = Judged({}, syncnet_curve(3.0, 0.4), True)
        return measure(frames, made_of(mouth), lips(mouth), None, quiet_filters(), judged, known)  # type: ignore[arg-type]

    assert judge().faults == ("perhaps_out_of_sync",)
    with pytest.raises(Rejected, match="400 ms late"):
        judge()


def test_what_is_too_short_for_the_network_is_judged_by_the_lips() -> None:
    """As without the network; where that can tell nothing either, or is off, the weight is halved: never a pass."""
    frames = np.full((150, 64, 64, 3), 128, dtype=np.uint8)

    def judge(late: int, mouth: np.ndarray, filters: QualityFilter, asked: bool = True) -> StageMeasures:
        wave = made_of(opening(150), late)
        return measure(frames, wave, lips(mouth), None, filters, Judged(asked=asked))  # type: ignore[arg-type]

    filters = quiet_filters().model_copy(update={"min_mouth_std": None})
    assert judge(0, opening(150), filters).faults == ()
    with pytest.raises(Rejected, match="sound_offset"):
        judge(25, opening(150), filters)
    still = np.full(150, 0.1)
    assert judge(0, still, filters).faults == judge(0, still, filters, asked=False).faults == ("sync_not_measured",)
    unasked = filters.model_copy(update={"sync": SyncFilter(enabled=False)})
    assert judge(0, opening(150), unasked).faults == ("sync_not_measured",)
    assert judge(0, opening(150), unasked).weight == 0.5
    assert judge(0, opening(150), unasked, asked=False).faults == ()


def test_syncnets_worth_is_that_of_published_confidences() -> None:
    """Sync-C of 7 in 3 s is sure, of 3 is not; 1.5 over 10 s is what unrelated clips have."""
    said = [verdict(syncnet_curve(s, 0.0, c), 0.1).evidence for s, c in ((3.0, 7.0), (3.0, 2.5), (10.0, 0.5))]
    assert said[0] > 1.3 > said[1] and said[2] < 0


def test_a_pose_in_doubt_halves_the_weight() -> None:
    frames, wave = np.full((FRAMES, 64, 64, 3), 128, dtype=np.uint8), np.zeros(640 * FRAMES, np.float32)
    opening = np.sin(np.arange(FRAMES))
    for limit, weight in ((None, 1.0), (20.0, 0.5), (30.0, 1.0)):
        filters = quiet_filters().model_copy(update={"max_pose_disagreement": limit, "sync": SyncFilter(enabled=False)})
        judged = Judged({"head_pose_disagreement": 25.0})
        assert measure(frames, wave, readings(opening), None, filters, judged).weight == weight  # type: ignore[arg-type]


def test_boxes_move_evenly_between_detections() -> None:
    """Faces are looked for in every third frame; the first two looks and one in between see none."""
    boxes = [None, None, [0, 0, 60, 60], None, [12, 6, 72, 66], [15, 6, 75, 66]]
    faces = [[] if box is None else [Face(np.array(box, float), np.zeros((5, 2)), 0.9)] for box in boxes]
    filters = FaceFilter(min_face=10, min_seconds=0.1, min_presence=0.5, min_inside=0.5)
    track = track_face(faces, (18, 200, 200), filters, CropRule())
    assert (track.start, track.stop, track.at.tolist()) == (6, 18, [0, 6, 9])
    found = track.box_track(12)
    assert found[[0, 3, 6, 9, 11], 0].tolist() == [0, 6, 12, 15, 15] and found[1].tolist() == [2, 1, 62, 61]


def test_wrong_paths_are_told_before_anything_begins(tmp_path) -> None:
    assert load_judges(None, None, "cpu") == Judges() and Judges().models() == {}
    with pytest.raises(UserError, match=r"syncnet_v2: there is no .*gone.model; fetch syncnet_v2.model"):
        load_judges(Location(tmp_path / "gone.model"), None, "cpu")
    with pytest.raises(UserError, match=r"syncnet_v2: there is no .*/a/b.model; fetch"):
        load_judges(Location("a/b.model"), None, "cpu")  # never taken for a repository of the Hub
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.model")
    with pytest.raises(UserError, match="is not syncnet_v2's checkpoint"):
        load_judges(Location(tmp_path / "other.model"), None, "cpu")
    torch.save(SyncNetTowers().state_dict(), tmp_path / "syncnet_v2.model")
    models = load_judges(Location(tmp_path / "syncnet_v2.model"), None, "cpu").models()
    assert list(models) == ["sync"] and models["sync"].id == "syncnet_v2"
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=r"the head pose network is missing: no file .*x.onnx"):
        load_judges(None, (Location("x.onnx"), Location("y.onnx")), "cpu")


def test_a_limit_on_the_pose_needs_the_network(tmp_path) -> None:
    (tmp_path / "build.yaml").write_text(
        "out: o\nsources: [{name: s, folder: f, licence: x}]\nstages: {quality: {max_pose_disagreement: 20}}\n"
    )
    with pytest.raises(UserError, match=r"max_pose_disagreement needs models.head_pose"):
        load_config(BuildConfig, tmp_path / "build.yaml")
    found = load_config(BuildConfig, tmp_path / "build.yaml", ["models.head_pose=[a.onnx,b.onnx]"])
    assert found.models.head_pose == ("a.onnx", "b.onnx")
