"""What a folder of videos becomes before anything is decoded: which files, copies told, who is held out."""

from __future__ import annotations

import contextlib
import errno
import logging
from pathlib import Path

import numpy as np
import pytest

from df_data import cli
from df_data.build.config import BuildConfig
from df_data.build.plain import plain_settings
from df_data.sources import holdout
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.holdout import held_out, lasts
from df_data.sources.listing import Input, list_inputs
from df_data.sources.matching import VIDEOS, matching
from df_models.errors import UserError
from df_models.media import write_video
from df_models.settings import load_config

REPOSITORY = Path(__file__).resolve().parents[3]


def write(folder: Path, *names: str) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} {index}")
    return folder


def names(folder: Path, pattern: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in matching(folder, pattern)]


def test_patterns_know_braces_and_either_case(tmp_path: Path) -> None:
    write(tmp_path, "a.mp4", "b.MOV", "c.Mp4", "Sub/d.MKV", "Sub/notes.txt", "e.wav", "._b.MOV", "[x].mp4")
    assert names(tmp_path, "*.mp4") == ["[x].mp4", "a.mp4", "c.Mp4"]
    assert names(tmp_path, "*.{mp4,mov}") == ["[x].mp4", "a.mp4", "b.MOV", "c.Mp4"]
    assert names(tmp_path, "{sub,other}/*.{mkv,tx{t,s}}") == ["Sub/d.MKV", "Sub/notes.txt"]
    assert names(tmp_path, "[A-B].*") == ["a.mp4", "b.MOV"] and names(tmp_path, "[!a-c].wav") == ["e.wav"]
    assert names(tmp_path, VIDEOS) == ["Sub/d.MKV", "[x].mp4", "a.mp4", "b.MOV", "c.Mp4"]


def test_a_pattern_that_finds_nothing_tells_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "a.MOV", "deep/b.MOV", "c.webm", "d.txt")
    with pytest.raises(UserError, match=r"matches '\*\.mp4'; there are 2 x \.MOV, 1 x \.webm: set pattern"):
        matching(tmp_path, "*.mp4")
    with pytest.raises(UserError, match=r"pattern '/abs/\*'"):
        matching(tmp_path, "/abs/*")


def listed(folder: Path, split: SplitConfig, **source: str) -> dict[str, Input]:
    config = SourceConfig(name="s", folder=str(folder), pattern="**/*", licence="x", **source)  # type: ignore[arg-type]
    return {made.name: made for made in list_inputs((config,), split)}


def test_a_copy_is_told_and_is_no_other_person(tmp_path: Path) -> None:
    write(tmp_path, *(f"{index}.mp4" for index in range(6)))
    for copy in ("0 copy.mp4", "z/0.mp4"):
        (tmp_path / copy).parent.mkdir(exist_ok=True)
        (tmp_path / copy).write_bytes((tmp_path / "0.mp4").read_bytes())
    (tmp_path / "empty").touch()
    (tmp_path / "empty too").touch()
    for salt in "abcd":  # in every split, copies go with their original
        found = listed(tmp_path, SplitConfig(val=3, salt=salt))
        same = {name: made.same_as for name, made in found.items() if made.same_as}
        assert same == {"s/0.mp4": "s/0 copy.mp4", "s/z/0.mp4": "s/0 copy.mp4"}
        assert len({found[name].split for name in (*same, "s/0 copy.mp4")}) == 1
        assert sum(made.split == "val" for made in found.values() if made.same_as is None) == 3


def test_a_file_of_two_sources_is_built_once(tmp_path: Path) -> None:
    write(tmp_path, "v00.mp4", "v10.mp4")
    sources = [
        SourceConfig(name=name, folder=str(tmp_path), pattern=pattern, licence="x")  # type: ignore[arg-type]
        for name, pattern in (("a", "*.mp4"), ("b", "v0*"))
    ]
    same = {made.name: made.same_as for made in list_inputs(tuple(sources), SplitConfig(val=1))}
    assert same == {"a/v00.mp4": None, "a/v10.mp4": None, "b/v00.mp4": "a/v00.mp4"}


@pytest.mark.parametrize(
    ("files", "val", "held"),
    [(1, 16, 0), (2, 16, 1), (5, 16, 2), (40, 16, 16), (3, None, 1), (40, None, 4), (900, None, 16), (1, None, 0)],
)
def test_a_small_folder_holds_out_what_it_can(
    files: int, val: int | None, held: int, caplog: pytest.LogCaptureFixture
) -> None:
    groups = {f"p{index}": [Path(str(index))] for index in range(files)}
    with caplog.at_level(logging.WARNING):
        assert len(held_out(groups, SplitConfig(val=val), 0)) == held
    assert ("split.val=16" in caplog.text) == (val == 16 and held < 16)
    assert ("no validation split" in caplog.text) == (val is None and held == 0)


def test_one_person_cannot_be_held_out(tmp_path: Path) -> None:
    write(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(UserError, match=r"all inputs are of one \(s\); use split.by=sentence"):
        listed(tmp_path, SplitConfig(), identity="source")
    assert sum(made.split == "val" for made in listed(tmp_path, SplitConfig(by="sentence"), identity="source").values())


def test_those_are_held_out_that_are_long_enough(tmp_path: Path) -> None:
    for index, frames in enumerate((10, 40, 10, 40, 10)):
        write_video(tmp_path / f"{index}.mp4", np.full((frames, 16, 16, 3), index, np.uint8))
    assert lasts(tmp_path / "1.mp4") == pytest.approx(1.6) and lasts(tmp_path / "none") == 0
    source = SourceConfig(name="s", folder=str(tmp_path), licence="x")  # type: ignore[arg-type]
    for salt in "abcd":
        found = list_inputs((source,), SplitConfig(val=2, salt=salt), val_frames=33)
        assert [made.name for made in found if made.split == "val"] == ["s/1.mp4", "s/3.mp4"]
    few = list_inputs((source,), SplitConfig(val=2), val_frames=129)
    assert sum(made.split == "val" for made in few) == 2, "where none is long enough, shorter ones"


def test_no_more_files_are_opened_than_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {f"p{index}": [tmp_path / f"{index}-{part}" for part in range(3)] for index in range(9)}
    opened: list[Path] = []
    monkeypatch.setattr(holdout, "MOST_LOOKED_INTO", 7)
    monkeypatch.setattr(holdout, "lasts", lambda path: float(bool(opened.append(path))))
    assert held_out(groups, SplitConfig(val=4), 0) == held_out(groups, SplitConfig(val=4), 1) and len(opened) == 7


def test_damage_is_a_length_and_a_passing_fault_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "junk.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone")
    assert lasts(tmp_path / "junk.mp4") == lasts(tmp_path / "link.mp4") == lasts(tmp_path) == 0

    def busy(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", busy)
    monkeypatch.setattr(holdout, "open_media", busy)
    with pytest.raises(UserError, match=r"junk\.mp4 cannot be read \(Too many open files\)"):
        lasts(tmp_path / "junk.mp4")


def test_a_folder_may_have_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b/videos").mkdir(parents=True)
    assert cli.main(["build", "a=b/videos", "--out", "o=1", "stages.size=64", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "folder: a=b/videos" in printed and "out: o=1" in printed and "size: 64" in printed
    long = f"text.prompt={'a person who is talking ' * 20}"  # longer than a name of a file may be
    assert cli.main(["build", "a=b/videos", "--out", "o=1", long, "--print-config"]) == 0


def test_the_plain_case_is_the_example_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "My Videos"
    folder.mkdir()
    assert cli.main(["build", str(folder), "--out", str(tmp_path / "o"), "stages.size=64", "--print-config"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    plain = load_config(BuildConfig, tmp_path / "printed.yaml")
    assert (plain.out, plain.sources[0].folder, plain.sources[0].name) == (
        str(tmp_path / "o"),
        str(folder),
        "My_Videos",
    )
    asked = ["build", str(folder), "--config", str(REPOSITORY / "configs/data/folder.yaml"), "--print-config"]
    assert cli.main([*asked, "--out", str(tmp_path / "o"), "stages.size=64", "sources.0.name=My_Videos"]) == 0
    (tmp_path / "example.yaml").write_text(capsys.readouterr().out)
    assert load_config(BuildConfig, tmp_path / "example.yaml") == plain


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give a folder of videos"),
        (["here"], "say where the dataset is to lie"),
        (["here", "there", "--out", "o"], "one folder is built at a time"),
        (["nowhere", "--out", "o"], "no folder nowhere"),
        (["here", "--out", "o", "stages.sise=3"], "override 'stages.sise=3': unknown key"),
        (["here", "--out", "o"], "source 'here': no file in here is a video by its name"),
        (["here", "--out", "o", "--sise=3"], "unrecognized arguments: --sise=3"),
    ],
)
def test_mistakes_of_the_plain_case(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    with pytest.raises(SystemExit) if "--sise=3" in argv else contextlib.nullcontext():
        assert cli.main(["build", *argv]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and not Path("o").exists()


def test_settings_of_the_plain_case() -> None:
    with pytest.raises(UserError, match="is a file; give the folder"):
        plain_settings(Path(__file__))
    assert plain_settings(Path("/"))["sources"][0]["name"] == "videos"
