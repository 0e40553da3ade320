"""What stands beside videos: sidecars and word times that are broken; and names that would be one."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from broken_junk import lists, png
from broken_models import PaperDetector, PaperReader
from broken_render import CONTAINERS, Recipe, render

from df_data.build.rejects import file_image
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import list_inputs
from df_data.sources.names import LONGEST_NAME
from df_data.sources.words import read_words
from df_data.stages.decode import _decoded, iter_segments
from df_data.stages.faces import FaceFilter
from df_data.stages.prepare import StageConfig, StageModels, prepare_clips
from df_data.stages.quality import QualityFilter
from df_models.errors import UserError
from df_models.media import read_audio

GRID = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n"
SIDECARS = {
    "empty": b"",
    "text": b"not json",
    "null": b"null",
    "list": b"[]",
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "half": b'{"version": 1, "clip": "a"',
    "wrong types": b'{"version": "one", "clip": 3, "dataset": [], "url": {}}',
    "version": b'{"version": 10000000000000000000000000000000}',
}
ALIGNMENTS = {
    "empty line of two": b"0 1\n",
    "four words": b"0 1 a b\n",
    "no number": b"a b c\n",
    "fraction": b"0.5 1.5 a\n",
    "long number": b"0 " + b"9" * 4200 + b" a\n",
    "longer number": b"0 " + b"9" * 5000 + b" a\n",
    "other script": "0 1 é\n".encode(),
    "bytes": bytes(range(256)),
    "endless": b"0 1 a\n" * 400_000,
}


def sources(folder: Path, **settings: str) -> tuple[SourceConfig, ...]:
    return (SourceConfig(name="s", folder=str(folder), pattern="**/*", licence="x", **settings),)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SIDECARS)
def test_a_broken_sidecar_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.json").write_bytes(SIDECARS[name])
    source = sources(tmp_path, identity="sidecar")[0].model_copy(update={"pattern": "*.mp4"})
    with pytest.raises(UserError, match=r"a\.json: (damaged|version)") as told:
        list_inputs((source,), SplitConfig())
    assert "\n" not in str(told.value)


GOOD = {
    "version": 1, "clip": "a", "dataset": "d", "url": "http://h/a", "licence": "x", "person": "p",
    "person_listed": True, "listed_start_s": 0.0, "listed_end_s": None, "start_s": 0.0, "end_s": 1.0,
    "crop": [0, 0, 4, 4], "source_width": 4,
    "source_height": 4, "frames": 25, "sound_rate": None, "tool": "t", "bytes": 0, "sha256": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("start_s", "NaN"), ("end_s", "1e999"), ("crop", f"[0, 0, 4, {10**400}]"), ("person", '"../../etc"')],
)  # fmt: skip
def test_numbers_that_are_none_are_named(tmp_path: Path, field: str, value: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    (tmp_path / "b.json").write_text(json.dumps(GOOD | {"person": "q"}))
    source = sources(tmp_path, identity="sidecar")[0].model_copy(update={"pattern": "*.mp4"})
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert [made.identity for made in list_inputs((source,), SplitConfig())] == ["s-p", "s-q"]
    text = json.dumps({name: other for name, other in GOOD.items() if name != field})
    (tmp_path / "a.json").write_text(f'{text[:-1]}, "{field}": {value}}}')
    with pytest.raises(UserError, match=rf"a\.json: damaged: {field}"):
        list_inputs((source,), SplitConfig())


def test_a_sidecar_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    os.mkfifo(tmp_path / "a.json")
    source = sources(tmp_path, identity="sidecar")[0].model_copy(update={"pattern": "*.mp4"})
    with pytest.raises(UserError, match=r"a\.json: not a plain file"):
        list_inputs((source,), SplitConfig())


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_broken_word_times_are_named_without_their_place(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.align"
    path.write_bytes(ALIGNMENTS[name])
    with pytest.raises(UserError, match=r"^a\.align is not a GRID alignment") as told:
        read_words(path)
    assert "\n" not in str(told.value)


def test_word_times_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.align")
    (tmp_path / "b.align").mkdir()
    for name in ("a.align", "b.align"):
        with pytest.raises(UserError, match="is not a GRID alignment"):
            read_words(tmp_path / name)
    with pytest.raises(UserError, match=r"^no word times c\.align"):
        read_words(tmp_path / "c.align")


@pytest.mark.parametrize("seed", range(4))
def test_changed_word_times_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    rng, path, ends = random.Random(seed), tmp_path / "a.align", Counter[str]()
    for _ in range(200):
        data = bytearray(GRID.encode())
        for _ in range(rng.choice([1, 3])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            ends["read"] += all(np.isfinite([start, end]).all() for _, start, end in read_words(path))
        except UserError as error:
            ends["refused"] += "\n" not in str(error)
    assert ends.total() == 200 and ends["read"] and ends["refused"]


# -------------------- names


def touched(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_names_that_would_be_one_key_are_told_apart_and_others_keep_theirs(tmp_path: Path) -> None:
    names = ["日本.mp4", "中国.mp4", "a b.mp4", "a_b.mp4", "c.mp4", "c.mkv", "plain.mp4", os.fsdecode(b"\xff.mp4")]
    found = {made.path.name: made for made in list_inputs(sources(touched(tmp_path, names)), SplitConfig())}
    assert len({made.key for made in found.values()}) == len({made.name for made in found.values()}) == len(names)
    assert found["plain.mp4"].key == found["plain.mp4"].identity == "s-plain"
    assert found["日本.mp4"].identity != found["中国.mp4"].identity, "two people"
    assert found["c.mp4"].identity == found["c.mkv"].identity == "s-c", "one person in two files"
    assert all(len(made.key) <= LONGEST_NAME and made.name.isprintable() for made in found.values())
    again = {made.path.name: made for made in list_inputs(sources(tmp_path), SplitConfig())}
    assert again == found


def test_no_input_is_named_like_a_later_stretch_of_another(tmp_path: Path) -> None:
    names = ["talk.mp4", "talk-s0001.mp4", "other-s0001.mp4"]
    found = {made.path.name: made.key for made in list_inputs(sources(touched(tmp_path, names)), SplitConfig())}
    assert found["talk.mp4"] == "s-talk" and found["other-s0001.mp4"] == "s-other-s0001"
    assert found["talk-s0001.mp4"].startswith("s-talk-s0001-") and not found["talk-s0001.mp4"].endswith("s0001")


def test_people_whose_folders_have_names_in_other_scripts_stay_two(tmp_path: Path) -> None:
    touched(tmp_path, ["王/1.mp4", "王/2.mp4", "李/1.mp4"])
    inputs = list_inputs(sources(tmp_path, identity="folder"), SplitConfig())
    assert sorted(Counter(made.identity for made in inputs).values()) == [1, 2]


def test_unprintable_names_are_one_line_and_never_alike(tmp_path: Path) -> None:
    touched(tmp_path, ["a\nb.mp4", "a\\nb.mp4", "a\x1b[2J.mp4", os.fsdecode(b"\xfe.mp4")])
    names = [made.name for made in list_inputs(sources(tmp_path), SplitConfig())]
    assert sorted(names) == ["s/\\udcfe.mp4", "s/a\\\\nb.mp4", "s/a\\nb.mp4", "s/a\\x1b[2J.mp4"]


def test_what_is_no_file_is_an_input_too_so_that_it_leaves_a_line(tmp_path: Path) -> None:
    touched(tmp_path, ["a.mp4", "folder.mp4/b.mp4"])
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = [made.path.name for made in list_inputs(sources(tmp_path), SplitConfig())]
    assert found == ["a.mp4", "b.mp4", "gone.mp4", "pipe.mp4"]


# -------------------- audio and images


def test_lists_are_followed_neither_for_audio_nor_for_an_image(tmp_path: Path) -> None:
    render(tmp_path / "audio.ts", CONTAINERS["ts"])
    render(tmp_path / "audio.mp4", CONTAINERS["mp4"])
    assert len(read_audio(tmp_path / "audio.ts")) > 30_000 and file_image(tmp_path / "audio.mp4") is not None
    for case in lists("audio.ts", tmp_path / "audio.ts", "http://127.0.0.1:9"):
        case.write(tmp_path / case.name)
        with pytest.raises(UserError):
            read_audio(tmp_path / case.name)
        assert file_image(tmp_path / case.name) is None


def test_no_image_is_made_of_a_bomb(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(16_384, 16_384, 16_384))
    (tmp_path / "small.png").write_bytes(png(640, 480, 480))
    assert file_image(tmp_path / "bomb.png") is None and file_image(tmp_path / "small.png") is not None


def test_an_image_that_was_cut_off_refuses_its_stretch_and_no_other(tmp_path: Path) -> None:
    """An MPEG of 8 s of which a third came: its last stretch holds an image of which only a part came."""
    path = tmp_path / "a.mpg"
    render(path, replace(CONTAINERS["mpg"], times=tuple(np.arange(200) / 25)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 31 // 100])
    damaged = [part.damaged_frames for part in iter_segments(path, segment_seconds=2.0, min_seconds=0.5)]
    assert len(damaged) >= 2 and damaged[-1] == 1 and not any(damaged[:-1])
    off = {name: {"enabled": False} for name in ("voice", "noise", "sync", "occlusion")}
    quality = QualityFilter.model_validate(off)
    stages = StageConfig(segment_seconds=2.0, min_seconds=0.5, faces=FaceFilter(min_face=8), quality=quality)
    reasons = [
        getattr(found, "reason", "")
        for found in prepare_clips(path, stages, StageModels(PaperDetector(), PaperReader()))
    ]  # type: ignore[arg-type]
    assert reasons[-1] == "damaged_pictures" and "damaged_pictures" not in reasons[:-1]


class LateStream:
    """What PyAV does where a stream begins late: found by flipping bits of MPEG files."""

    def decode(self, stream: object) -> Iterator[object]:
        yield "frame"
        raise IndexError("list index out of range")


def test_a_stream_that_begins_late_is_told() -> None:
    frames = _decoded(LateStream(), None)
    assert next(frames) == "frame"
    with pytest.raises(UserError, match="a stream begins in the middle"):
        next(frames)


def test_text_in_a_file_that_is_no_utf8_is_no_reason_to_refuse_it(tmp_path: Path) -> None:
    render(tmp_path / "a.mkv", Recipe(format="matroska", audio="flac"))
    data = (tmp_path / "a.mkv").read_bytes()
    assert data.count(b"Lavf") >= 1
    (tmp_path / "a.mkv").write_bytes(data.replace(b"Lavf", b"L\xe4\xf6f"))
    assert len(read_audio(tmp_path / "a.mkv")) > 30_000
