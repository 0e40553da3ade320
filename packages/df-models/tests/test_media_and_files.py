"""Audio, images, video and files: what is read back, what is refused, and that nothing stands half written."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from df_models import media
from df_models.cli_support import CommandParser, run_cli
from df_models.errors import UserError, nearest
from df_models.files import atomic_path, atomic_write, safe_join
from df_models.structure import FLAME_159, LIVEPORTRAIT_70

RNG = np.random.default_rng(0)
TONE = (0.5 * np.sin(2 * np.pi * 220 * np.arange(32_000) / 16_000)).astype(np.float32)
FRAMES = RNG.integers(0, 255, (13, 32, 48, 3), dtype=np.uint8)


def test_wav_round_trip(tmp_path):
    media.write_wav(tmp_path / "a.wav", TONE)
    assert np.abs(media.read_audio(tmp_path / "a.wav") - TONE).max() < 1e-4


def test_lossless_video_round_trip_with_audio_in_time(tmp_path):
    assert media.write_video(tmp_path / "a.mp4", FRAMES, audio=TONE, lossless=True) == len(FRAMES)
    frames, fps = media.read_video(tmp_path / "a.mp4")
    assert fps == 25 and np.array_equal(frames, FRAMES)
    audio = media.read_audio(tmp_path / "a.mp4")[1000:8000]
    assert np.corrcoef(audio, TONE[1000:8000])[0, 1] > 0.99


def test_audio_and_video_lie_interleaved_and_end_together(tmp_path):
    """A player that reads from the net needs both within about a second; here the audio is shorter than the video."""
    av = pytest.importorskip("av")
    frames = (FRAMES[index % 13] for index in range(400))
    media.write_video(tmp_path / "a.mp4", frames, audio=np.tile(TONE, 5), crf=30)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [(p.pos, float(p.dts * p.time_base), p.stream.type) for p in container.demux() if p.dts is not None]
    packets.sort()
    latest = {"audio": 0.0, "video": 0.0}
    apart = []
    for _, time, kind in packets:
        latest[kind] = time
        apart.append(abs(latest["audio"] - latest["video"]))
    assert max(apart) < 1.0
    assert latest["audio"] == pytest.approx(16.0, abs=0.1) and latest["video"] == pytest.approx(16.0, abs=0.2)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_audio_is_in_time_with_the_video(tmp_path, rate):
    """A flash and a click at 1.2 s come back within a millisecond of each other."""
    av = pytest.importorskip("av")
    frames = [np.full((32, 32, 3), 230 if index == 30 else 20, np.uint8) for index in range(60)]
    wave = np.zeros(int(2.4 * rate), np.float32)
    wave[round(1.2 * rate) : round(1.2 * rate) + rate // 1000] = 0.9
    media.write_video(tmp_path / "a.mp4", frames, audio=wave, sample_rate=rate)
    with av.open(str(tmp_path / "a.mp4")) as container:
        seen = [(float(f.time), f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    with av.open(str(tmp_path / "a.mp4")) as container:
        heard = [(float(f.time), f.to_ndarray()[0]) for f in container.decode(audio=0)]
    assert heard[0][0] <= 0.0
    flash = max(seen, key=lambda pair: pair[1])[0]
    start, piece = max(heard, key=lambda pair: np.abs(pair[1]).max())
    click = start + int(np.abs(piece).argmax()) / rate
    assert abs(click - flash) < 0.0015


@pytest.mark.parametrize("side", [64, 160])
def test_the_same_frames_make_the_same_file(tmp_path, side):
    """x264's macroblock tree read past its rows, so that what lay in memory before decided."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (33, side // 8, side // 8, 3)).astype(np.uint8)
    frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
    files = set()
    for index in range(6):
        memory = [rng.integers(0, 255, rng.integers(1, 200_000)).astype(np.uint8) for _ in range(20)]
        media.write_video(tmp_path / f"{index}.mp4", frames)
        files.add((tmp_path / f"{index}.mp4").read_bytes())
        del memory
    assert len(files) == 1


def test_image_round_trip(tmp_path):
    media.write_image(tmp_path / "a.png", FRAMES[0])
    assert np.array_equal(media.read_image(tmp_path / "a.png"), FRAMES[0])


@pytest.mark.parametrize("read", [media.read_audio, media.read_video, media.read_image])
def test_what_cannot_be_read_is_one_sentence(tmp_path, read):
    (tmp_path / "text.mp4").write_text("no media at all")
    for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(UserError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_an_image_has_no_audio(tmp_path):
    media.write_image(tmp_path / "a.png", FRAMES[0])
    with pytest.raises(UserError, match="no audio"):
        media.read_audio(tmp_path / "a.png")


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"old")

    def frames():
        yield FRAMES[0]
        raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(OSError, match="no space"):
        media.write_video(target, frames())
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_atomic_path_renames_only_on_success(tmp_path):
    atomic_write(tmp_path / "a.txt", "one")

    def fail():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("two")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.txt").read_text() == "one"
    with pytest.raises(UserError, match="does not exist"), atomic_path(tmp_path / "no" / "a.txt"):
        pass


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "", "a\0b", "a\\b"])
def test_names_from_outside_are_not_paths(tmp_path, name):
    with pytest.raises(UserError, match="unsafe"):
        safe_join(tmp_path, name)


def test_exit_codes(capsys):
    def fail(error):
        def main(_):
            raise error

        return main

    assert run_cli(lambda _: None, "x", []) == 0
    assert run_cli(fail(UserError("wrong\nhere")), "x", []) == 2
    assert capsys.readouterr().err == "x: error: wrong here\n"
    assert run_cli(fail(OSError(errno.ENOSPC, "full")), "x", []) == 3
    assert run_cli(fail(KeyboardInterrupt()), "x", []) == 130
    with pytest.raises(ZeroDivisionError):
        run_cli(fail(ZeroDivisionError()), "x", [])


def test_nearest_names_only_what_is_close():
    assert nearest("lenght", ["length", "width"]) == " (did you mean 'length'?)"
    assert nearest("zzz", ["length"]) == ""


def test_named_fields():
    assert (LIVEPORTRAIT_70.dim, FLAME_159.dim) == (70, 159)
    assert LIVEPORTRAIT_70.slice("roll") == slice(65, 66)
    assert FLAME_159.names[FLAME_159.slice("pose")][3] == "pose[3]"
    with pytest.raises(UserError, match="did you mean 'yaw'"):
        LIVEPORTRAIT_70.slice("yow")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--fre"], "unrecognized arguments: --fre (did you mean '--fresh'?)"),
        (["make", "--imgae", "x"], "unrecognized arguments: --imgae x (did you mean '--image'?)"),
        (["make", "--zzz"], "make: error: unrecognized arguments: --zzz; see"),
        (["make", "--fresh"], "make: error: unrecognized arguments: --fresh; see"),
        (["--frehs", "make"], "df-x: error: unrecognized arguments: --frehs (did you mean '--fresh'?); see"),
    ],
)
def test_options_are_taken_whole_and_the_nearest_is_named(argv: list[str], told: str, capsys) -> None:
    parser = CommandParser("df-x")
    parser.add_argument("--fresh", action="store_true")
    commands = parser.add_subparsers()
    commands.add_parser("make").add_argument("--image")
    with pytest.raises(SystemExit):
        parser.parse_args(argv)
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("df-x") and error.count("\n") == 1
    assert parser.parse_args(["--fresh", "make", "--image", "x"]).fresh


def test_bt709_is_decoded_as_bt709():
    """PyAV before 17 took BT.601's matrix: this red became (223, 135, 79)."""
    av = pytest.importorskip("av")
    frame = av.VideoFrame(16, 16, "yuv420p")
    for plane, value in zip(frame.planes, (150, 90, 170)):
        plane.update(np.full(plane.buffer_size, value, np.uint8).tobytes())
    frame.colorspace, frame.color_range = 1, 1
    luma, blue, red = (150 - 16) / 219, (90 - 128) / 224, (170 - 128) / 224
    wanted = [luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue]  # Recommendation BT.709
    assert np.abs(frame.to_ndarray(format="rgb24")[8, 8] - 255 * np.array(wanted)).max() <= 1.5


def test_one_scaler_makes_the_pixels_that_a_scaler_for_each_frame_makes() -> None:
    """Also where size, matrix and range change from frame to frame."""
    av = pytest.importorskip("av")
    rng, frames = np.random.default_rng(0), []
    for height, matrix, span in ((64, 1, 1), (64, 5, 1), (32, 1, 1), (64, 1, 2), (64, 9, 1), (64, 1, 1)):
        planes = rng.integers(0, 256, size=(height * 3 // 2, 48), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = matrix, span
        frames.append(frame)
    one = media.Scaler()
    for frame in frames:
        np.testing.assert_array_equal(one.rgb(frame), frame.to_ndarray(format="rgb24"))
        wide = frame.to_ndarray(format="rgb48", width=20, height=36)
        np.testing.assert_array_equal(one.rgb(frame, "rgb48", 20, 36), wide)
