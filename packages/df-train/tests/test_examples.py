"""The scripts of `examples/` run as they are printed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch

from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.media import write_image, write_wav
from df_train.objective import LOSSES

EXAMPLES = Path(__file__).parents[3] / "examples"
STAGES = ("stage1", "stage2", "stage3")


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script as `python examples/NAME ...` would, in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_model_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model_alone.py", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "(1, 9, 16, 8, 8)" in said and "(1, 9, 4, 70)" in said and "parameters, saved and loaded" in said


def test_frames_are_shown_as_they_are_made(
    tmp_path: Path, tiny_model: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda _: random_tiny_vae())
    DualForce.from_preset("quickstart", **tiny_model).save_pretrained(tmp_path / "model")
    noise = np.random.default_rng(0)
    write_image(tmp_path / "face.png", noise.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    write_wav(tmp_path / "speech.wav", noise.normal(scale=0.1, size=16_000))
    given = ("--run", tmp_path / "model", "--image", tmp_path / "face.png", "--audio", tmp_path / "speech.wav")
    assert run("stream_frames.py", *given, "--frames", 9, monkeypatch=monkeypatch) == 0
    meter = capsys.readouterr().out
    assert meter.count("frames of 16x16") == 3, "one latent frame at a time"
    assert "\r9 frames" in meter

    assert run("stream_frames.py", *given, "--frames", 10, monkeypatch=monkeypatch) == 2
    assert "1 + 4" in capsys.readouterr().err


def tiny_quickstart(tmp_path: Path, tiny_model: dict[str, int]) -> list[str]:
    """Settings of a quickstart of two steps."""
    overrides = {name: value for name, value in tiny_model.items() if name != "video_size"}
    return [
        f"model.overrides={json.dumps(overrides)}",
        f"data.root={tmp_path / 'data'}",
        f"run_dir={tmp_path / 'run'}",
        "data.batch_size=2",
        "data.synth={clips: 4, val_clips: 1, frames: 9, val_frames: 9, size: 32, workers: 1}",
        "budget.minutes=null",
        "optim={steps: 2, warmup: 1}",
        "sample.clips=0",
        "device=cpu",
    ]


def test_a_loss_of_ones_own(
    tmp_path: Path,
    tiny_model: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    after_steps: Callable[..., AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("df_train.objective.LOSSES", LOSSES.copy())
    given = tiny_quickstart(tmp_path, tiny_model)
    with after_steps(1, act=lambda _: os.kill(os.getpid(), signal.SIGTERM)):
        assert run("own_loss.py", *given, monkeypatch=monkeypatch) == 75
    assert "the same command continues the run" in capsys.readouterr().out
    assert run("own_loss.py", *given, monkeypatch=monkeypatch) == 0
    assert str(tmp_path / "run" / "model") in capsys.readouterr().out
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert any("loss/jitter" in line for line in lines)


def test_an_encoder_of_ones_own(tmp_path: Path, tiny_model: dict[str, int]) -> None:
    """As a process of its own: the renderers are others, which must know the encoder too."""
    script = [sys.executable, str(EXAMPLES / "own_encoder.py"), *tiny_quickstart(tmp_path, tiny_model)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    config = DualForce.from_pretrained(tmp_path / "run" / "model").config
    assert (config.audio_encoder, config.audio_dim, config.audio_pool) == ("loudness", 2, "concat")


@pytest.mark.timeout(900)
def test_a_folder_of_videos_becomes_a_model(
    tmp_path: Path, tiny_model: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real sentences of a few people through the real stages, then two steps."""
    beside = EXAMPLES.parents[1] / "shared"
    data = Path(os.environ.get("DF_TEST_DATA") or beside / "data") / "grid"
    weights = Path(os.environ.get("DF_TEST_WEIGHTS") or beside / "weights")
    videos = sorted((data / "others").glob("*.mpg"))[:3] if weights.is_dir() else []
    if len(videos) < 3:
        pytest.skip("no real test data: set DF_TEST_DATA and DF_TEST_WEIGHTS")
    pytest.importorskip("mediapipe", exc_type=ImportError)
    monkeypatch.setenv("DF_TEST_WEIGHTS", str(weights.resolve()))
    (tmp_path / "videos").mkdir()
    for video in videos:
        (tmp_path / "videos" / video.name).symlink_to(video.resolve())
    torch.set_num_threads(1)
    overrides = {name: value for name, value in tiny_model.items() if name != "video_size"}
    small = [
        f"model.overrides={json.dumps(overrides)}",
        "data.batch_size=2",
        "device=cpu",
        "sample.clips=1",
        "optim.warmup=1",
    ]
    made = ("--pattern", "*.mpg", "--steps", 2, "checkpoint.every=2", *small)
    assert (
        run("folder_to_model.py", tmp_path / "videos", "--out", tmp_path / "mine", *made, monkeypatch=monkeypatch) == 0
    )
    assert DualForce.from_pretrained(tmp_path / "mine" / "run" / "model").config.dim == 24


def test_all_stages_in_one_command(
    tmp_path: Path,
    dataset: Path,
    tiny_model: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configs = EXAMPLES.parent / "configs" / "train" / "quickstart"
    monkeypatch.chdir(tmp_path)
    given = [f"data.root={dataset}", "data.synth=null", "data.batch_size=2", "sample.clips=0", "device=cpu"]
    given += ["optim={steps: 2, warmup: 1}", f"model.overrides={json.dumps(tiny_model)}"]
    assert run("stages.py", configs, *given, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "runs/quickstart-stage1/model has no 'structure', 'bridge', 'audio', 'flame': these parts start" in said
    kinds = {name: DualForce.from_pretrained(f"runs/quickstart-{name}/model").config.streams for name in STAGES}
    assert kinds == {"stage1": "video", "stage2": "both", "stage3": "both"}
    assert "runs/quickstart-stage3/model\nnext: " in said
    assert run("stages.py", configs, *given, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.count("is finished") == 3
    assert run("stages.py", configs, *given, "optim.steps=5", monkeypatch=monkeypatch) == 2
    told = capsys.readouterr()
    assert "runs/quickstart-stage1 is finished, at 2 of 5 steps; remove" in told.err and not told.out
