"""THEval: known answers of constructed faces and sounds, its score's arithmetic, and what is told of it."""

from __future__ import annotations

import numpy as np
import pytest
from test_real_reader import FRAMES, SIZE, Landmarker, landmarks_of

from df_data.stages.voice import packaged_file
from df_eval.clips import EvalClip
from df_eval.config import ReadersConfig
from df_eval.measure import GENERATED, GROUND_TRUTH, SAME_VIDEO, SHIFTED, STATIC, Measured, Truth, Video, measure
from df_eval.metrics import Pair, metric_class, set_metric, theval
from df_eval.metrics.seen import Seen
from df_eval.metrics.theval import Column
from df_eval.reading import real, speech
from df_eval.reading.readers import SyntheticFaceReader
from df_eval.reading.readings import FaceReadings
from df_eval.reading.real import RealFaceReader, read_landmarks
from df_eval.reading.theval_points import LEFT_EYE, LOWER_LIP, RIGHT_EYE, UPPER_LIP, theval_measures
from df_eval.results import LengthResults
from df_models.settings import Location

SHAPE = np.random.default_rng(4).uniform(-0.4, 0.4, size=(478, 2))
BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
PUBLISHED_TRUTH = (4.6842, 23.835, 0.4425, 1.716603, 18.46757, 0.006777, 0.0263, 0.2528)
"""examples/gt_metrics.csv of THEval's repository."""
LIVEPORTRAIT = (0.9464, 0.9760, 0.8784, 0.9913, 0.7548, 0.9997, 0.9316, 0.9980)
"""Its normalised scores in the README's table, whose final score is 0.9345."""


def face(count: int, **moves: np.ndarray) -> np.ndarray:
    """Landmarks [T, 478, 2] of a face with level eyes 0.4 apart, level lips, and brows 0.1 above the eyes.

    Args:
        moves: how far the lower lip lies below the upper one (``gap``) and the left brow above its place (``brow``).
    """
    points = np.repeat(SHAPE[None], count, axis=0)
    for eye, x in ((LEFT_EYE, -0.2), (RIGHT_EYE, 0.2)):
        points[:, list(eye)] = (x, -0.1)
    points[:, list(BROW)] = (-0.2, -0.2)
    points[:, list(BROW), 1] -= moves.get("brow", np.zeros(count))[:, None]
    points[:, list(UPPER_LIP), 1] = 0.2
    points[:, list(LOWER_LIP), 1] = 0.2 + moves.get("gap", np.zeros(count))[:, None]
    return points


def gaps_of(gap_T: np.ndarray) -> np.ndarray:
    return theval_measures(face(len(gap_T), gap=gap_T))


def test_eyebrows_count_by_their_change_in_distances_of_the_eyes_wherever_the_face_is() -> None:
    brow = np.array([0.0, 0.04, 0.0, 0.0])
    points = face(4, brow=brow)
    # over eyes 0.4 apart, one brow goes 0.1 up and down in three changes, the other one stays
    assert theval.eyebrow_dynamics(theval_measures(points)).value == pytest.approx((0.1 + 0.1) / 3 / 2)
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    moved = 0.5 * points @ turn.T + np.linspace(0, 0.3, 4)[:, None, None]
    assert theval.eyebrow_dynamics(theval_measures(moved)).value == pytest.approx((0.1 + 0.1) / 3 / 2)


def test_lip_dynamics_are_in_pixels_of_256_and_grow_with_the_face() -> None:
    lips = np.zeros((4, 3, 2))
    lips[:, 2, 0] = (0.1, 0.3, 0.1, 0.3)  # two of the three pairs change by +-0.1 of 128 pixels
    found = theval.lip_dynamics(lips).value
    assert found == pytest.approx(2 / 3 * 0.1 * 128)
    assert theval.lip_dynamics(lips + 0.2).value == pytest.approx(found)
    assert theval.lip_dynamics(2 * lips).value == pytest.approx(2 * found)


def test_head_motion_adds_degrees_and_pixels() -> None:
    angles = np.stack([np.array([0.0, 3.0, 0.0, 3.0, 0.0])] * 3, axis=1)
    place = np.zeros((5, 2))
    turning = np.std([0, 3, 0, 3, 0]) * np.var([3, -3, 3, -3])
    assert theval.head_motion(angles, place).value == pytest.approx(np.sqrt(turning))
    place[:, 0] = (0, 4, 0, 4, 2)
    assert theval.head_motion(angles, place).value == pytest.approx(np.sqrt(turning + np.var([0, 4, 0, 4, 2]) / 2))
    steady = np.stack([np.arange(5.0)] * 3, axis=1)  # a head that turns evenly has no variance of changes
    assert theval.head_motion(steady, np.zeros((5, 2))).value == pytest.approx(0.0)
    frames = np.zeros((5, 40, 40, 3), np.uint8)
    measures = np.zeros((5, len(Column)))
    measures[:, Column.X] = place[:, 0] / 20  # half sides of an image of 40 pixels
    read = FaceReadings(np.ones(5, bool), angles_TA=angles, theval_TM=measures)
    metric = metric_class("theval_head_motion")()
    metric.update([Seen(Video(frames, read), Truth(frames, FaceReadings(np.ones(5, bool)), None))], [0])
    assert float(metric.compute()) == pytest.approx(np.sqrt(turning + np.var([0, 4, 0, 4, 2]) / 2))


def test_pauses_of_a_third_of_a_second_count_as_silence_and_shorter_ones_do_not() -> None:
    speech_T = np.ones(40, bool)
    speech_T[3:10] = False  # 0.28 s
    speech_T[20:28] = False  # 0.32 s
    assert np.flatnonzero(theval.silent_frames(speech_T)).tolist() == list(range(20, 28))
    assert theval.silent_frames(np.zeros(8, bool)).all() and not theval.silent_frames(np.zeros(7, bool)).any()


def test_silent_lips_are_measured_about_their_mean_in_silence_alone() -> None:
    gap = np.zeros(30)
    gap[10:18] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.04, 0.04, 0.08)
    gap[25] = 0.9  # spoken
    speech_T = np.ones(30, bool)
    speech_T[10:18] = False
    # mean 0.02: distances from it are 0.02 but for one, over outer corners 0.4 apart
    found = theval.silent_lip_stability(gaps_of(gap), speech_T)
    assert found.value == pytest.approx(0.02 / 0.4)
    small = theval_measures(0.5 * face(30, gap=gap) + 0.1)
    assert theval.silent_lip_stability(small, speech_T).value == pytest.approx(found.value)
    assert theval.silent_lip_stability(gaps_of(np.zeros(30)), speech_T).value == 0.0
    assert theval.silent_lip_stability(gaps_of(gap), np.ones(30, bool)).note == "no pause of 0.3 s"


def test_lip_sync_compares_shapes_of_opening_and_volume_during_speech() -> None:
    speech_T = np.arange(40) >= 10
    volume = np.abs(np.sin(np.arange(40)))
    assert theval.lip_sync(gaps_of(0.1 * volume), 7 * volume, speech_T).value == pytest.approx(0, abs=1e-6)
    loud_in_silence = np.where(speech_T, volume, 100.0)
    assert theval.lip_sync(gaps_of(0.1 * volume), loud_in_silence, speech_T).value == pytest.approx(0, abs=1e-6)
    spoken = volume[10:]
    scaled = (spoken - spoken.min()) / np.ptp(spoken)
    frozen = theval.lip_sync(gaps_of(np.full(40, 0.05)), volume, speech_T)
    assert frozen.value == pytest.approx(scaled.mean(), abs=1e-6), "a frozen mouth is 0 all the time"
    assert "too little speech" in theval.lip_sync(gaps_of(volume), volume, np.arange(40) < 3).note
    later = theval.shifted_lip_sync(gaps_of(0.1 * volume), volume, speech_T, (25,))
    assert later.note == "a shifted comparison needs clips of 50 frames"
    long = np.abs(np.sin(np.arange(70)))
    assert theval.shifted_lip_sync(gaps_of(0.1 * volume), long, np.ones(70, bool), (25, 30)).value > 0.2


def test_frames_without_a_face_are_left_out_and_a_video_without_one_is_undefined() -> None:
    rng = np.random.default_rng(0)
    points = face(30, gap=rng.uniform(0, 0.1, 30), brow=rng.uniform(0, 0.1, 30))
    speech_T, volume = np.arange(30) < 15, rng.uniform(size=30)
    places, angles = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))

    def all_of(seen: np.ndarray, kept: np.ndarray) -> list[Pair]:
        there = np.where(seen[:, None, None], points, np.nan)[kept]
        measures, sound = theval_measures(there), (volume[kept], speech_T[kept])
        return [
            theval.eyebrow_dynamics(measures),
            theval.lip_dynamics(there[:, :40]),
            theval.head_motion(np.where(seen[:, None], angles, np.nan)[kept], places[kept]),
            theval.lip_sync(measures, *sound),
            theval.silent_lip_stability(measures, sound[1]),
        ]

    seen = np.arange(30) % 7 != 3
    with_misses, without = all_of(seen, np.ones(30, bool)), all_of(seen, seen)
    assert [pair.value for pair in with_misses] == pytest.approx([pair.value for pair in without])
    for pair in all_of(np.zeros(30, bool), np.ones(30, bool)):
        assert not pair.defined and "face" in pair.note


def test_a_still_face_has_no_dynamics() -> None:
    points = face(30)
    assert theval.eyebrow_dynamics(theval_measures(points)).value == 0
    assert theval.lip_dynamics(points[:, :40]).value == pytest.approx(0, abs=1e-9)
    assert theval.head_motion(np.ones((30, 3)), np.ones((30, 2))).value == 0


def test_volume_is_the_root_mean_square_around_multiples_of_50_ms() -> None:
    wave = np.zeros(16000)
    wave[1200:2000] = 0.5  # the window around 0.1 s
    found = theval.volume(wave, 25)
    expected = np.interp(np.arange(25) / 25, [0.05, 0.1, 0.15], [0, 0.5, 0])
    assert found == pytest.approx(expected)
    assert len(theval.volume(wave[:9000], 25)) == 25


def test_stretches_of_speech_begin_end_and_are_widened_as_silero_s() -> None:
    windows = [0.1] * 4 + [0.9] * 10 + [0.4] * 2 + [0.9] + [0.1] * 5 + [0.7] * 3 + [0.1] * 9
    # 11 windows and the two in between are speech; the three alone are 0.1 s, too short
    assert speech.speech_stretches(windows, 34 * 512) == [(4 * 512 - 480, 17 * 512 + 480)]
    near = [0.9] * 10 + [0.1] * 4 + [0.9] * 10
    assert speech.speech_stretches(near, 24 * 512 - 100) == [(0, 24 * 512 - 100)], "a pause of three windows is none"
    apart = [0.9] * 10 + [0.1] * 5 + [0.9] * 10
    assert speech.speech_stretches(apart, 25 * 512) == [(0, 10 * 512 + 480), (15 * 512 - 480, 25 * 512)]
    assert speech.speech_stretches([0.4] * 50, 50 * 512) == []
    frames = speech.speech_frames([(4000, 12000)], 16000, 25)  # 0.25 and 0.75 s are 0.2 and 0.8 s
    assert np.flatnonzero(frames).tolist() == list(range(5, 21))


def test_a_score_is_one_less_the_relative_error_and_the_published_table_s_final_score_is_its_mean() -> None:
    truth = np.array(PUBLISHED_TRUTH)
    for sign in (-1, 1):
        method = truth * (1 + sign * (1 - np.array(LIVEPORTRAIT)))
        found = theval.closeness(method, truth)
        assert found == pytest.approx(LIVEPORTRAIT) and found.mean() == pytest.approx(0.9345, abs=5e-5)
    assert np.isnan(theval.closeness(np.array([1.0]), np.array([0.0]))).all()


def clips_of(rows: list[list[float]]) -> list[np.ndarray]:
    return [np.array([row]) for row in rows]


def test_the_score_is_of_the_means_over_the_set_and_not_the_mean_of_the_clips_scores() -> None:
    true = clips_of([[1.0, 2, 4, 1, 1], [3.0, 2, 4, 1, 1]])
    made = clips_of([[3.0, 1, 4, 1, 1], [1.0, 1, 4, 1, 1]])
    metric = set_metric("theval_part")
    metric.update(true, [0, 1], real=True)
    metric.update(made, [0, 1], real=False)
    assert metric.higher_is_better and float(metric.compute()) == pytest.approx((1 + 0.5 + 1 + 1 + 1) / 5)
    found = metric.score(people=["a", "b"])
    assert found.low is not None and found.high is not None and found.low < found.value < found.high <= 1
    assert found.reason.startswith("5 of THEval's 8, not its final score; without global aesthetic")


def test_parts_without_a_truth_are_left_out_and_named_and_one_that_only_the_truth_has_leaves_no_score() -> None:
    nan = np.nan
    true = clips_of([[1.0, 2, 0, nan, 1], [1.0, 2, 0, nan, 3]])
    made = clips_of([[1.0, 1, 5, 7, nan], [1.0, 1, 5, 7, 3]])
    metric = set_metric("theval_part")
    metric.update(true, [0, 1], real=True)
    metric.update(made, [0, 1], real=False)
    assert float(metric.compute()) == pytest.approx((1 + 0.5 + 1) / 3), "lip-sync by the clip that has it in both"
    assert "eyebrows (0 or undefined in the truth), silent lip (0" in metric.score().reason
    assert metric.score().reason.startswith("3 of THEval's 8")
    other = set_metric("theval_part")
    other.update(true, [0, 1], real=True)
    other.update(clips_of([[1.0, 1, 5, 7, nan]] * 2), [0, 1], real=False)
    found = other.score()
    assert found.value is None and found.reason.startswith("lip sync has a value in the truth and none where both")
    apart = set_metric("theval_part")  # where both have it, the truth's is 0
    apart.update(clips_of([[1.0, 2, 1, 0, 1], [1.0, 2, 1, 3, 1]]), [0, 1], real=True)
    apart.update(clips_of([[1.0, 1, 1, 7, 1], [1.0, 1, 1, nan, 1]]), [0, 1], real=False)
    found = apart.score()
    assert found.value is None and found.reason.startswith("silent lip has a value in the truth and none where both")


def test_the_score_s_row_of_a_table_is_made_of_the_clips_own_metrics() -> None:
    results = LengthResults(33, ["a", "b"], ["p", "q"])
    for row in results.rows:
        scale = {GROUND_TRUTH: 1.0, STATIC: 0.0}.get(row, 0.75)
        names = theval.PARTS[-1:] if row == SHIFTED else theval.PARTS
        results.measured[row] = [Measured({name: Pair(scale * (clip + 1)) for name in names}) for clip in range(2)]
    table = results.table(0, 100)
    assert table[GENERATED]["theval_part"].value == pytest.approx(0.75)
    assert table[STATIC]["theval_part"].value == pytest.approx(0.0)
    assert table[GROUND_TRUTH]["theval_part"].reason == "compared with itself"
    assert table[SHIFTED]["theval_part"].value is None and table[SHIFTED]["theval_part"].reason == SAME_VIDEO


class Loudness:
    """Stands in for Silero VAD: speech is what is loud."""

    id, sha256 = "loudness", "9" * 64

    def probabilities(self, wave_N: np.ndarray) -> np.ndarray:
        return np.abs(wave_N[: len(wave_N) // 512 * 512].reshape(-1, 512)).mean(axis=1)


def test_the_reader_of_real_faces_gives_its_signals_and_says_what_lacks_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_landmarker", lambda _: Landmarker())
    level = np.random.default_rng(1).integers(50, 230, size=FRAMES)
    frames = np.broadcast_to(level[:, None, None, None], (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    wave = np.where(np.arange(FRAMES * 640) > 30 * 640, 0.9, 0.01).astype(np.float32)
    clip = EvalClip("a", "p", frames, wave, {})
    bare = RealFaceReader(ReadersConfig(), "liveportrait", None)
    assert all("readers.vad=PATH" in bare.unavailable[name] for name in ("theval_silent_lip", "theval_lip_sync"))
    assert not {"theval_lip_dynamics", "theval_eyebrows", "theval_part"} & bare.unavailable.keys()
    files = ReadersConfig(vad=Location(packaged_file()))
    given = RealFaceReader(files, "liveportrait", None)
    assert "silero-vad" in given.id and "theval_lip_sync" not in given.unavailable
    monkeypatch.setattr(real, "_vad", lambda _: Loudness())
    reader = RealFaceReader(files, "liveportrait", None)
    read, signals = reader.read_true(clip, 60)
    assert np.flatnonzero(signals.speech_T)[0] in range(28, 32) and signals.speech_T[40:].all()
    truth = Truth(frames[:60], signals, None)
    pairs = measure(GROUND_TRUTH, Video(frames[:60], read), truth, max_lag=5, shifts=(25,)).pairs
    assert all(pairs[name].defined for name in theval.PARTS)
    assert pairs["theval_eyebrows"].value == 0 and pairs["theval_lip_dynamics"].value > 0
    monkeypatch.setattr(real, "_landmarker", lambda _: None)
    blind = RealFaceReader(files, "liveportrait", None).unavailable
    assert all("readers.landmarker" in blind[name] for name in (*theval.PARTS, "theval_part"))


def test_rendered_faces_have_none_and_say_why() -> None:
    reasons = SyntheticFaceReader.unavailable
    assert all("no landmarks" in reasons[name] for name in (*theval.PARTS, "theval_part"))


def test_measures_of_frames_without_a_face_are_not_read() -> None:
    frames = np.full((3, SIZE, SIZE, 3), 90, np.uint8)
    frames[1] = 0
    measures = read_landmarks(landmarks_of(frames))["theval_TM"]
    assert np.isnan(measures[1]).all() and np.isfinite(measures[[0, 2]]).all()
