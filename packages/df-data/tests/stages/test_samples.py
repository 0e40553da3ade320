"""Samples judged for themselves: frozen runs and still lips, on images and tracks made by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from df_data.build.config import ClipConfig
from df_data.build.workers import WorkerModels
from df_data.stages.prepare import PreparedClip, StageConfig
from df_data.stages.quality import QualityFilter
from df_data.stages.rejection import Rejected
from df_data.stages.samples import lips_are_still, speech_frames
from df_data.stages.stillness import frozen_frames, still_runs
from df_data.synth.clip import make_clip
from df_models.crop import CropBox


def test_a_frozen_run_is_found_in_its_place_and_a_living_face_is_not() -> None:
    frames = make_clip(2, 2, 30, 256).frames
    assert not frozen_frames(frames).any()
    frozen = frames.copy()
    frozen[10:22] = frames[10]
    noise = np.random.default_rng(0).integers(-3, 4, frozen.shape)
    frozen = np.clip(frozen.astype(int) + noise, 0, 255).astype(np.uint8)  # of a codec, or a sensor
    assert np.flatnonzero(frozen_frames(frozen)).tolist() == list(range(10, 22))
    assert not frozen_frames(np.repeat(frames[:8], 4, axis=0)[:30]).any()  # a source of 6 fps
    assert frozen_frames(frames[:1]).tolist() == [False]


def test_a_key_frame_ends_no_run_and_a_change_does() -> None:
    change = np.full(20, 0.2)
    change[[6, 12]] = 1.5, 4.0
    assert np.flatnonzero(still_runs(change)).tolist() == list(range(21))
    change[12:15] = 4.0
    assert np.flatnonzero(still_runs(change)).tolist() == [*range(13), *range(15, 21)]
    change[[4, 9]] = 4.0
    assert not still_runs(change)[:13].any()


def clip(**changes: np.ndarray) -> PreparedClip:
    """60 frames whose mouth moves, with speech throughout."""
    truth = np.zeros((60, 7), np.float32)
    truth[:, 0] = 0.05 + 0.03 * np.sin(np.arange(60))
    given = {"frozen": np.zeros(60, bool), "speech": np.ones(60, bool), "truth": truth} | changes
    none = np.zeros((60, 1), np.float32)
    made = PreparedClip(
        none, np.zeros(60 * 640, np.float32), none, truth, none, np.zeros(60, bool), CropBox(0, 0, 1), 0, {}, ("noisy",)
    )
    return replace(made, **given)


def test_a_sample_is_refused_for_its_own_frozen_frames() -> None:
    frozen = np.zeros(60, bool)
    frozen[30:] = True
    whole, quality = clip(frozen=frozen), QualityFilter()
    assert whole.window(0, 33).judged(quality).faults == ("noisy",)
    for window in (whole.window(20, 33), whole.window(27, 33), whole):
        with pytest.raises(Rejected, match=r"frozen_picture: .* of the sample's images stand still"):
            window.judged(quality)


def test_lips_that_are_still_while_somebody_speaks_halve_their_sample_alone() -> None:
    whole, quality = clip(), QualityFilter()
    whole.truth[30:, 0] = 0.02
    assert whole.window(0, 29).judged(quality).faults == ("noisy",)
    still = whole.window(30, 29).judged(quality)
    assert still.faults == ("noisy", "still_lips") and still.weight == 0.25
    silent = replace(whole, speech=np.arange(60) < 40)
    assert silent.window(31, 29).judged(quality).faults == ("noisy",)
    assert not lips_are_still(whole.truth[30:, 0], np.ones(30, bool), None)


def test_frames_have_the_speech_of_their_middle() -> None:
    speech = np.array([0, 0, 1, 1, 0], bool)  # windows of 32 ms: 0.064 to 0.128 s
    assert speech_frames(speech, 4).tolist() == [False, False, True, False]


def test_a_build_keeps_what_is_good_of_a_stretch_and_counts_the_rest() -> None:
    worker: Any = object.__new__(WorkerModels)
    worker.config = SimpleNamespace(clips=ClipConfig(frames=17, stride=8), stages=StageConfig())
    made: Any = SimpleNamespace(key="talk", split="train")
    kept, left_out = worker._clips(made, clip(frozen=np.arange(60) >= 30), 1)
    assert [key for key, _ in kept] == ["talk-s0001-0000", "talk-s0001-0008", "talk-s0001-0016"] and left_out == 4
    with pytest.raises(Rejected, match="frozen_picture"):
        worker._clips(made, clip(frozen=np.ones(60, bool)), 0)


def test_a_held_out_stretch_gives_its_first_good_clip() -> None:
    worker: Any = object.__new__(WorkerModels)
    worker.config = SimpleNamespace(clips=ClipConfig(frames=17, stride=8, val_frames=33), stages=StageConfig())
    made: Any = SimpleNamespace(key="talk", split="val")
    for still, start, passed_over in ((0, 0, 0), (10, 8, 1), (22, 16, 2)):
        ((key, kept),), left_out = worker._clips(made, clip(frozen=np.arange(60) < still), 1)
        assert (key, kept.start, len(kept.frames), left_out) == ("talk-s0001", start, 33, passed_over)
    with pytest.raises(Rejected, match="frozen_picture"):
        worker._clips(made, clip(frozen=np.ones(60, bool)), 0)
