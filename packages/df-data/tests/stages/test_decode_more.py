"""Which track of a file is taken, fields made frames, low rates, cancelling channels and files without their end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition

from df_data.stages.decode import DecodedClip, iter_segments
from df_data.stages.faces import FaceFilter
from df_data.stages.prepare import StageConfig, _check_frames, _usable_shot, prepare_general
from df_data.stages.rejection import Rejected
from df_models.containers import FileCutOff
from df_models.crop import CropRule
from df_models.errors import UserError
from df_models.media import read_audio, read_video, write_video
from df_models.truncation import is_cut_off

RATE = 16_000


def decoded(path: Path, **options: object) -> DecodedClip:
    (clip,) = iter_segments(path, min_seconds=0.1, **options)  # type: ignore[arg-type]
    return clip


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def write(path: Path, tracks: Sequence[np.ndarray], default: int, layout: str = "mono") -> Path:
    """A second of grey video with audio tracks ``[C, N]``, of which one is the default."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        streams = [container.add_stream("flac", rate=RATE, layout=layout) for _ in tracks]
        for index, stream in enumerate(streams):
            stream.disposition = Disposition.default if index == default else Disposition(0)
        for index in range(25):
            image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            image.pts, image.time_base = index, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        for stream, track in zip(streams, tracks, strict=True):
            pcm = np.ascontiguousarray((32767 * track).astype(np.int16).T.reshape(1, -1))
            sound = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_is_heard(tmp_path: Path, default: int) -> None:
    tracks = [tone(300)[None], tone(1000)[None]]
    path = write(tmp_path / "two.mkv", tracks, default)
    for heard in (decoded(path).wave[: RATE // 2], read_audio(path)[: RATE // 2]):
        strongest = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
        assert strongest == pytest.approx((300, 1000)[default], abs=3)


def test_channels_that_cancel_each_other_are_told_by_their_name(tmp_path: Path) -> None:
    wave = tone(300)
    opposite = decoded(write(tmp_path / "a.mkv", [np.stack([wave, -wave])], 0, "stereo"))
    alike = decoded(write(tmp_path / "b.mkv", [np.stack([wave, tone(500)])], 0, "stereo"))
    assert opposite.antiphase and not alike.antiphase
    with pytest.raises(Rejected, match="upside down") as told:
        _usable_shot(opposite, StageConfig(), {})
    assert told.value.reason == "antiphase_sound"
    _usable_shot(alike, StageConfig(), {})


def test_fields_become_whole_frames(tmp_path: Path) -> None:
    """A bar that moves between the fields of a frame is a comb; without a filter every second row differed."""
    frames = np.zeros((12, 64, 96, 3), np.uint8)
    for index, frame in enumerate(frames):
        for field in (0, 1):
            left = 4 * (2 * index + field)
            frame[field::2, left : left + 16] = 220
    with av.open(str(tmp_path / "fields.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    clip = decoded(tmp_path / "fields.mp4", needs_audio=False)
    assert clip.frames.shape == frames.shape and clip.source_fps == pytest.approx(25)
    assert np.abs(np.diff(clip.frames.astype(int), axis=1)).mean() < 1
    lefts = [int(np.flatnonzero(frame[31, :, 0] > 110)[0]) for frame in clip.frames[1:11]]
    assert len(set(np.array(lefts) - 8 * np.arange(1, 11))) == 1, "each at the time of the same of its fields"


@pytest.mark.parametrize(("rate", "taken"), [(10, False), (12, False), (15, False), (20, True), (24, True), (30, True)])
def test_low_rates_are_refused(tmp_path: Path, rate: int, taken: bool) -> None:
    frames = np.full((2 * rate, 32, 32, 3), 90, np.uint8)
    write_video(tmp_path / "v.mp4", frames, fps=rate)
    (made,) = prepare_general(tmp_path / "v.mp4", StageConfig(size=32, min_seconds=1))
    assert (made.reason if isinstance(made, Rejected) else "") == ("" if taken else "frame_rate_too_low")
    (made,) = prepare_general(tmp_path / "v.mp4", StageConfig(size=32, min_seconds=1, min_source_fps=0))
    assert not isinstance(made, Rejected)


@pytest.mark.parametrize(("rate", "taken"), [(20000 / 1001, True), (19.9999, True), (19.0, False)])
def test_a_rate_is_a_mean_of_time_stamps(rate: float, taken: bool) -> None:
    clip = SimpleNamespace(source_fps=rate, damaged_frames=0, frames=[0])
    with contextlib.nullcontext() if taken else pytest.raises(Rejected, match="frame_rate_too_low"):
        _check_frames(clip, StageConfig(), {})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("side", "filters", "least"),
    [
        (256, {}, 98.5),
        (512, {}, 196.9),
        (64, {}, 49.2),
        (256, {"max_enlargement": 1}, 196.9),
        (256, {"min_face": 7}, 7),
    ],
)
def test_the_least_face_follows_the_size(side: int, filters: dict[str, float], least: float) -> None:
    found = FaceFilter.model_validate(filters).least_face(side, CropRule.parse("yunet:1.3:-0.03"))
    assert found == pytest.approx(least, abs=0.1)


def remuxed(source: Path, target: Path, **options: str) -> Path:
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


def noisy(path: Path) -> Path:
    """Write 2 s of video of which every second takes about as many bytes."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    write_video(path, np.stack([np.roll(noise, index, axis=1) for index in range(50)]), audio=tone(300, 2.0))
    return path


def shortened(source: Path, keep: float, drop: int = 0) -> Path:
    target = source.with_stem(f"{source.stem}-cut")
    target.write_bytes(source.read_bytes()[: int(keep * source.stat().st_size) - drop])
    return target


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_a_file_cut_off_is_told_as_truncated(tmp_path: Path, options: dict[str, str]) -> None:
    whole = remuxed(noisy(tmp_path / "made.mp4"), tmp_path / "whole.mp4", **options)
    assert not is_cut_off(whole) and len(decoded(whole).frames) == 50
    (tmp_path / "more.mp4").write_bytes(whole.read_bytes() + b"SEFH\x6b\0\0\0SEFT")  # as a maker of phones adds it
    assert not is_cut_off(tmp_path / "more.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    with pytest.raises(FileCutOff, match=r"cut\.mp4 is truncated"):
        list(iter_segments(cut))
    if not options:  # without its index, no command can read it
        with pytest.raises(UserError, match="truncated"):
            read_video(cut)


@pytest.mark.parametrize("options", [{}, {"cluster_time_limit": "400"}, {"cues_to_front": "1"}])
def test_a_matroska_file_cut_off_is_told_as_truncated(tmp_path: Path, options: dict[str, str]) -> None:
    whole = remuxed(noisy(tmp_path / "made.mp4"), tmp_path / "whole.mkv", **options)
    assert not is_cut_off(whole) and len(decoded(whole).frames) == 50
    behind = shortened(whole, 1.0, 3)
    assert is_cut_off(behind) == ("cues_to_front" in options)  # else its index alone is shorter
    for share in (0.7, 0.3):
        with pytest.raises(FileCutOff, match=r"whole-cut\.mkv is truncated"):
            list(iter_segments(shortened(whole, share), min_seconds=0.2))
    cut = shortened(whole, 0.7)
    assert len(list(iter_segments(cut, min_seconds=0.2, segment_seconds=0.4, max_seconds=0.8))) == 2  # enough of it


def test_a_flash_video_cut_off_within_a_tag_is_told_as_truncated(tmp_path: Path) -> None:
    whole = remuxed(noisy(tmp_path / "made.mp4"), tmp_path / "whole.flv")
    assert not is_cut_off(whole) and len(decoded(whole).frames) == 50
    for share in (0.7, 0.3):
        with pytest.raises(FileCutOff, match=r"whole-cut\.flv is truncated"):
            list(iter_segments(shortened(whole, share), min_seconds=0.2))
    assert not is_cut_off(shortened(whole, 1.0, 4)), "the length after the last tag"
    data, at = whole.read_bytes(), 13
    while at < 0.6 * len(data):
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    within = tmp_path / "within.flv"
    within.write_bytes(data[: at + 5])
    with pytest.raises(FileCutOff, match=r"within\.flv is truncated"):  # within a tag's head
        list(iter_segments(within, min_seconds=0.2))


def test_a_wrong_length_over_whole_media_is_not_truncation(tmp_path: Path) -> None:
    made = noisy(tmp_path / "made.mp4")
    fast = remuxed(made, tmp_path / "fast.mp4", movflags="faststart").read_bytes()
    at = fast.index(b"mdat")
    flash = remuxed(made, tmp_path / "a.flv").read_bytes()
    mkv = remuxed(made, tmp_path / "a.mkv").read_bytes()
    segment = mkv.index(b"\x18\x53\x80\x67") + 4
    files = {
        "long.mp4": fast[: at - 4] + (int.from_bytes(fast[at - 4 : at], "big") + 100).to_bytes(4, "big") + fast[at:],
        "long.mkv": mkv[:segment] + b"\x01\x00" + b"\xff" * 6 + mkv[segment + 8 :],
        "text.flv": flash + b"generated by a tool",
    } | {f"{count}.flv": flash + bytes(count) for count in (1, 10, 100, 512, 4096)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert len(decoded(tmp_path / name).frames) == 50, name


def test_what_tells_no_length_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    made = noisy(tmp_path / "made.mp4")
    for whole in (remuxed(made, tmp_path / "live.mkv", live="1"), remuxed(made, tmp_path / "stream.ts")):
        cut = shortened(whole, 0.7)
        assert not is_cut_off(whole) and not is_cut_off(cut) and 20 < len(decoded(cut).frames) < 50


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a\x45\xdf\xa3",
        b"\x1a\x45\xdf\xa3" + b"\0" * 40,
        b"",
        b"\0\0\0\0",
        b"RIFF1234AVI ",
        b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
        b"\0\0\0\x03ftyp" + b"\0" * 40,
    ],
)
def test_other_damage_is_not_called_truncated(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert not is_cut_off(tmp_path / "x") and not is_cut_off(tmp_path / "none")
