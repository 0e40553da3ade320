"""Time stamps, audio offsets, rotation and shot cuts, on small videos made here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from df_data.stages.clock import TOLERANCE_S, steady_ticks
from df_data.stages.decode import decode_clip, iter_segments
from df_data.stages.rejection import Rejected
from df_data.stages.shots import longest_shot, shot_cuts
from df_models.errors import UserError

RATE = 16_000


def resample_indices(times_F: np.ndarray, last_duration: float, fps: float) -> np.ndarray:
    """Return for each tick ``k / fps`` after the first time stamp the frame whose time stamp is nearest, int64 ``[T]``.

    The whole of one run at once: what :func:`steady_ticks`, which sees frames as they come, must decide.

    Args:
        times_F: rising time stamps in seconds.
        last_duration: how long the last frame is shown, in seconds.
    """
    length = times_F[-1] - times_F[0] + last_duration
    ticks = times_F[0] + np.arange(int(np.floor(length * fps + 1e-3))) / fps
    middles = (times_F[1:] + times_F[:-1]) / 2
    return np.searchsorted(middles, ticks - TOLERANCE_S, side="left")


def write(
    path: Path,
    times: np.ndarray,
    images: list[np.ndarray],
    *,
    pcm: np.ndarray | None = None,
    audio_start: float = 0.0,
    rotation: int = 0,
) -> Path:
    """A video whose frames have these time stamps in seconds; audio is PCM in a mov, so it is not altered."""
    with av.open(str(path), "w", format="mov") as container:
        video = container.add_stream("libx264", rate=Fraction(1000))
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt, video.options = "yuv420p", {"crf": "10", "preset": "ultrafast", "bf": "0"}
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono") if pcm is not None else None
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and pcm is not None:
            pcm = (np.clip(pcm, -1, 1) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), round(audio_start * RATE)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def grey(level: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def levels(frames: np.ndarray) -> np.ndarray:
    return frames.reshape(len(frames), -1).mean(axis=1)


def test_25_fps_is_kept_as_it_is() -> None:
    times = 5.0 + np.arange(75) / 25
    assert resample_indices(times, 0.04, 25).tolist() == list(range(75))


@pytest.mark.parametrize("fps", [24.0, 30000 / 1001, 50.0, 12.5])
def test_nearest_frame_at_other_rates(fps: float) -> None:
    times = 1.0 + np.arange(int(4 * fps)) / fps
    indices = resample_indices(times, 1 / fps, 25)
    ticks = 1.0 + np.arange(len(indices)) / 25
    error = times[indices] - ticks
    assert len(indices) == int(len(times) / fps * 25 + 1e-3)
    assert np.abs(error).max() <= 0.5 / fps + 1e-6
    assert abs(error.mean()) < 0.1 / fps or fps == 12.5


def test_variable_frame_rate_follows_the_stamps() -> None:
    times = np.array([0, 0.04, 0.08, 0.5, 0.9, 0.94])
    indices = resample_indices(times, 0.04, 25)
    assert len(indices) == 24
    assert indices[7] == 2 and indices[8] == 3 and indices[17] == 3 and indices[18] == 4


def test_decoded_video_at_30_fps_shows_each_moment_in_time(tmp_path: Path) -> None:
    times = np.arange(90) / 30
    images = [grey(20 + 2 * i) for i in range(90)]
    path = write(tmp_path / "a.mov", times, images, pcm=0.1 * np.ones(3 * RATE))
    clip = decode_clip(path)
    assert clip.frames.shape == (75, 64, 96, 3) and clip.wave.shape == (75 * 640,)
    expected = 20 + 2 * 30 * np.arange(75) / 25
    assert np.abs(levels(clip.frames) - expected).max() < 2.5
    assert clip.source_fps == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("offset", [-0.2, 0.0, 0.36])
def test_audio_stays_with_the_image_whatever_the_streams_start(tmp_path: Path, offset: float) -> None:
    """A flash and a click at second 1.2 of the image's clock, the audio track starting `offset` from the image."""
    video_start = 0.5
    times = video_start + np.arange(60) / 25
    images = [grey(230 if i == 30 else 20) for i in range(60)]
    pcm = np.zeros(int(2.4 * RATE), dtype=np.float32)
    click = round((1.2 - offset) * RATE)
    pcm[click : click + 40] = 0.9
    path = write(tmp_path / "b.mov", times, images, pcm=pcm, audio_start=video_start + offset)
    clip = decode_clip(path)
    assert int(levels(clip.frames).argmax()) == 30
    assert abs(int(np.abs(clip.wave).argmax()) - 30 * 640) <= 60
    assert clip.sound_offset_s == pytest.approx(offset, abs=0.002)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_is_turned_upright(tmp_path: Path, rotation: int) -> None:
    image = grey(30)
    image[:16, :16] = 220
    path = write(tmp_path / "r.mov", np.arange(60) / 25, [image] * 60, pcm=np.ones(4 * RATE), rotation=rotation)
    clip = decode_clip(path)
    expected = np.rot90(image, rotation // 90)
    assert clip.frames.shape[1:] == expected.shape
    assert np.abs(clip.frames[10].astype(int) - expected).mean() < 4


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    images = [grey(50)] * 60
    with pytest.raises(Rejected) as no_audio:
        decode_clip(write(tmp_path / "mute.mov", np.arange(60) / 25, images))
    assert no_audio.value.reason == "no_sound_track"
    with pytest.raises(Rejected) as short:
        decode_clip(write(tmp_path / "short.mov", np.arange(30) / 25, images[:30], pcm=np.ones(RATE)))
    assert short.value.reason == "too_short" and short.value.scores["seconds"] == pytest.approx(1.2)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be decoded"):
        decode_clip(tmp_path / "text.mp4")
    with pytest.raises(UserError, match="no such file"):
        decode_clip(tmp_path / "gone.mp4")


def test_length_is_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "long.mov", np.arange(150) / 25, [grey(50)] * 150, pcm=np.ones(6 * RATE))
    clip = decode_clip(path, max_seconds=3)
    assert len(clip.frames) == 75 and len(clip.wave) == 75 * 640


@pytest.mark.parametrize("seed", range(8))
def test_ticks_as_they_come_are_those_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = 3.0 + np.cumsum(rng.choice([0.02, 1 / 30, 0.04, 0.1, 0.3], size=200))
    shown = float(np.median(np.diff(times)[-256:]))
    ticks = list(steady_ticks(zip(times, range(200)), 25, 1.0, 0.04))
    assert [tick.image for tick in ticks] == resample_indices(times, shown, 25).tolist()
    assert [tick.index for tick in ticks] == list(range(len(ticks)))


def test_stamps_that_fall_back_are_passed_over_and_a_jump_begins_another_run() -> None:
    eight_hours = 8 * 3600.0
    times = [0.0, 0.04, 0.02, 0.08, eight_hours, eight_hours + 0.04]
    ticks = list(steady_ticks(zip(times, "abcdef"), 25, 1.0, 0.04))
    assert [(tick.run, tick.index, tick.image) for tick in ticks] == [
        (0, 0, "a"), (0, 1, "b"), (0, 2, "d"), (1, 0, "e"), (1, 1, "f"),
    ]  # fmt: skip


def test_segments_follow_each_other_without_a_seam(tmp_path: Path) -> None:
    """Images and audio of an 8 s video in segments of 3 s are those of the whole; the rest of 2 s comes too."""
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 0.1, 8 * RATE).astype(np.float32)
    path = write(tmp_path / "l.mov", np.arange(200) / 25, [grey(20 + i) for i in range(200)], pcm=pcm)
    whole = decode_clip(path, max_seconds=100)
    parts = list(iter_segments(path, segment_seconds=3))
    assert [len(part.frames) for part in parts] == [75, 75, 50]
    assert [part.start_s for part in parts] == pytest.approx([0, 3, 6])
    assert np.array_equal(np.concatenate([part.frames for part in parts]), whole.frames)
    assert np.array_equal(np.concatenate([part.wave for part in parts]), whole.wave)
    assert len(list(iter_segments(path, segment_seconds=3, max_seconds=4))) == 2


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """Of a video whose audio all lies behind its images too: no more than two segments' pixels are held."""
    import gc
    import weakref

    path = write(tmp_path / "m.mov", np.arange(1000) / 25, [grey(i % 200) for i in range(1000)], pcm=np.ones(40 * RATE))
    alive: list[weakref.ref] = []
    for part in iter_segments(path, segment_seconds=2):
        alive.append(weakref.ref(part.frames))
        del part
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1
    assert len(alive) == 20


def test_a_jump_in_the_time_stamps_ends_a_segment(tmp_path: Path) -> None:
    times = np.concatenate([np.arange(75) / 25, 100 + np.arange(60) / 25])
    path = write(tmp_path / "j.mov", times, [grey(40)] * 75 + [grey(200)] * 60, pcm=np.ones(103 * RATE) * 0.1)
    first, second = iter_segments(path)
    assert len(first.frames) == 75 and len(second.frames) == 60
    assert second.start_s == pytest.approx(100) and levels(second.frames).min() > 150


def test_large_images_are_decoded_smaller(tmp_path: Path) -> None:
    path = write(tmp_path / "4k.mov", np.arange(50) / 25, [grey(90, 1080, 3840)] * 50, pcm=np.ones(2 * RATE))
    assert decode_clip(path).frames.shape == (50, 540, 1920, 3)


def test_cuts_are_found_and_motion_is_not_a_cut() -> None:
    rng = np.random.default_rng(0)
    scene_a, scene_b = rng.integers(0, 120, (64, 160, 3)), rng.integers(100, 256, (64, 160, 3))
    pan = [scene_a[:, i : i + 96] for i in range(40)]
    frames = np.stack([*pan, *(scene_b[:, i : i + 96] for i in range(40))]).astype(np.uint8)
    assert shot_cuts(frames) == [40]
    assert shot_cuts(frames[:40]) == []
    assert longest_shot([12], 75) == (12, 75)
    assert longest_shot([], 75) == (0, 75)
