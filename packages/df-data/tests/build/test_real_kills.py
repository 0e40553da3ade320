"""Real clips, real models, two worker processes, the command itself: killed at random moments, then gone on with."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_models import shards

ROUNDS = 4


@pytest.fixture
def config(real_data: Path, real_weights: Path, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("mediapipe", exc_type=ImportError)
    grid = {
        "name": "grid",
        "folder": f"{real_data}/grid/s1",
        "pattern": "bba*.mpg",
        "identity": "source",
        "licence": "CC",
    }
    odd = {"name": "odd", "folder": f"{real_data}/odd", "pattern": "no_*.mp4", "licence": "test"}
    tree = {
        "out": str(tmp_path / "unused"),
        "sources": [grid | {"limit": 4}, odd],
        "split": {"by": "sentence", "val": 1, "salt": "b"},
        "models": {
            "face_detector": f"{real_weights}/yunet_n_dynamic.onnx",
            "face_landmarker": f"{real_weights}/mediapipe_face_landmarker_v2_with_blendshapes.task",
        },
        "stages": {"size": 64, "faces": {"min_face": 64}},
        "clips_per_shard": 2,
        "workers": 2,
    }
    path = tmp_path / "build.yaml"
    path.write_text(json.dumps(tree))
    return path


def start(config: Path, out: Path, *settings: str) -> subprocess.Popen[bytes]:
    program = "import sys; from df_data.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "build", "--config", str(config), f"out={out}", *settings]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_real_builds_killed_at_random_moments(config: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    assert start(config, tmp_path / "whole").wait() == 0
    whole, wanted = time.monotonic() - began, shards(tmp_path / "whole")
    assert start(config, tmp_path / "alone", "workers=1").wait() == 0
    assert shards(tmp_path / "alone") == wanted, "the number of workers does not change a byte"
    moments, killed = random.Random(6), 0
    for index in range(ROUNDS):
        out = tmp_path / f"k{index}"
        for _ in range(2):
            running = start(config, out)
            time.sleep(moments.uniform(0.1, 1.0) * whole)
            running.send_signal(signal.SIGKILL)
            killed += running.wait() == -signal.SIGKILL
            for path in out.glob("*/shard-*.tar"):
                assert path.read_bytes() == wanted[f"{path.parent.name}/{path.name}"]
        assert start(config, out).wait() == 0
        assert shards(out) == wanted
        assert len((out / "ledger.jsonl").read_text().splitlines()) == 5, "what has a ledger line is not done twice"
    assert killed >= ROUNDS
