"""Blur, brightness, still lips and yaw of known size, and the weight that follows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from df_data.stages.image import brightness, image_scores, sharpness
from df_data.stages.measure import measure
from df_data.stages.occlusion import OcclusionFilter, check_hidden, face_confidences, hidden_share
from df_data.stages.quality import QualityFilter, clip_weight, soft_faults
from df_data.stages.readings import TRUTH_NAMES, Readings
from df_data.stages.rejection import Rejected
from df_data.synth.clip import make_clip
from df_models.encoders.face.yunet import Face
from df_models.errors import UserError
from df_models.settings import validate_config

GOOD = {"sharpness": 50.0, "brightness": 0.5, "yaw_abs": 5.0, "mouth_std": 0.02, "snr_db": 25.0}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return make_clip(3, 3, 12, 128).frames


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    axis = np.arange(-12, 13)
    kernel = np.exp(-0.5 * np.square(axis / sigma))
    kernel /= kernel.sum()
    out = frames.astype(np.float64)
    for dim in (1, 2):
        out = np.apply_along_axis(lambda line: np.convolve(np.pad(line, 12, mode="edge"), kernel, "valid"), dim, out)
    return (out + 0.5).astype(np.uint8)


def constant_readings(num: int, **values: np.ndarray | float) -> Readings:
    tracks = {name: np.broadcast_to(np.asarray(values.get(name, 0.0), float), num).copy() for name in TRUTH_NAMES}
    return Readings(**tracks, detected=np.ones(num, bool))


def test_sharpness_falls_with_every_step_of_blur(frames: np.ndarray) -> None:
    found = [sharpness(frames), *(sharpness(blurred(frames[:2], sigma)) for sigma in (0.5, 1.0, 2.0, 4.0))]
    assert all(a > 1.3 * b for a, b in itertools.pairwise(found)), found


@pytest.mark.parametrize("gain", [0.1, 0.3, 0.6, 1.0])
def test_brightness_is_proportional_to_the_gain(frames: np.ndarray, gain: float) -> None:
    dimmed = (frames * gain + 0.5).astype(np.uint8)
    assert brightness(dimmed) == pytest.approx(gain * brightness(frames), abs=0.003)


def test_scores_are_the_readings_own_numbers(frames: np.ndarray) -> None:
    mouth = 0.05 * np.sin(np.arange(len(frames)))
    scores = image_scores(frames, constant_readings(len(frames), mouth_open=mouth, yaw=-50.0, blink=0.7))
    assert scores["mouth_std"] == pytest.approx(mouth.std())
    assert (scores["yaw_abs"], scores["blink_max"]) == (50.0, 0.7)


@pytest.mark.parametrize(
    ("name", "value", "off", "fault"),
    [
        ("sharpness", 3.0, "min_sharpness", "blurred"),
        ("brightness", 0.05, "min_brightness", "too_dark"),
        ("brightness", 0.95, "max_brightness", "too_bright"),
        ("yaw_abs", 46.0, "max_yaw", "head_turned"),
        ("mouth_std", 0.001, "min_mouth_std", "still_lips"),
        ("snr_db", 9.0, "noise", "noisy"),
    ],
)
def test_each_soft_fault_has_a_name_and_can_be_switched_off(name: str, value: float, off: str, fault: str) -> None:
    scores = GOOD | {name: value}
    assert soft_faults(GOOD, QualityFilter()) == ()
    assert soft_faults(scores, QualityFilter()) == (fault,)
    switched = validate_config(QualityFilter, {off: {"enabled": False} if off == "noise" else None})
    assert soft_faults(scores, switched) == ()


def test_each_soft_fault_halves_the_weight() -> None:
    both = soft_faults(GOOD | {"sharpness": 3.0, "yaw_abs": 46.0}, QualityFilter())
    assert both == ("blurred", "head_turned")
    assert [clip_weight(faults) for faults in ((), both[:1], both)] == [1.0, 0.5, 0.25]


def test_noise_without_voice_is_told() -> None:
    with pytest.raises(UserError, match="noise needs voice"):
        validate_config(QualityFilter, {"voice": {"enabled": False}})
    with pytest.raises(UserError, match=r"sync\.max_offset"):
        validate_config(QualityFilter, {"sync": {"max_ofset": 0.2}})


class Confident:
    """A detector that is as sure as the first pixel says."""

    id = "yunet"

    def detect(self, image_HWC: np.ndarray) -> list[Face]:
        level = float(image_HWC[0, 0, 0]) / 255
        return [Face(np.zeros(4), np.zeros((5, 2)), level)] if level else []


def test_hidden_frames_are_counted_against_the_clips_own_and_at_all() -> None:
    filters = OcclusionFilter()
    assert hidden_share(np.full(20, 0.95), filters) == 0
    assert hidden_share(np.array([0.95] * 15 + [0.93] * 5), filters) == 0.25
    assert hidden_share(np.full(20, 0.89), filters) == 1
    check_hidden({"face_hidden": 0.3}, filters)
    with pytest.raises(Rejected, match="face_hidden"):
        check_hidden({"face_hidden": 0.31}, filters)


def test_confidence_is_read_every_nth_frame_and_only_of_yunet() -> None:
    frames = np.zeros((7, 256, 256, 3), np.uint8)
    frames[:, 0, 0] = np.array([255, 9, 9, 0, 9, 9, 51])[:, None]
    assert face_confidences(frames, Confident(), 3).tolist() == [1.0, 0.0, 0.2]
    other = Confident()
    other.id = "retinaface"
    with pytest.raises(UserError, match=r"quality\.occlusion\.enabled=false"):
        face_confidences(frames, other, 3)


def test_what_is_switched_off_leaves_no_score(frames: np.ndarray) -> None:
    off = {"enabled": False}
    filters = validate_config(QualityFilter, {"voice": off, "noise": off, "sync": off, "occlusion": off, "frozen": off})
    readings = constant_readings(len(frames), mouth_open=np.arange(len(frames)) / 100)
    found = measure(frames, np.zeros(len(frames) * 640, np.float32), readings, Confident(), filters)
    assert set(found.scores) == {"sharpness", "brightness", "mouth_std", "yaw_abs", "blink_max"}
    assert found.weight == 1.0
