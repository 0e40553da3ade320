"""Outputs of `df-infer`: never an input, checked before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from df_infer import cli


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before the first input is read."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("an input was read")

    monkeypatch.setattr("df_models.media.read_image", read)
    monkeypatch.setattr("df_models.media.read_audio", read)


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert cli.main(["generate", "--run", "none", *map(str, argv)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("df-infer: error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize("link", ["", "symlink_to", "hardlink_to"])
def test_an_input_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], link: str) -> None:
    talk = tmp_path / "t.mp4"
    talk.write_bytes(b"speech")
    out = tmp_path / "out.mp4" if link else talk
    if link:
        getattr(out, link)(talk)
    error = refused(capsys, "--image", tmp_path / "f.png", "--audio", talk, "--out", out)
    assert "is read as an input" in error and talk.read_bytes() == b"speech"
    structure = tmp_path / "s.npz"
    structure.write_bytes(b"detector")
    more = ("--out", tmp_path / "new.mp4", "--structure-out", structure, "--face-detector", structure)
    assert "is read as an input" in refused(capsys, "--image", talk, "--audio", talk, *more)
    assert structure.read_bytes() == b"detector"


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = tmp_path / ("n" * 252 + ".mp4")
    assert "at most 255" in refused(capsys, "--image", "f.png", "--audio", "a.wav", "--out", long)
    both = ("--out", tmp_path / "a.mp4", "--structure-out", tmp_path / "none" / "s.npz")
    assert "create it first" in refused(capsys, "--image", "f.png", "--audio", "a.wav", *both)
    assert not os.listdir(tmp_path)
