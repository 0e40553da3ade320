"""Where df-data's commands write: nothing of the user's is replaced, no input is written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from df_data.cli import main
from df_models.locks import one_writer


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main([str(part) for part in argv]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("df-data: error: ") and "\n" not in error
    return error


def test_synth_does_not_replace_a_config_that_is_another_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("my: settings\n")
    assert "config.yaml" in told(capsys, "synth", "--out", tmp_path, "--clips", "1")
    assert (tmp_path / "config.yaml").read_text() == "my: settings\n"


def test_build_does_not_write_into_its_own_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    source = {"name": "mine", "folder": str(tmp_path), "pattern": "*.mp4", "identity": "file", "licence": "x"}
    config = tmp_path / "build.yaml"
    config.write_text(json.dumps({"out": str(tmp_path), "sources": [source]}))
    assert "is read as an input" in told(capsys, "build", "--config", config)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "build.yaml"}


def test_inspect_writes_a_page_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = tmp_path / "shard-00000.tar"
    shard.write_bytes(b"clips")
    assert "must end in .html" in told(capsys, "inspect", tmp_path, "--out", shard)
    assert shard.read_bytes() == b"clips"
    assert "create it first" in told(capsys, "inspect", tmp_path, "--out", tmp_path / "none" / "page.html")


def test_places_that_cannot_be_written_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert "not a directory" in told(capsys, "synth", "--out", tmp_path / "file" / "set", "--clips", "1")
    assert "too long" in told(capsys, "synth", "--out", tmp_path / ("n" * 256), "--clips", "1")
    with one_writer(tmp_path / "set", "df-data synth"):
        assert "df-data synth (process" in told(capsys, "synth", "--out", tmp_path / "set", "--clips", "1")
