from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from df_data import cli
from df_data.format.ledger import Ledger, LedgerEntry
from df_data.synth import corpus
from df_data.synth.corpus import SynthConfig
from df_models.media import read_image, read_video


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    try:
        code = cli.main([str(value) for value in argv])
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0 and out.startswith("df-data ")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(word in out for word in ("synth", "build", "validate", "stats", "exit codes", "examples"))
    for command in ("synth", "people", "build", "merge", "plan", "fetch", "inspect", "validate", "stats"):
        assert run(capsys, command, "--help")[0] == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["validate", "nowhere"], "nowhere is no dataset"),
        (["stats", "nowhere"], "nowhere is no dataset"),
        (["synth", "--out", "x", "--clips", "4", "--frames", "32"], "frames: 32 pixel frames are not 1 + 4 n"),
        (["synth", "--out", "x", "--clips", "0"], "clips"),
        (["synth", "--out", "x", "--clips", "4", "--size", "50"], "size"),
        (["build", "--config", "no.yaml"], "no.yaml"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert err.startswith("df-data: error: ") and said in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_misspelt_build_key_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("out: there\nsources: [{folder: here}]\nclips: {frame: 33}\n")
    code, _, err = run(capsys, "build", "--config", config)
    assert code == 2 and "'clips.frame' (did you mean 'clips.frames'?)" in err


def test_every_flag_of_synth_reaches_the_corpus(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[SynthConfig, Path]] = []
    monkeypatch.setattr(corpus, "build_corpus", lambda config, out: asked.append((config, out)) or out)
    flags = {"clips": 3, "seed": 9, "val-clips": 2, "frames": 9, "val-frames": 13, "size": 48, "workers": 1}
    argv = [part for name, value in flags.items() for part in (f"--{name}", value)]
    code, out, _ = run(capsys, "synth", "--out", tmp_path / "d", *argv, "--keep-train-video")
    wanted: dict[str, Any] = {name.replace("-", "_"): value for name, value in flags.items()}
    config = SynthConfig(**wanted, keep_train_video=True)
    assert code == 0 and asked == [(config, tmp_path / "d")]
    assert "3 training clips, 2 held-out clips" in out and "next: " in out


def test_a_full_disk_is_exit_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "shard-00000.tar")

    monkeypatch.setattr(corpus, "build_corpus", full)
    code, _, err = run(capsys, "synth", "--out", tmp_path, "--clips", 1)
    assert code == 3 and "disk is full" in err and "Traceback" not in err


def test_validate_and_stats(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make_split: Callable[..., object]
) -> None:
    make_split(tmp_path, 5, num_shards=2)
    code, out, _ = run(capsys, "validate", tmp_path / "train")
    assert code == 0 and f"{tmp_path / 'train'}: ok\n" in out and "5 clips in 2 shards" in out and "no problems" in out
    Ledger(tmp_path / "ledger.jsonl").record(LedgerEntry(input="cat.mp4", status="rejected", reason="no_face"))
    code, out, _ = run(capsys, "stats", tmp_path, "--full")
    assert code == 0
    for expected in ("5 clips", "16x16", "people: 5", "CC0-1.0 (5)", "1 x no_face", "yaw: ", "5 (5 clips)", "sha256 v"):
        assert expected in out
    shard = next((tmp_path / "train").glob("shard-*.tar"))
    data = bytearray(shard.read_bytes())
    data[3000] ^= 1
    shard.write_bytes(bytes(data))
    code, out, _ = run(capsys, "validate", tmp_path / "train")
    assert code == 1 and "checked: 1 problem\n" in out and shard.name in out and "sha256" in out


@pytest.mark.parametrize(
    ("commanded", "replaced", "goes_on"),
    [
        ("build", "df_data.build.build.build", True),
        ("people", "df_data.people.find.find_people", True),
        ("validate", "df_data.check.validate.check_dataset", False),
    ],
)
def test_an_interrupted_command_says_whether_it_goes_on(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commanded: str,
    replaced: str,
    goes_on: bool,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    config = tmp_path / "c.yaml"
    config.write_text("out: there\nsources: [{name: s, folder: here, licence: CC0-1.0}]\n")
    monkeypatch.setattr(replaced, interrupted)
    words = (commanded, tmp_path) if commanded == "validate" else (commanded, "--config", config)
    code, _, err = run(capsys, *words)
    assert code == 130 and "interrupted" in err
    assert ("the same command goes on where it stopped" in err) == goes_on


@pytest.mark.slow
def test_synth_with_preview_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "df_data.cli", "synth", "--out", str(tmp_path / "d"), "--clips", "6"]
    command += ["--val-clips", "1", "--frames", "5", "--val-frames", "5", "--preview"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "preview" in done.stdout and "train clips: 100%" in done.stderr
    sheet = read_image(tmp_path / "d" / "preview.png")
    assert sheet.shape[0] == 6 * 128 and np.ptp(sheet) > 100
    frames, fps = read_video(tmp_path / "d" / "preview.mp4")
    assert frames.shape == (129, 256, 256, 3) and fps == 25


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom df_data.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
