from __future__ import annotations

import numpy as np
import pytest

from df_data.synth.clip import SynthClip, make_clip
from df_models.errors import UserError


@pytest.fixture(scope="module")
def clip() -> SynthClip:
    return make_clip(11, 7, 33)


def test_every_truth_has_its_shape(clip: SynthClip) -> None:
    assert clip.frames.shape == (33, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert clip.wave.shape == (640 * 33,) and clip.wave.dtype == np.float32
    assert clip.structure.shape == (33, 70) and clip.flame.shape == (33, 159)
    assert clip.keypoints.shape == (33, 21, 3) and clip.landmarks2d.shape == (33, 21, 2)
    assert clip.mouth_boxes.shape == (33, 4)
    wanted = ["mouth_open", "lip_width", "lip_round", "jaw", "blink", "brow", "gaze_x", "gaze_y"]
    wanted += ["yaw", "pitch", "roll", "tx", "ty", "tz"]
    assert set(wanted) <= set(clip.truth)
    for name, track in clip.truth.items():
        assert track.shape == (33,) and np.isfinite(track).all(), name
    assert clip.phonemes[0][1] <= 0 or clip.phonemes[0][0] == "SIL"
    assert clip.phonemes[-1][2] >= 33 / 25 - 1e-6
    assert clip.split == "train" and clip.text


def test_same_seeds_same_clip_and_the_longer_begins_with_the_shorter(clip: SynthClip) -> None:
    again, longer = make_clip(11, 7, 33), make_clip(11, 7, 37)
    for other in (again, longer):
        assert np.array_equal(clip.frames, other.frames[:33])
        assert np.array_equal(clip.wave, other.wave[: 640 * 33])
        assert np.array_equal(clip.structure, other.structure[:33])
    assert clip.sentence_seed == longer.sentence_seed
    assert not np.array_equal(clip.frames, make_clip(12, 7, 33).frames)


def test_mouth_in_the_picture_follows_the_sound() -> None:
    clip = make_clip(2, 20, 129)
    energy = np.array(
        [np.log10(np.mean(clip.wave[max(0, 640 * t - 320) : 640 * t + 320] ** 2) + 1e-5) for t in range(129)]
    )
    r = [np.corrcoef(np.roll(energy, lag)[6:-6], clip.truth["mouth_open"][6:-6])[0, 1] for lag in range(-5, 6)]
    assert abs(int(np.argmax(r)) - 5) <= 1 and max(r) > 0.45
    boxes = clip.mouth_boxes.round().astype(int)
    inside = np.array([f[y0:y1, x0:x1].mean() for f, (x0, y0, x1, y1) in zip(clip.frames, boxes)])
    assert abs(np.corrcoef(inside, clip.truth["mouth_open"])[0, 1]) > 0.3


def test_the_split_is_the_identitys() -> None:
    assert make_clip(1, 1_000_000, 1).split == "val"
    assert make_clip(1, 999_999, 1, split="train").split == "train"
    with pytest.raises(UserError, match="not of the split 'val'"):
        make_clip(1, 5, 1, split="val")
    with pytest.raises(UserError, match="no split"):
        make_clip(1, 2_000_000, 1)
    with pytest.raises(UserError, match="at least one frame"):
        make_clip(1, 5, 0)
    with pytest.raises(UserError, match="one of train, val"):
        make_clip(1, 5, 1, split="test")  # type: ignore[arg-type]
    assert make_clip(1, 1_000_000, 1, split="train", in_both=True).split == "train"
