"""Clips are cut at the listed images and samples, whatever the container, frame rate, delay and rotation."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from listed_videos import (
    HEIGHT,
    RATE,
    WIDTH,
    drawn_image,
    make_clip,
    number_of,
    read_clip,
    tone,
    with_aspect,
    write_video,
)

from df_data.fetch import cut as cut_module
from df_data.fetch.cut import BrokenVideo, CutRefused, cut_clip
from df_data.sources.catalogue import ListedCrop
from df_data.stages.decode import decode_clip


@pytest.mark.parametrize(("suffix", "ticks"), [("mp4", 90_000), ("mkv", 1000)])
@pytest.mark.parametrize("fps", [23.976, 25, 29.97, 50])
def test_the_listed_frames_come_out_and_no_other(tmp_path: Path, suffix: str, ticks: int, fps: float) -> None:
    source = write_video(tmp_path / f"v.{suffix}", np.arange(300) / fps, ticks=ticks)
    for first, last in ((0, 40), (1, 2), (97, 131), (240, 299)):
        clip = make_clip(first / fps, (last + 1) / fps)
        cut = cut_clip(source, None, clip, tmp_path / "c.mp4")
        read = read_clip(tmp_path / "c.mp4")
        assert read.numbers == list(range(first, last + 1)), (first, last)
        assert cut.frames == len(read.numbers) and cut.sound_rate is None and cut.crop is None
        assert abs(cut.start_s - first / fps) <= 0.0006 and abs(cut.end_s - (last + 1) / fps) <= 0.0021
        assert np.abs(np.array(read.times) - np.arange(len(read.times)) / fps).max() <= 0.0011
        assert read.times[0] == 0.0


def test_times_between_frames_take_those_from_the_start_to_before_the_end(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", np.arange(100) / 25)
    cut = cut_clip(source, None, make_clip(1.01, 1.99), tmp_path / "c.mp4")
    assert read_clip(tmp_path / "c.mp4").numbers == list(range(26, 50))
    assert (cut.start_s, cut.end_s) == (1.04, 2.0)


def test_a_variable_frame_rate_keeps_its_time_stamps(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).choice([0.02, 0.033, 0.05], 200))
    source = write_video(tmp_path / "v.mp4", times)
    times = times - times[0]
    cut_clip(source, None, make_clip(2.0, 4.0), tmp_path / "c.mp4")
    read = read_clip(tmp_path / "c.mp4")
    inside = np.flatnonzero((times >= 2.0 - 1e-4) & (times < 4.0 - 1e-4))
    assert read.numbers == inside.tolist()
    assert np.allclose(read.times, times[inside] - times[inside[0]], atol=1e-3)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("two_files", [False, True])
def test_audio_is_cut_to_the_sample(tmp_path: Path, channels: int, two_files: bool) -> None:
    wave = tone(10.0, channels)
    if two_files:
        source = write_video(tmp_path / "v.mkv", np.arange(250) / 25)
        track = write_video(tmp_path / "a.mkv", np.zeros(0), wave=wave, images=False)
    else:
        source, track = write_video(tmp_path / "v.mp4", np.arange(250) / 25, wave=wave), None
    cut = cut_clip(source, track, make_clip(4.0, 6.5), tmp_path / "c.mp4")
    read = read_clip(tmp_path / "c.mp4")
    assert cut.sound_rate == RATE and read.wave_start == 0.0
    expected = wave[round(4.0 * RATE) : round(4.0 * RATE) + round((cut.end_s - cut.start_s) * RATE)]
    shift = best_shift(read.wave, expected)
    assert read.wave.shape == expected.shape
    # A container that counts milliseconds (mkv) cannot say where its audio lies more exactly than that.
    assert shift == 0 if not two_files else abs(shift) <= RATE / 1000
    if shift == 0:
        assert np.array_equal(read.wave, expected)


def best_shift(got: np.ndarray, expected: np.ndarray) -> int:
    """Samples by which one wave lags the other, from the correlation of their first channels."""
    a, b = (wave[:, 0].astype(np.float64) for wave in (got, expected))
    n = len(a) + len(b)
    correlation = np.fft.irfft(np.fft.rfft(a, n) * np.conj(np.fft.rfft(b, n)), n)
    index = int(np.argmax(correlation))
    return index if index < n // 2 else index - n


@pytest.mark.parametrize("delay", [0.3, -0.2])
def test_audio_that_begins_elsewhere_stays_where_it_was(tmp_path: Path, delay: float) -> None:
    wave = tone(8.0)
    times = np.arange(200) / 25 + max(0.0, -delay)
    source = write_video(tmp_path / "v.mp4", times, wave=wave, wave_start=max(0.0, delay))
    # Players count from the earliest stream, so the images begin at 0 or 0.2 s.
    cut = cut_clip(source, None, make_clip(3.0, 5.0), tmp_path / "c.mp4")
    read = read_clip(tmp_path / "c.mp4")
    begin = round((cut.start_s - max(0.0, delay)) * RATE)
    assert np.array_equal(read.wave, wave[begin : begin + len(read.wave)])
    assert read.numbers[0] == round((cut.start_s - max(0.0, -delay)) * 25)


def test_a_clip_before_and_after_the_audio_has_silence_there(tmp_path: Path) -> None:
    wave = tone(2.0)
    source = write_video(tmp_path / "v.mp4", np.arange(150) / 25, wave=wave, wave_start=1.0)
    cut_clip(source, None, make_clip(0.0, 4.0), tmp_path / "c.mp4")
    read = read_clip(tmp_path / "c.mp4")
    assert read.wave.shape == (4 * RATE, 1)
    assert not read.wave[:RATE].any() and not read.wave[3 * RATE :].any()
    assert np.array_equal(read.wave[RATE : 3 * RATE], wave)


def test_crops_of_every_kind_show_what_was_meant(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", np.arange(50) / 25)
    normal = ListedCrop(left=0.5, top=0.5, right=1, bottom=1, reference_width=1, reference_height=1)
    by_height = ListedCrop(left=160, top=96, right=320, bottom=192, reference_height=192)
    pixels = ListedCrop(left=80, top=48, right=160, bottom=96)
    for box in (normal, by_height, pixels):
        cut = cut_clip(source, None, make_clip(0, 1, box), tmp_path / "c.mp4")
        frame = read_clip(tmp_path / "c.mp4").frames[10]
        assert cut.crop == (80, 48, 80, 48) and (cut.width, cut.height) == (WIDTH, HEIGHT)
        assert frame.shape == (48, 80, 3)
        assert np.abs(frame.mean((0, 1)) - (40, 40, 200)).max() < 6
    over = ListedCrop(left=120, top=60, right=200, bottom=140)
    assert cut_clip(source, None, make_clip(0, 1, over), tmp_path / "c.mp4").crop == (120, 60, 40, 36)
    assert over.pixels(WIDTH, HEIGHT, expand=1.5) == (100, 40, 60, 56)


@pytest.mark.parametrize(("rotation", "mirrored"), [(90, False), (180, False), (-90, False), (0, True), (90, True)])
def test_crops_count_on_the_upright_image(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    source = write_video(tmp_path / "v.mov", np.arange(30) / 25, rotation=rotation, mirrored=mirrored)
    cut = cut_clip(source, None, make_clip(0, 1), tmp_path / "c.mp4")
    upright = np.rot90(drawn_image(10), rotation // 90)[:, :: -1 if mirrored else 1]
    frame = read_clip(tmp_path / "c.mp4").frames[10]
    assert frame.shape == upright.shape and (cut.height, cut.width) == upright.shape[:2]
    assert np.abs(frame.astype(int) - upright).mean() < 12
    box = ListedCrop(left=0, top=0, right=0.5, bottom=0.5, reference_width=1, reference_height=1)
    cut = cut_clip(source, None, make_clip(0, 1, box), tmp_path / "c.mp4")
    assert cut.crop is not None
    part = read_clip(tmp_path / "c.mp4").frames[10]
    assert np.abs(part.astype(int) - upright[: cut.crop[3], : cut.crop[2]]).mean() < 14


@pytest.mark.parametrize(
    ("aspect", "rotation", "shown"),
    [("2/1", 0, (96, 320)), ("1/2", 0, (192, 160)), ("2/1", 90, (320, 96))],
)
def test_pixels_are_made_square(tmp_path: Path, aspect: str, rotation: int, shown: tuple[int, int]) -> None:
    """As a player shows them, by the build and by a cut clip."""
    source = with_aspect(tmp_path / "v.mov", aspect, rotation, frames=60)
    decoded = decode_clip(source)
    assert decoded.frames.shape[1:3] == shown
    upright = np.rot90(decoded.frames[10], -rotation // 90)
    assert number_of(upright) == 10
    cut = cut_clip(source, None, make_clip(0, 1), tmp_path / "c.mp4")
    assert (cut.height, cut.width) == shown
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)
    frame = read_clip(tmp_path / "c.mp4").frames[10]
    assert frame.shape[:2] == shown and number_of(np.rot90(frame, -rotation // 90)) == 10


def test_the_same_clip_has_the_same_bytes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", np.arange(100) / 25, wave=tone(4.0))
    for name in ("a", "b"):
        cut_clip(source, None, make_clip(1, 3), tmp_path / f"{name}.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_what_cannot_be_cut_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", np.arange(100) / 25, wave=tone(4.0))
    silent = write_video(tmp_path / "a.mkv", np.zeros(0), wave=tone(1.0), images=False)
    outside = ListedCrop(left=500, top=0, right=600, bottom=50)
    for video, clip, reason in (
        (source, make_clip(50, 60), "outside_video"),
        (source, make_clip(3, 60), "video_too_short"),
        (source, make_clip(0, 1, outside), "crop_outside"),
        (silent, make_clip(0, 1), "no_video_track"),
    ):
        with pytest.raises(CutRefused) as refused:
            cut_clip(video, None, clip, tmp_path / "c.mp4")
        assert refused.value.reason == reason
    for size in (0, 1, 500, 4000):
        (tmp_path / "broken.mp4").write_bytes(source.read_bytes()[:size])
        with pytest.raises(BrokenVideo):
            cut_clip(tmp_path / "broken.mp4", None, make_clip(0, 1), tmp_path / "c.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "broken.mp4", "v.mp4"]


def test_a_full_disk_leaves_nothing_and_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "v.mp4", np.arange(100) / 25, wave=tone(4.0))
    before = cut_module._ImageWriter.write

    def write(self: Any, frame: Any) -> None:
        if self.count == 20:
            raise av.error.OSError(errno.ENOSPC, "No space left on device", "c.mp4")
        before(self, frame)

    monkeypatch.setattr(cut_module._ImageWriter, "write", write)
    with pytest.raises(OSError, match="No space left") as full:
        cut_clip(source, None, make_clip(0, 3), tmp_path / "c.mp4")
    assert full.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_a_real_clip_keeps_its_images_and_its_audio(tmp_path: Path) -> None:
    folder = Path(os.environ.get("DF_TEST_DATA") or "../shared/data").resolve() / "grid" / "s1"
    if not folder.is_dir():
        pytest.skip(f"no real test data: set DF_TEST_DATA (no folder {folder})")
    source = sorted(folder.glob("*.mpg"))[0]
    box = ListedCrop(left=60, top=20, right=300, bottom=260)
    cut = cut_clip(source, None, make_clip(0.4, 2.6, box), tmp_path / "c.mp4")
    whole, part = read_clip(source), read_clip(tmp_path / "c.mp4")
    assert (cut.start_s, cut.end_s, cut.frames) == (0.4, 2.6, 55) and part.times[-1] == pytest.approx(54 / 25)
    for index, frame in enumerate(part.frames):
        error = whole.frames[10 + index][20:260, 60:300].astype(float) - frame
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 38
    begin = round(0.4 * RATE)
    assert np.array_equal(part.wave, whole.wave[begin : begin + round(2.2 * RATE)])
