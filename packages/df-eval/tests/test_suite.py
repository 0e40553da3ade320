"""The protocol with a tiny random model: what is generated, and that the rows fit together."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fabricated import SHIFTS
from tiny import ROLLOUT, DarkBarReader, tiny_clips, tiny_pipeline

from df_data.format.stored_video import read_frames
from df_eval.clips import EvalClip, StoredVideo, _from_sample
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, SHIFTED, STATIC
from df_eval.reading.readers import choose_reader
from df_eval.reports.facts import _run_facts
from df_eval.reports.goals import goals_of
from df_eval.rows.generation import (
    Generated,
    Progress,
    audio_slots,
    check_size,
    fitting_lengths,
    generate_clips,
    rebuild_clips,
)
from df_eval.rows.systems import LeftOut, RunSystem
from df_eval.suite import Suite
from df_infer.pipeline import Pipeline
from df_models.errors import UserError
from df_models.media import write_video


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def clips() -> list[EvalClip]:
    return tiny_clips()


def nothing(_: int) -> None:
    return None


def test_generation_does_not_depend_on_the_batch(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    def made(batch_size: int, seed: int = 0) -> list:
        options = {"rollout": ROLLOUT, "seed": seed, "batch_size": batch_size, "progress": nothing}
        return list(generate_clips(pipeline, clips, 17, **options))

    whole, single, other = made(3), made(1), made(3, seed=1)
    for a, b in zip(whole, single, strict=True):
        assert a.frames_THWC.shape == (17, 16, 16, 3) and a.frames_THWC.dtype == np.uint8
        assert a.structure_TD.shape == (17, 70)
        assert np.abs(a.frames_THWC.astype(int) - b.frames_THWC).max() <= 1
        np.testing.assert_allclose(a.structure_TD, b.structure_TD, atol=1e-4)
    assert (whole[0].frames_THWC != other[0].frames_THWC).any()
    assert (whole[0].frames_THWC != whole[1].frames_THWC).any()


def test_a_longer_reconstruction_begins_with_the_shorter_one(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    long = list(rebuild_clips(pipeline, clips, 33, batch_size=2, progress=nothing))
    short = list(rebuild_clips(pipeline, clips, 17, batch_size=3, progress=nothing))
    for a, b in zip(long, short, strict=True):
        assert a.shape == (33, 16, 16, 3)
        assert np.abs(a[:17].astype(int) - b).max() <= 1


def test_the_suite_fills_every_row_at_every_length_under_one_bar(
    pipeline: Pipeline, clips: list[EvalClip], capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvalConfig(clips=3, frames=(25, 33), shifts=SHIFTS, batch_size=2, resamples=100)
    results = Suite([RunSystem(GENERATED, pipeline, ROLLOUT, config)], DarkBarReader(), clips, config).run([25, 33])
    assert list(results) == [25, 33]
    bar = [line for line in capsys.readouterr().err.replace("\n", "\r").split("\r") if line.strip()]
    assert all(line.startswith("measuring: ") for line in bar) and "100%" in bar[-1] and "21/21" in bar[-1]
    for frames, result in results.items():
        table = result.table(0, 100)
        assert table[GROUND_TRUTH]["lip_sync"].value == pytest.approx(1.0, abs=0.02)
        assert table[STATIC]["lip_sync"].value == 0.0
        assert table[GROUND_TRUTH]["lip_sync_other"].n == 3
        gain = table[GROUND_TRUTH]["lip_sync"].value - table[GROUND_TRUTH]["lip_sync_other"].value
        assert table[GROUND_TRUTH]["lip_sync_gain"].value == pytest.approx(gain)
        for row in (RECONSTRUCTION, GENERATED, SHIFTED):
            assert table[row]["lip_sync"].n == 3
        assert table[RECONSTRUCTION]["psnr"].value is not None
        assert table[GENERATED]["structure_mouth"].value is not None
        assert table[GENERATED]["identity_distance"].reason == "a bar has no identity"
        assert table[GENERATED]["blink_rate"].value is None
        assert len(result.curves[GENERATED]["mouth"][0]) == frames
        drift = goals_of(result, 0, 100)[2]
        assert drift.passed is None


class Living:
    """Counts arrays while they live."""

    def __init__(self) -> None:
        self.live = self.most = 0

    def count(self, array: np.ndarray) -> np.ndarray:
        self.live, self.most = self.live + 1, max(self.most, self.live + 1)
        weakref.finalize(array, self.gone)
        return array

    def gone(self) -> None:
        self.live -= 1


class Twins:
    """A system whose videos are the clips' own, and are counted while they live."""

    row, layout = "theirs", None

    def __init__(self) -> None:
        self.living = Living()

    def make(self, clips: Sequence[EvalClip], frames: int, progress: Progress) -> Iterator[Generated]:
        for clip in clips:
            video = Generated(clip.frames_THWC[:frames].copy(), np.zeros((frames, 0), np.float32))
            self.living.count(video.frames_THWC)
            yield video
            del video


def test_memory_does_not_grow_with_the_clips(clips: list[EvalClip]) -> None:
    config = EvalConfig(frames=(25, 33), shifts=SHIFTS, resamples=100, videos=0)
    most = []
    for many in (clips * 3, clips * 6):
        twins = Twins()
        suite = Suite([twins], DarkBarReader(), many, config, quiet=True)
        results = suite.run([25, 33])
        assert len(results[33].measured["theirs"]) == len(many)
        assert [len(shown) for shown in suite.videos.values()] == [config.shown, config.shown]
        most.append(twins.living.most)
    assert most[0] == most[1] <= 2 * (config.shown + 2)


def test_frames_of_stored_clips_are_decoded_clip_by_clip(
    clips: list[EvalClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    for clip in clips:
        write_video(tmp_path / "clip.mp4", clip.frames_THWC, audio=clip.wave_N)
        mp4 = (tmp_path / "clip.mp4").read_bytes()
        stored.append(replace(clip, video=StoredVideo.of(mp4)))
        assert stored[-1].video.shape == clip.frames_THWC.shape
    config = EvalConfig(frames=(25, 33), shifts=SHIFTS, resamples=100, videos=0)
    most = []
    for many in (stored * 2, stored * 5):
        living = Living()
        monkeypatch.setattr(StoredVideo, "decoded", lambda video, live=living: live.count(read_frames(video.mp4)))
        suite = Suite([Twins()], DarkBarReader(), many, config, quiet=True)
        results = suite.run([25, 33])
        assert results[33].table(0, 100)[GROUND_TRUTH]["lip_sync"].value == pytest.approx(1.0, abs=0.02)
        del suite, results
        most.append(living.most)
    assert most[0] == most[1] <= config.shown + 3


def test_a_damaged_mp4_of_a_shard_is_told_with_its_clip() -> None:
    said, mp4 = r"clip anna-1: its mp4 cannot be decoded .*the shard is damaged", b"no video" * 100
    video = StoredVideo(mp4, (2, 8, 8, 3), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=said):
        _ = EvalClip("anna-1", "anna", video, np.zeros(1280, np.float32), {}).frames_THWC
    with pytest.raises(UserError, match=said):
        _from_sample(SimpleNamespace(key="anna-1", video=mp4))  # type: ignore[arg-type]


class Unseen:
    """A system without a video of any clip."""

    row, layout = "theirs", None

    def make(self, clips: Sequence[EvalClip], frames: int, progress: Progress) -> Iterator[LeftOut]:
        for _ in clips:
            progress(1)
            yield LeftOut("there is none")


def test_every_true_video_is_decoded_once(
    clips: list[EvalClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "clip.mp4", clips[0].frames_THWC, audio=clips[0].wave_N)
    stored = StoredVideo.of((tmp_path / "clip.mp4").read_bytes())
    decoded: list[int] = []
    monkeypatch.setattr(StoredVideo, "decoded", lambda video: decoded.append(1) or read_frames(video.mp4))
    many = [replace(clip, video=stored) for clip in clips]
    config = EvalConfig(frames=(25, 33), shifts=SHIFTS, resamples=100, videos=0)
    results = Suite([Unseen()], DarkBarReader(), many, config, quiet=True).run([25, 33])
    assert len(decoded) == len(clips)
    table = results[33].table(0, 100)
    assert table[STATIC]["lip_sync_other"].n == 3 and table[STATIC]["sharpness_drift"].value == pytest.approx(1.0)


def test_without_a_reader_only_pixels_are_measured(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    config = EvalConfig(clips=3, frames=(25,), shifts=SHIFTS, resamples=100)
    reader = choose_reader("emoca", ReadersConfig())
    results = Suite([RunSystem(GENERATED, pipeline, ROLLOUT, config)], reader, clips, config, quiet=True).run([25])
    table = results[25].table(0, 100)
    assert table[GENERATED]["lip_sync"].value is None
    assert "readers.landmarker=PATH" in table[GENERATED]["lip_sync"].reason
    assert "readers.i3d=PATH" in table[GENERATED]["fvd2048_16f"].reason
    assert table[GENERATED]["frechet_reader"].reason == table[GENERATED]["presence"].reason
    assert table[GENERATED]["motion_ratio"].value is not None


def test_lengths_that_the_clips_lack_are_named(clips: list[EvalClip]) -> None:
    lengths, missing = fitting_lengths((33, 129), clips)
    assert lengths == [33]
    assert list(missing) == [129] and "63 frames" in missing[129] and "--frames 61" in missing[129]


def test_clips_of_another_size_are_refused(pipeline: Pipeline) -> None:
    wide = EvalClip("w", "w", np.zeros((17, 32, 32, 3), np.uint8), np.zeros(640 * 17, np.float32), {})
    with pytest.raises(UserError, match="32x32 pixels, the model generates 16x16"):
        check_size(pipeline, [wide])


def test_stored_audio_features_of_other_weights_are_encoded_again(pipeline: Pipeline, clips: list[EvalClip]) -> None:
    encoder = pipeline.audio_encoder
    encoded = audio_slots(pipeline, clips[0], 9)
    stored = replace(clips[0], audio_TD=torch.zeros(2 * clips[0].length, encoder.dim), audio_encoder=encoder.id)
    torch.testing.assert_close(audio_slots(pipeline, replace(stored, audio_sha256="other"), 9), encoded)
    assert not audio_slots(pipeline, replace(stored, audio_sha256=encoder.sha256), 9).any()


@pytest.mark.parametrize(("float8", "told"), [(False, "float32"), (True, "float8")])
def test_the_facts_of_a_run_tell_what_it_computes_in(float8: bool, told: str) -> None:
    system = RunSystem(GENERATED, replace(tiny_pipeline(), float8=float8), ROLLOUT, EvalConfig())
    assert _run_facts(system)["dtype"] == told
