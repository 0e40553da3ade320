"""A long generation, measured in windows: what it finds, and that nothing of it is held."""

from __future__ import annotations

import itertools
import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fabricated import SHIFTS, image, outcome_of
from tiny import ROLLOUT, DarkBarReader, tiny_clips, tiny_pipeline

from df_eval import drift as drift_module
from df_eval.clips import EvalClip
from df_eval.config import DriftConfig, EvalConfig
from df_eval.drift import Drift, add_drift_of_clip, generate_drift, no_drift_yet, stream_frames
from df_eval.drift_sets import READINGS, SET_TITLES, STEP, Extractors, WindowSets, distances_of
from df_eval.measure import GENERATED, GROUND_TRUTH, ROWS, SHIFTED, STATIC, Truth, Video
from df_eval.metrics import Pair, SetDistance
from df_eval.reading.readings import FaceReadings
from df_eval.reading.windows import window_ends, windows_of
from df_eval.reports.output import write_outcome
from df_eval.rows.generation import audio_slots, generate_clips
from df_eval.rows.long_speech import LongSpeech
from df_eval.rows.systems import RunSystem
from df_eval.suite import Suite
from df_infer.pipeline import Pipeline
from df_models.errors import UserError
from df_models.settings import load_config
from df_models.time import latent_length

WINDOW = 33


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    torch.set_num_threads(1)
    return tiny_pipeline()


@pytest.fixture(scope="module")
def clips() -> list[EvalClip]:
    return tiny_clips(3, 62)


def test_windows_end_where_asked_then_at_every_doubling() -> None:
    at = (33, 129, 257, 513)
    assert window_ends(129, 33, at) == [33, 129]
    assert window_ends(601, 33, at) == [33, 129, 257, 513, 601]
    ends = window_ends(250_001, 33, at)
    assert ends[:6] == [33, 129, 257, 513, 1025, 2049] and ends[-1] == 250_001 and len(ends) == 13


@pytest.mark.parametrize("ends", [[33, 129, 257], [33, 45, 60], [257]])
def test_windows_are_the_frames_that_came(ends: list[int]) -> None:
    video = np.random.default_rng(0).integers(0, 256, (2, 257, 4, 4, 3)).astype(np.uint8)
    cuts = [0, 1, *range(5, 258, 4)]
    found = dict(windows_of((video[:, a:b] for a, b in itertools.pairwise(cuts)), WINDOW, ends))
    assert list(found) == ends
    for end, window in found.items():
        np.testing.assert_array_equal(window, video[:, end - WINDOW : end])


class Counted(np.ndarray):
    """An image array that is counted for as long as it lives."""

    live, most = 0, 0

    def __array_finalize__(self, obj: object) -> None:
        Counted.live += 1
        Counted.most = max(Counted.most, Counted.live)
        weakref.finalize(self, Counted.gone)

    @staticmethod
    def gone() -> None:
        Counted.live -= 1


def fake_run() -> RunSystem:
    """A run of which only the names are asked."""
    model = SimpleNamespace(config=SimpleNamespace(one_level_frames=0))
    pipeline = SimpleNamespace(model=model, video_vae=SimpleNamespace(sha256=""))
    return RunSystem(GENERATED, pipeline, ROLLOUT, EvalConfig())  # type: ignore[arg-type]


def truths_of(clips: list[EvalClip]) -> list[Truth]:
    signals = [DarkBarReader().truth(clip) for clip in clips]
    return [Truth(clip.frames_THWC, s, np.ones(4)) for clip, s in zip(clips, signals, strict=True)]


def long_drift(
    clips: list[EvalClip],
    frames: int,
    monkeypatch: pytest.MonkeyPatch,
    fading: float = 0.0,
    extractors: Extractors | None = None,
    at: tuple[int, ...] = (33, 129, 257, 513),
) -> Drift:
    """A constructed generation whose mouth follows the speech less and less."""
    speech = LongSpeech(clips)
    mouths = [clip.truth["mouth_open"] for clip in clips]
    random = np.random.default_rng(0)

    def stream(system: RunSystem, speech_: LongSpeech, batch: list[int], count: int, seed: int, progress: object):
        for start in range(0, count, 4):
            stop = min(start + 4, count)
            piece = np.zeros((len(batch), stop - start, 16, 16, 3), np.uint8).view(Counted)
            for row, which in enumerate(batch):
                mouth = speech.signal(mouths, which, start, stop)
                level = 128 - 30 * (mouth + fading * start / count * random.normal(size=len(mouth)))
                piece[row, :, 10:13, 5:11] = np.clip(level, 0, 255)[:, None, None, None]
            yield piece

    monkeypatch.setattr(drift_module, "stream_frames", stream)
    config = EvalConfig(shifts=SHIFTS, batch_size=2, drift=DriftConfig(frames=frames, at=at))
    systems, truths, seen = [fake_run()], truths_of(clips), extractors or {}
    drift = no_drift_yet(systems, clips, config, DarkBarReader(), seen)
    for index, clip in enumerate(clips):
        own = {GROUND_TRUTH: Video(clip.frames_THWC, DarkBarReader().read(clip.frames_THWC))}
        own[STATIC] = Video(clip.frames_THWC[:1].repeat(62, axis=0), own[GROUND_TRUTH].readings)
        add_drift_of_clip(drift, systems, index, truths[index], own, seen)
    generate_drift(drift, systems, clips, truths, DarkBarReader(), config, seen, quiet=True)
    return drift


def test_what_is_held_does_not_grow_with_the_length(clips: list[EvalClip], monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    for frames in (1025, 16_385):
        Counted.live = Counted.most = 0
        drift = long_drift(clips, frames, monkeypatch)
        assert Counted.live == 0 and drift.ends[-1] == frames
        most.append(Counted.most)
    assert most[0] == most[1] < 3 * WINDOW, "a window of single frames, a piece, and views of them"


def test_drift_is_found_with_intervals_over_the_clips(clips: list[EvalClip], monkeypatch: pytest.MonkeyPatch) -> None:
    drift = long_drift(clips, 513, monkeypatch, fading=3.0)
    lips = drift.scores(GENERATED, "lip_sync", 0, 200)
    assert list(lips) == [33, 129, 257, 513]
    values = [score.value for score in lips.values()]
    assert values[0] > 0.95 and values[-1] < values[0] - 0.3
    assert all(score.n == 3 and score.low <= score.value <= score.high for score in lips.values())
    shifted = drift.scores(SHIFTED, "lip_sync", 0, 200)
    assert list(shifted) == list(lips) and all(abs(score.value) < 0.5 for score in shifted.values())
    own = drift.scores(GROUND_TRUTH, "lip_sync", 0, 200)
    assert list(own) == [33] and own[33].value > 0.95, "as far as the clips go"
    assert "62 frames" in drift.missing[GROUND_TRUTH]


def test_the_distance_of_distributions_is_from_the_same_true_windows_at_all_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = tiny_clips(6, 62)
    drift = long_drift(many, 513, monkeypatch, fading=3.0, at=(33, 61))
    found = {row: drift.scores(row, READINGS, 0, 100) for row in (GROUND_TRUTH, GENERATED, STATIC)}
    values = [score.value for score in found[GENERATED].values()]
    assert list(found[GENERATED]) == drift.ends and values[-1] > 2 * values[0] > 0
    assert all(s.n == 6 and s.low <= s.value <= s.high and "biased" in s.reason for s in found[GENERATED].values())
    assert list(found[GROUND_TRUTH]) == [61], "its first windows are what all are compared with"
    assert found[GROUND_TRUTH][61].value < values[-1]
    assert len({score.value for score in found[STATIC].values()}) == 1, "a still image does not change with time"
    direct = SetDistance(READINGS)
    reader = DarkBarReader()
    windows = [(clip.frames_THWC[:33], clip.frames_THWC[28:61]) for clip in many]
    for real, place in ((True, 0), (False, 1)):
        direct.update([reader.read(pair[place]).table() for pair in windows], list(range(6)), real=real)
    assert found[GROUND_TRUTH][61].value == pytest.approx(float(direct.compute()), rel=1e-4)
    short = long_drift(many, 513, monkeypatch, at=(129,))
    assert short.scores(GENERATED, READINGS, 0, 100) == {}
    short.tell_missing()
    assert "no true clip has a window that ends after 129" in short.missing[SET_TITLES[READINGS]]


def test_fvd_takes_the_place_of_readings_where_its_network_is_given(
    clips: list[EvalClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def i3d(frames_THWC: np.ndarray) -> np.ndarray:
        seen.append(len(frames_THWC))
        return np.stack([frames_THWC[part].mean(axis=0).reshape(-1)[:40] for part in (slice(16), slice(-16, None))])

    drift = long_drift(clips, 257, monkeypatch, extractors={"i3d": i3d})
    told = drift.to_json(0, 100)["metrics"]
    assert READINGS not in told and [p["frame"] for p in told["fvd2048_16f_last"][GENERATED]] == [33, 129, 257]
    assert set(seen) == {WINDOW} and len(seen) == 3 * (1 + 1 + 3), "truth once, the still image once, every made window"
    assert distances_of({"cd_i3d", "inception"}, rendered=False) == ["cd_fvd_last", "fid", "kid"]
    assert distances_of(set(), rendered=False) == []
    assert "readers.i3d=PATH" in WindowSets([], 33, []).missing()["FVD of windows"]


def test_fid_and_kid_of_windows_grow_where_images_fade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def inception(frames_THWC: np.ndarray) -> np.ndarray:
        seen.append(len(frames_THWC))
        return frames_THWC[:, ::5, ::5].reshape(len(frames_THWC), -1).astype(np.float64)

    drift = long_drift(tiny_clips(4, 62), 257, monkeypatch, fading=3.0, extractors={"inception": inception})
    assert {*seen} == {len(range(0, WINDOW, STEP))}, "every fourth frame of a window"
    for name in ("fid", "kid"):
        found = [score.value for score in drift.scores(GENERATED, name, 0, 100).values()]
        assert len(found) == len(drift.ends) and found[-1] > found[0] > 0, name
        assert SET_TITLES[name].endswith("of windows")


def test_the_speech_goes_on_with_the_other_clips(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    speech = LongSpeech(clips)
    assert speech.own == 61
    assert [speech.place(1, frame) for frame in (0, 1, 60, 61, 120, 121)] == [
        (1, 0), (1, 1), (1, 60), (2, 1), (2, 60), (0, 1)
    ]  # fmt: skip
    whole = torch.cat(list(speech.pieces(pipeline, [0, 2], 129)), dim=1)
    assert whole.shape[:2] == (2, latent_length(129))
    for row, which in enumerate((0, 2)):
        parts = [audio_slots(pipeline, clips[(which + step) % 3], 61) for step in range(3)]
        wanted = torch.cat([parts[0], parts[1][1:], parts[2][1:]])[: latent_length(129)]
        torch.testing.assert_close(whole[row], wanted)
    signal = speech.signal([clip.truth["mouth_open"] for clip in clips], 1, 60, 63)
    np.testing.assert_array_equal(signal, [clips[1].truth["mouth_open"][60], *clips[2].truth["mouth_open"][1:3]])


def test_the_long_generation_begins_as_the_short_one(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    system, speech = RunSystem(GENERATED, pipeline, ROLLOUT, EvalConfig()), LongSpeech(clips)
    stream = stream_frames(system, speech, [0, 1], 81, 0, lambda _: None)
    [(_, window), (end, last)] = windows_of(stream, WINDOW, [33, 81])
    made = generate_clips(
        pipeline, clips[:2], speech.own, rollout=ROLLOUT, seed=0, batch_size=2, progress=lambda _: None
    )
    for mine, whole in zip(window, made, strict=True):
        assert np.abs(mine.astype(int) - whole.frames_THWC[:33]).max() <= 1
    assert end == 81 and last.shape == window.shape


def test_the_suite_measures_drift_where_it_is_asked(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    config = EvalConfig(frames=(33,), shifts=SHIFTS, resamples=100, drift=DriftConfig(frames=81, at=(33, 65)))
    system = RunSystem(GENERATED, pipeline, ROLLOUT, config)
    suite = Suite([system], DarkBarReader(), clips[:2], config, quiet=True)
    suite.run([33])
    assert suite.drift is not None
    told = suite.drift.to_json(0, 100)
    assert told["ends"] == [33, 65, 81]
    frames = {
        name: {row: [p["frame"] for p in points] for row, points in told["metrics"][name].items()}
        for name in ("lip_sync", "sharpness_reference")
    }
    assert frames["lip_sync"][GENERATED] == frames["sharpness_reference"][GENERATED] == [33, 65, 81]
    readings = told["metrics"][READINGS]
    assert [p["frame"] for p in readings[GENERATED]] == [33, 65, 81] and GROUND_TRUTH not in readings, (
        "compared with it"
    )
    assert frames["lip_sync"][GROUND_TRUTH] == [33] and frames["sharpness_reference"][STATIC] == [33, 65, 81]
    given = replace(system, rollout=ROLLOUT.model_copy(update={"structure_from": "truth"}))
    none = no_drift_yet([given], clips[:2], config, DarkBarReader(), {})
    generate_drift(none, [given], clips[:2], truths_of(clips[:2]), DarkBarReader(), config, {}, quiet=True)
    assert GENERATED not in none.pairs and "structure is given" in none.missing[GENERATED]


def test_an_end_that_not_every_clip_reaches_has_no_distance() -> None:
    """Equal distributions: of fewer clips the distance would be larger."""
    sets = WindowSets([READINGS], 33, ["a", "b", "c", "d"])
    for row, end, clips in ((GROUND_TRUTH, 33, 4), (GENERATED, 33, 4), (GENERATED, 65, 3)):
        for index in range(clips):
            sets.add(row, end, index, {"readings": np.random.default_rng(end + index).normal(size=(33, 2))})
    assert list(sets.scores(GENERATED, READINGS, 0, 50)) == [33]


def test_the_report_shows_it(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path / "none.jsonl", clips=1, lengths=(33,))
    drift = Drift(1025, WINDOW, [33, 1025], ROWS, ["a", "b", "c"])
    for row, value in ((GENERATED, 0.7), (STATIC, 0.0)):
        for end in drift.ends:
            for index in range(3):
                drift.add(row, end, index, {"lip_sync": Pair(value - end / 9999 + 0.01 * index)})
    sets = WindowSets([READINGS], 33, drift.people)
    for row, scale in ((GROUND_TRUTH, 1.0), (GENERATED, 1.5)):
        for index in range(3):
            sets.add(row, 33, index, {"readings": scale * np.random.default_rng(index).normal(size=(33, 2))})
    drift = replace(drift, sets=sets)
    drift.missing[GROUND_TRUTH] = "windows end with the clips"
    page = write_outcome(replace(outcome, drift=drift, results={}, videos={}), tmp_path / "out", quiet=True)
    assert (page.parent / "plots" / "drift-lip_sync.png").is_file() and "drift-lip_sync.png" in page.read_text()
    document = json.loads((page.parent / "metrics.json").read_text())["drift"]
    point = document["metrics"]["lip_sync"][GENERATED][1]
    assert (point["frame"], point["seconds"], point["n"]) == (1025, 41.0, 3) and point["low"] < point["high"]
    table = (page.parent / "table.md").read_text()
    assert "1025 frames (41 s)" in table
    assert "windows end with the clips" in table
    for told in (table, page.read_text()):
        assert "Frechet of readings is biased below 2048 clips; N = 3" in told
    assert (page.parent / "plots" / f"drift-{READINGS}.png").is_file()
    shown = page.read_text()
    assert "windows end with the clips" in shown and ">1025</button></th>" in shown


def test_lengths_that_hold_no_window_are_refused() -> None:
    for setting, message in (
        ("drift.frames=1000", r"1 \+ 4 n"),
        ("drift.frames=29", "no window"),
        ("drift.at=[17]", "the first window ends"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(EvalConfig, None, [setting])
    assert FaceReadings(np.ones(5, bool), np.arange(5.0)).part(slice(2, 4)).mouth_open_T.tolist() == [2, 3]
    assert image(np.arange(4.0), 0).shape == (4, 16, 16, 3)
