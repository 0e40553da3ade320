"""Folders of another system's videos: what is wrong with them is told by name and mended only where that is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fabricated import signal

from df_eval.clips import EvalClip
from df_eval.config import BaselineConfig
from df_eval.rows import baseline
from df_eval.rows.baseline import FolderSystem
from df_eval.rows.folders import check_folders, read_folder, read_folders
from df_eval.rows.generation import Generated
from df_eval.rows.sound_offset import sound_offset
from df_eval.rows.systems import LeftOut
from df_models.errors import UserError
from df_models.media import write_video

LENGTH, SIZE = 50, 32
KEYS = ("right", "late", "fast", "large", "short", "silent", "other", "twice", "broken", "gone", "longer", "wide",
        "turned", "mirrored", "cut", "damaged")  # fmt: skip
FRAMES = (25, 33)
DECODE = baseline._decode


def speech(index: int, length: int = LENGTH) -> np.ndarray:
    return (0.2 * signal(640 * length, index, width=4.0) / 0.3).astype(np.float32)


def images(index: int, length: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A bright block that walks: every frame another, which survives the codec."""
    frames = np.full((length, height, width, 3), 60, np.uint8)
    for place in range(length):
        start = (4 * place + 4 * index) % (width - 8)
        frames[place, 8:16, start : start + 8] = 220
    return frames


def clip(index: int, key: str) -> EvalClip:
    return EvalClip(key, key, images(index, LENGTH), speech(index), {})


@pytest.fixture(scope="module")
def clips() -> list[EvalClip]:
    return [clip(index, key) for index, key in enumerate(KEYS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clips: list[EvalClip]) -> Path:
    root = tmp_path_factory.mktemp("baseline")
    own = {clip.key: clip for clip in clips}

    def write(key: str, frames: np.ndarray, wave: np.ndarray | None, fps: int = 25, ending: str = "mp4") -> None:
        write_video(root / f"{key}.{ending}", frames, audio=wave, fps=fps)

    late = np.concatenate([np.zeros(640 * 5, np.float32), own["late"].wave_N])
    write("right", own["right"].frames_THWC, own["right"].wave_N)
    write("late", np.concatenate([own["late"].frames_THWC[:1]] * 5 + [own["late"].frames_THWC]), late)
    write("fast", images(2, LENGTH * 2), own["fast"].wave_N, fps=50)
    write("large", images(3, LENGTH, 64, 64), own["large"].wave_N)
    write("short", own["short"].frames_THWC[:29], own["short"].wave_N)
    write("silent", own["silent"].frames_THWC, None)
    write("other", own["other"].frames_THWC, speech(99))
    write("twice", own["twice"].frames_THWC, own["twice"].wave_N)
    (root / "twice.mov").write_bytes((root / "twice.mp4").read_bytes())
    (root / "broken.mp4").write_bytes(b"no video")
    write("longer", images(10, LENGTH + 60), np.pad(own["longer"].wave_N, (0, 640 * 60)))
    for key, turn in {"turned": (90, False), "mirrored": (0, True)}.items():
        write(key, own[key].frames_THWC, own[key].wave_N)
        retag(root / f"{key}.mp4", *turn)
    for key in ("cut", "damaged"):
        write(key, own[key].frames_THWC, own[key].wave_N)
    cut = root / "cut.mp4"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    damage(root / "damaged.mp4")
    write("wide", images(11, LENGTH, 32, 64), own["wide"].wave_N)
    (root / "stranger.mp4").write_bytes(b"of no clip")
    (root / "notes.txt").write_text("no video")
    return root


def retag(path: Path, rotation: int, mirrored: bool) -> None:
    """Have a file say that its images are to be shown turned."""
    with av.open(str(path)) as source, av.open(str(path.with_suffix(".new.mp4")), "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in source.streams}
        streams[source.streams.video[0].index].set_display_rotation(rotation, hflip=mirrored)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    path.with_suffix(".new.mp4").replace(path)


def damage(path: Path) -> None:
    """Overwrite a few bytes of the file's 31st image, which the decoder then has to guess."""
    with av.open(str(path)) as source:
        place, size = [(packet.pos, packet.size) for packet in source.demux(video=0) if packet.size][30]
    content = bytearray(path.read_bytes())
    begin = place + int(0.6 * size)
    content[begin : begin + 6] = bytes(byte ^ 0x5A for byte in content[begin : begin + 6])
    path.write_bytes(content)


@pytest.fixture(scope="module")
def as_it_is(folder: Path, clips: list[EvalClip]) -> FolderSystem:
    return looked("theirs", folder, clips, FRAMES, BaselineConfig())


def looked(
    row: str, folder: Path, clips: list[EvalClip], frames: tuple[int, ...], config: BaselineConfig
) -> FolderSystem:
    """A folder of which all videos were looked at, as when all clips were measured."""
    system = read_folder(row, folder, clips, frames, config)
    for each in clips:
        system.look(each)
    return system


def test_every_fault_is_told_by_name_in_a_line(as_it_is: FolderSystem) -> None:
    lines = {line.split(": ")[1]: line for line in as_it_is.lines()}
    assert "right" not in lines, "nothing is wrong with it"
    for key, said, end in (
        ("late", "its sound comes 200 ms later", "measured as it is"),
        ("fast", "50 frames a second, not 25", "left out"),
        ("large", "64x64 pixels, not 32x32", "left out"),
        ("short", "29 frames, so not measured at 33", "measured as it is"),
        ("silent", "it has no sound", "measured as it is"),
        ("other", "its sound is not the clip's", "measured as it is"),
        ("twice", "2 files have its name", "left out"),
        ("broken", "broken.mp4", "left out"),
        ("gone", "there is no video of it", "left out"),
        ("longer", "75 or more frames, and the clip has 50", "measured as it is"),
        ("wide", "64x32 pixels, not 32x32", "left out"),
        ("turned", "shown turned by 90 degrees", "measured as it is"),
        ("mirrored", "shown mirrored", "measured as it is"),
        ("cut", "cut.mp4", "left out"),
        ("damaged", "1 of its 50 frames is damaged", "measured as it is"),
    ):
        assert said in lines[key] and lines[key].endswith(end) and "\n" not in lines[key], lines[key]
    assert "1 ('stranger.mp4')" in as_it_is.lines()[-1]
    assert not as_it_is.mended


def test_only_what_can_be_compared_is_measured(as_it_is: FolderSystem, clips: list[EvalClip]) -> None:
    made = dict(zip(KEYS, as_it_is.make(clips, 33, lambda _: None)))
    kept = [key for key, video in made.items() if isinstance(video, Generated)]
    assert kept == ["right", "late", "silent", "other", "longer", "turned", "mirrored", "damaged"]
    right, short = made["right"], made["short"]
    assert isinstance(right, Generated) and right.frames_THWC.shape == (33, SIZE, SIZE, 3)
    assert np.abs(right.frames_THWC.astype(int) - clips[0].frames_THWC[:33]).mean() < 4
    assert isinstance(short, LeftOut) and short.reason == "its video has 29 frames"
    assert isinstance(dict(zip(KEYS, as_it_is.make(clips, 25, lambda _: None)))["short"], Generated)


def frames_of(system: FolderSystem, clips: list[EvalClip]) -> list[Any]:
    """33 frames of each clip; None where there are none."""
    return [getattr(made, "frames_THWC", None) for made in system.make(clips, 33, lambda _: None)]


def test_a_setting_mends_and_says_so(folder: Path, clips: list[EvalClip], as_it_is: FolderSystem) -> None:
    asked = BaselineConfig(resize=True, retime=True, realign=True)
    some = [clip for clip in clips if clip.key in ("late", "fast", "large", "wide")]
    mended = looked("theirs", folder, some, FRAMES, asked)
    assert list(mended.videos) == ["late", "fast", "large"], "another shape would be distorted"
    text = "\n".join(mended.lines())
    assert "late: its sound comes 200 ms later than the clip's: its first 5 frames are left out" in text
    assert all(f"(baseline.{name})" in text for name in ("realign", "retime", "resize"))
    frames = {clip.key: mine for clip, mine in zip(some, frames_of(mended, some)) if mine is not None}
    late = frames["late"].astype(int)
    assert np.abs(late - clips[1].frames_THWC[:33]).mean() < 4
    own = frames_of(as_it_is, some)[0][5:33].astype(int)
    assert np.abs(own - clips[1].frames_THWC[:28]).mean() < 4, "as it is: late"
    every_second = images(2, LENGTH * 2)[::2][:33].astype(int)
    assert np.abs(frames["fast"] - every_second).mean() < 6
    assert frames["large"].shape == (33, SIZE, SIZE, 3)


def walked(image_HWC: np.ndarray) -> int:
    """How far the block of :func:`images` is, in steps of 4 pixels."""
    return round(float(np.argwhere(image_HWC[8:16].mean(axis=(0, 2)) > 140)[:, 0].min()) / 4)


@pytest.mark.parametrize("fps", [24, 30])
def test_videos_of_another_rate_are_told_and_taken_only_where_that_is_asked_for(fps: int, tmp_path: Path) -> None:
    own = [clip(0, "right"), clip(1, "other")]
    write_video(tmp_path / "right.mp4", own[0].frames_THWC, audio=own[0].wave_N)
    theirs = images(1, 2 * fps)
    write_video(tmp_path / "other.mp4", theirs, audio=own[1].wave_N, fps=fps)
    told = looked("theirs", tmp_path, own, FRAMES, BaselineConfig())
    assert list(told.videos) == ["right"] and f"{fps} frames a second, not 25" in told.lines()[0]
    mended = looked("theirs", tmp_path, own, FRAMES, BaselineConfig(retime=True))
    nearest = np.round(np.arange(33) / 25 * fps).astype(int)
    found = frames_of(mended, own)[1]
    assert [walked(image) for image in found] == [walked(image) for image in theirs[nearest]]
    assert [walked(image) for image in found] != [walked(image) for image in theirs[:33]], "as they come: another speed"


def test_width_and_height_that_are_swapped_are_not_resized(tmp_path: Path) -> None:
    right = EvalClip("right", "a", images(0, LENGTH, 32, 48), speech(0), {})
    swapped = EvalClip("swapped", "b", images(1, LENGTH, 32, 48), speech(1), {})
    write_video(tmp_path / "right.mp4", right.frames_THWC, audio=right.wave_N)
    write_video(tmp_path / "swapped.mp4", swapped.frames_THWC.swapaxes(1, 2), audio=swapped.wave_N)
    for resize in (False, True):
        found = looked("theirs", tmp_path, [right, swapped], FRAMES, BaselineConfig(resize=resize))
        assert list(found.videos) == ["right"] and "32x48 pixels, not 48x32" in found.lines()[0]


def test_each_video_is_decoded_once(folder: Path, clips: list[EvalClip], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(baseline, "_decode", lambda path, *rest: decoded.append(path.stem) or DECODE(path, *rest))
    some = [clip for clip in clips if clip.key in ("large", "right", "late", "gone")]
    system = read_folder("theirs", folder, some, FRAMES, BaselineConfig())
    assert decoded == ["right"], "the folder holds a video that can be measured"
    made = [system.make(some, frames, lambda _: None) for frames in (33, 25)]
    for long, short in zip(*made, strict=True):
        assert type(long) is type(short)
    assert sorted(decoded) == ["large", "late", "right"], "the last one is held for its other lengths"
    assert sorted(told.clip for told in system.told) == ["gone", "large", "late"], "each once"


def test_a_video_that_changes_meanwhile_is_told(folder: Path, clips: list[EvalClip], tmp_path: Path) -> None:
    for key in ("right", "late"):
        (tmp_path / f"{key}.mp4").write_bytes((folder / f"{key}.mp4").read_bytes())
    system = looked("theirs", tmp_path, clips[:2], FRAMES, BaselineConfig())
    (tmp_path / "right.mp4").write_bytes((folder / "short.mp4").read_bytes())
    with pytest.raises(UserError, match="the video of right was changed while it was measured"):
        list(system.make(clips[:2], 25, lambda _: None))


def test_names_are_never_paths(tmp_path: Path, folder: Path, clips: list[EvalClip]) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "secret.mp4").write_bytes((folder / "right.mp4").read_bytes())
    outside = EvalClip("../secret", "x", clips[0].frames_THWC, clips[0].wave_N, {})
    with pytest.raises(
        UserError, match=r"none of the 1 clips can be measured \(\.\./secret: there is no video of it\)"
    ):
        read_folder("theirs", tmp_path / "videos", [outside], FRAMES, BaselineConfig())
    with pytest.raises(UserError, match="there is no such folder"):
        read_folder("theirs", tmp_path / "gone", clips, FRAMES, BaselineConfig())


def test_all_bad_folders_are_named_at_once_with_the_setting_that_helps(
    folder: Path, clips: list[EvalClip], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"a=.*no such folder of videos; --baseline b=.*holds no video \(.*\.mp4"):
        check_folders({"a": tmp_path / "gone", "b": tmp_path / "empty", "c": folder})
    check_folders({"c": folder})
    some = [clip for clip in clips if clip.key in ("fast", "large")]
    for key in ("fast", "large", "right"):
        (tmp_path / key).mkdir()
        (tmp_path / key / f"{key}.mp4").write_bytes((folder / f"{key}.mp4").read_bytes())
    bad = {key: tmp_path / key for key in ("fast", "large")}
    for (key, path), helps in zip(bad.items(), ("retime", "resize"), strict=True):
        with pytest.raises(UserError, match=f"baseline.{helps}=true would"):
            read_folders({key: path}, [clip for clip in some if clip.key == key], FRAMES, BaselineConfig())
    with pytest.raises(UserError, match=r"--baseline fast=.*; --baseline large="):
        read_folders({**bad, "right": tmp_path / "right"}, some, FRAMES, BaselineConfig())
    assert len(read_folders({"right": tmp_path / "right"}, clips, FRAMES, BaselineConfig())) == 1


def test_a_file_beyond_the_limit_is_not_decoded(
    folder: Path, clips: list[EvalClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("df_eval.rows.baseline.MOST_BYTES", 100)
    with pytest.raises(UserError, match="the file has more than"):
        read_folder("theirs", folder, clips[:1], FRAMES, BaselineConfig())


@pytest.mark.parametrize("samples", [0, 700, -700, 16_000])
def test_the_offset_of_a_sound_is_found(samples: int) -> None:
    true = speech(5, 75)
    moved = np.roll(true, samples)
    offset, alike = sound_offset(moved + 0.02 * speech(6, 75), true)
    assert offset == samples and alike > 0.9
    assert sound_offset(speech(7, 75), true)[1] < 0.3
    assert sound_offset(np.zeros(1000), true) == (0.0, 0.0)
