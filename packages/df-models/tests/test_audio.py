"""Audio: one level whatever the channels, damage passed over, values that are none refused, clocks kept.

Shape legend: C channels, N samples.
"""

from __future__ import annotations

import logging
import wave as wave_module
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from df_models.errors import UserError
from df_models.media import AudioFile, read_audio
from df_models.media.decoding import (
    AudioBlock,
    BrokenAudio,
    BrokenTimeStamps,
    Resampler,
    audio_blocks,
    decoded_frames,
    frame_samples,
)
from df_models.media.mixing import mix, mono_weights, stereo_weights
from df_models.media.track import AudioTrack
from df_models.media.unnamed import is_usual

RATE = 16_000
TONE = (0.9 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def wav(path: Path, samples_CN: np.ndarray, rate: int = RATE) -> Path:
    """A 16-bit WAV without a channel mask."""
    with wave_module.open(str(path), "wb") as file:
        file.setnchannels(len(samples_CN))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples_CN.T * 32767).astype("<i2").tobytes())
    return path


def encoded(
    path: Path, samples_CN: np.ndarray, rate: int, codec: str, layout: str, form: str = "fltp", container: str = ""
) -> Path:
    """A file of one codec."""
    with av.open(str(path), "w", format=container or None) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, format=form)
        fifo = av.AudioFifo()
        given = samples_CN if form.endswith("p") else samples_CN.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(given, np.float32), format=form, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        fifo.write(frame)
        stream.codec_context.open(strict=False)
        while (piece := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def pulses(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A quiet hum with a burst of 20 ms every 0.25 s, so that time can be read off it, ``[1, N]``."""
    t = np.arange(int(seconds * rate)) / rate
    burst = (t % 0.25 < 0.02) * np.sin(2 * np.pi * 800 * t)
    return (0.02 * np.sin(2 * np.pi * 100 * t) + 0.5 * burst)[None].astype(np.float32)


# -------------------- channels


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_the_same_signal_in_every_channel_keeps_its_level(tmp_path: Path, channels: int) -> None:
    read = read_audio(wav(tmp_path / "a.wav", np.repeat(TONE[None], channels, axis=0)))
    assert np.abs(read - TONE).max() < 1e-4


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "3.0", "quad", "5.1", "5.1(side)", "7.1"])
def test_every_layout_keeps_the_level_and_stays_within_full_scale(tmp_path: Path, layout: str) -> None:
    count = av.AudioLayout(layout).nb_channels
    path = encoded(tmp_path / "a.wav", np.repeat(TONE[None], count, axis=0), RATE, "pcm_f32le", layout, "flt")
    assert np.abs(read_audio(path) - TONE).max() < 1e-5


def test_surround_is_mixed_by_the_recommendation() -> None:
    """ITU-R BS.775, table 2, 3/2 to 1/0, over the sum of its weights."""
    names = ["FL", "FR", "FC", "LFE", "SL", "SR"]
    wanted = np.array([0.7071, 0.7071, 1, 0, 0.5, 0.5])
    assert np.allclose(mono_weights(names), wanted / wanted.sum(), atol=1e-5)
    left, right = stereo_weights(names)
    assert np.allclose(left[[0, 2, 4]] / left[0], [1, 0.7071, 0.7071], atol=1e-5) and left[[1, 3, 5]].max() == 0
    assert np.allclose(right[[1, 2, 5]], left[[0, 2, 4]])
    assert np.allclose((left + right) / 2, mono_weights(names))
    assert mono_weights(["FL", "FR"]).tolist() == [0.5, 0.5] and mono_weights(["NONE"] * 4).tolist() == [0.25] * 4
    assert mono_weights(["LFE"]).tolist() == [1.0]
    seven = stereo_weights(["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"])
    assert seven[0][[4, 6]].min() > 0 and seven[0][[1, 5, 7]].max() == 0


def test_surround_that_names_no_channel_is_mixed_like_what_names_them(tmp_path: Path) -> None:
    """FFmpeg's AAC encoder writes 5.1(side) by a program element that its decoder gives no names."""
    centre = np.zeros((6, len(TONE)), np.float32)
    centre[2] = TONE
    levels = []
    for layout in ("5.1", "5.1(side)"):
        heard = read_audio(encoded(tmp_path / "a.mp4", centre, RATE, "aac", layout, "fltp"))
        levels.append(np.sqrt(np.mean(np.square(heard)) / np.mean(np.square(TONE))))
    assert levels == pytest.approx([1 / (2 * 0.7071 + 1 + 2 * 0.5)] * 2, rel=0.03)


@pytest.mark.parametrize("count", [6, 8])
@pytest.mark.parametrize("alone", [True, False])
def test_a_voice_in_the_place_of_bass_is_heard(
    tmp_path: Path, count: int, alone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Six tracks of a recorder: as 5.1 the voice was left out, and told as upside down."""
    tracks = np.zeros((count, len(TONE)), np.float32)
    tracks[3] = TONE
    if not alone:
        tracks[0] = np.random.default_rng(0).normal(0, 0.1, len(TONE))
    with caplog.at_level(logging.WARNING):
        heard = read_audio(wav(tmp_path / "a.wav", tracks))
    assert np.allclose(heard, tracks.mean(axis=0), atol=1e-3)
    assert "all were averaged" in caplog.text and "cancel" not in caplog.text


def test_bass_stays_bass() -> None:
    at_N = np.arange(2 * RATE) / RATE
    tracks = np.random.default_rng(0).normal(0, 0.02, (6, len(at_N)))
    tracks[3] = 0.5 * np.sin(2 * np.pi * 60 * at_N)
    assert is_usual(tracks, RATE) and not is_usual(tracks * np.eye(6)[3][:, None], RATE)
    tracks[3] += 0.1 * np.sin(2 * np.pi * 800 * at_N)
    assert not is_usual(tracks, RATE)


def test_named_bass_alone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracks = np.eye(6, dtype=np.float32)[3][:, None] * TONE
    with caplog.at_level(logging.WARNING):
        read_audio(encoded(tmp_path / "a.mp4", tracks, RATE, "aac", "5.1", "fltp"))
    assert "low-frequency effects, which the model does not hear" in caplog.text and "cancel" not in caplog.text


def test_more_channels_than_there_are_hold_the_front_pair() -> None:
    one = np.ones((1, 4), np.float32)
    assert mix(one, ["FC"], 2).tolist() == [[1.0] * 4] * 2
    assert mix(one, ["FC"], 4)[2:].max() == 0 and mix(one, ["FC"], None) is one


def test_antiphase_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = np.roll(TONE, 7)
    with caplog.at_level(logging.WARNING):
        read_audio(wav(tmp_path / "b.wav", np.stack([TONE, other])))
        read_audio(wav(tmp_path / "c.wav", np.stack([TONE, 0 * TONE])))
        read_audio(wav(tmp_path / "d.wav", np.zeros((2, 100))))
        assert not caplog.records
        assert np.abs(read_audio(wav(tmp_path / "a.wav", np.stack([TONE, -TONE])))).max() < 1e-4
    assert "cancel each other" in caplog.text


# -------------------- values


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, r"a\.wav: .*no numbers.* at 0\.5\d s"), (np.inf, "no numbers"), (-np.inf, "no numbers"),
     (32767.0, r"reaches 3\.277e\+04 .*integers"), (20.0, "reaches 20 .*full scale is 1")],
)  # fmt: skip
def test_values_that_are_none_are_told_when_read(tmp_path: Path, value: float, message: str) -> None:
    samples = TONE.copy()
    samples[9_000] = value
    path = encoded(tmp_path / "a.wav", samples[None], RATE, "pcm_f32le", "mono", "flt")
    with pytest.raises(UserError, match=message) as told:
        read_audio(path)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=message), AudioFile(path) as source:
        source.read(RATE)


@pytest.mark.parametrize(("form", "dtype"), [("u8", np.uint8), ("s16", np.int16), ("s32p", np.int32), ("dbl", float)])
def test_every_format_has_one_full_scale(form: str, dtype: type) -> None:
    full = 1.0 if dtype is float else np.iinfo(dtype).max
    low = -1.0 if dtype is float else np.iinfo(dtype).min
    pair = np.array([[low, full]] * 2) if form.endswith("p") else np.array([[low, low, full, full]])
    frame = av.AudioFrame.from_ndarray(pair.astype(dtype), format=form, layout="stereo")
    frame.sample_rate = RATE
    found = frame_samples(frame)
    assert found.shape == (2, 2) and found[0, 0] == -1.0 and 0.99 < found[1, 1] <= 1.0


# -------------------- damage


def test_bad_packets_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encoded(tmp_path / "a.mp3", pulses(44_100), 44_100, "mp3", "mono")
    whole = read_audio(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = b"\xff\xfb\x90\x00" * 75
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        read = read_audio(path)
    assert "damaged and were left out" in caplog.text
    assert abs(len(read) - len(whole)) < 0.12 * RATE
    assert np.abs(read[: RATE // 2] - whole[: RATE // 2]).max() < 1e-3


def test_two_mp3_files_joined_are_one_after_the_other(tmp_path: Path) -> None:
    one = encoded(tmp_path / "one.mp3", pulses(44_100), 44_100, "mp3", "mono")
    both = tmp_path / "both.mp3"
    both.write_bytes(one.read_bytes() * 2)
    assert len(read_audio(both)) > 1.9 * len(read_audio(one))


def test_a_rate_that_changes_midway_is_followed(tmp_path: Path) -> None:
    first = encoded(tmp_path / "a.aac", pulses(44_100), 44_100, "aac", "mono", container="adts")
    second = encoded(tmp_path / "b.aac", pulses(22_050), 22_050, "aac", "mono", container="adts")
    both = tmp_path / "both.aac"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    read = read_audio(both)
    halves = [read_audio(first), read_audio(second)]
    assert abs(len(read) - sum(map(len, halves))) < 0.05 * RATE
    spectrum = np.abs(np.fft.rfft(read[-RATE:]))  # at the wrong rate its 800 Hz would be 1600
    assert abs(np.argmax(spectrum[300:]) + 300 - 800) < 25
    with AudioFile(both) as source:
        assert source.rate == 44_100
        carried = source.read(round(len(read) / RATE * 44_100))[0]
    assert np.abs(np.fft.rfft(carried[-44_100:]))[780:820].max() > 0.5 * spectrum[780:820].max()


def test_the_same_for_the_channels(tmp_path: Path) -> None:
    first = encoded(tmp_path / "a.aac", pulses(44_100), 44_100, "aac", "mono", container="adts")
    second = encoded(tmp_path / "b.aac", pulses(44_100).repeat(2, 0), 44_100, "aac", "stereo", container="adts")
    both = tmp_path / "both.aac"
    both.write_bytes(second.read_bytes() + first.read_bytes())
    level = [np.abs(part).max() for part in np.split(read_audio(both)[: 4 * RATE], 2)]
    assert level[0] == pytest.approx(level[1], rel=0.1)
    with AudioFile(both) as source:
        assert source.layout == "stereo" and np.abs(source.read(176_400)[:, -44_100:]).max(axis=1).min() > 0.3


def test_a_file_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.m4a", pulses(44_100), 44_100, "aac", "mono", container="mp4")
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    path.write_bytes(data[:start] + b"\xff" * size + data[start + size :])
    with pytest.raises(UserError, match="cannot be decoded"):
        read_audio(path)


# -------------------- clocks


def blocks(pieces: list[tuple[float | None, int, int]], rate: int, *, by_stamps: bool) -> list[AudioBlock]:
    """Blocks of frames of ones: (time stamp in seconds, samples, rate)."""
    frames = []
    for time, count, own in pieces:
        frame = av.AudioFrame.from_ndarray(np.ones((1, count), np.float32), format="flt", layout="mono")
        frame.sample_rate = own
        if time is not None:
            frame.time_base, frame.pts = Fraction(1, 1_000_000), round(time * 1_000_000)
        frames.append(frame)
    return list(audio_blocks(frames, rate, by_stamps=by_stamps))


def test_rate_conversion_has_no_delay() -> None:
    rate, click = 44_100, 20_000
    wave = np.zeros((1, 44_100), dtype=np.float32)
    wave[0, click - 2 : click + 3] = 1.0
    resampler = Resampler(rate, RATE, 1)
    pieces = [resampler.add(piece) for piece in np.array_split(wave, 37, axis=1)]
    out = np.concatenate([*pieces, resampler.finish()], axis=1)[0]
    assert abs(int(out.argmax()) - click * RATE / rate) <= 1 and abs(len(out) - RATE) <= 1


def test_stamps_place_audio_and_near_ones_join() -> None:
    found = blocks([(-0.05, 100, 1000 * 4), (-0.024, 100, 4000), (0.5, 100, 4000)], 4000, by_stamps=True)
    assert [block.start for block in found] == [-200, -100, 2000]
    track = AudioTrack(iter(found), 4000)
    placed, covered = track.read(-0.05, 2300)
    assert placed[0, :200].min() == 1 and placed[0, 200:2200].max() == 0 and placed[0, 2200:].min() == 1
    assert covered == pytest.approx(300 / 2300) and track.first() == -0.05


def test_a_later_stamp_overwrites_and_an_unstamped_frame_goes_on() -> None:
    found = blocks([(None, 50, 4000), (1.0, 400, 4000), (1.05, 100, 4000), (None, 100, 4000)], 4000, by_stamps=True)
    assert [block.start for block in found] == [4000, 4200, 4300]


def test_counted_audio_begins_at_zero_and_keeps_only_holes() -> None:
    stamps = [(7.0, 400, 4000), (7.1, 400, 4000), (7.7, 400, 4000), (900.0, 400, 4000), (3.0, 400, 4000)]
    found = blocks(stamps, 4000, by_stamps=False)
    assert [block.start for block in found] == [0, 400, 2800, 3200, 3600]


def test_a_stamp_of_no_time_and_a_rate_of_no_recorder() -> None:
    with pytest.raises(BrokenTimeStamps):
        blocks([(1e11, 10, 4000)], 4000, by_stamps=True)
    with pytest.raises(BrokenAudio, match="3000 Hz"):
        blocks([(0.0, 10, 3000)], 4000, by_stamps=True)


def test_reading_in_parts_is_reading_the_whole() -> None:
    wave = np.random.default_rng(0).normal(0, 0.2, 3 * 44_100).astype(np.float32)
    frames = []
    for start in range(0, len(wave), 1152):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1152], format="flt", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 44_100, Fraction(1, 44_100), start + 5 * 44_100
        frames.append(frame)
    whole, _ = AudioTrack(audio_blocks(frames, RATE, by_stamps=True), RATE).read(5.0, 3 * RATE)
    track = AudioTrack(audio_blocks(frames, RATE, by_stamps=True), RATE)
    parts = [track.read(5.0 + 0.12 * index, 1920)[0] for index in range(25)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole) and track.first() == 5.0


def second_by_second(starts: Iterator[int], asked: list[int]) -> Iterator[AudioBlock]:
    for start in starts:
        asked.append(start)
        yield AudioBlock(start, np.ones((1, RATE), dtype=np.float32))


def test_audio_whose_time_stands_still_is_refused_before_it_fills_the_memory() -> None:
    asked: list[int] = []
    track = AudioTrack(second_by_second((0 for _ in range(100_000)), asked), RATE)
    with pytest.raises(BrokenTimeStamps):
        track.read(0.0, RATE)
    assert len(asked) < 80


def test_hours_of_audio_before_the_next_frame_are_not_held() -> None:
    asked: list[int] = []
    track = AudioTrack(second_by_second((RATE * second for second in range(30_000)), asked), RATE)
    wave, share = track.read(28_800.0, 160_000)
    assert share == 1.0 and wave.min() == 1.0 and len(asked) > 28_800
    assert sum(block.samples.shape[1] for block in track._held) <= 13 * RATE


def test_a_stream_that_begins_late_is_told() -> None:
    class Late:
        """What PyAV does there: found by flipping bits of MPEG files."""

        def demux(self, stream: object) -> Iterator[object]:
            raise IndexError("list index out of range")
            yield

    with pytest.raises(UserError, match="a stream begins in the middle"):
        next(decoded_frames(Late(), None))
