"""The hours of training that the documents tell are those of the configs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_committed_hours_are_what_the_script_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(str(ROOT / "benchmarks" / "hours.py"))
    script["main"](["--out", str(tmp_path / "hours.md")])
    committed = (ROOT / "docs" / "results" / "hours.md").read_text()
    assert (tmp_path / "hours.md").read_text() == committed, (
        "uv run python benchmarks/hours.py --out ... writes it anew"
    )


def test_stage_1_takes_the_hours_of_the_video_tower_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(str(ROOT / "benchmarks" / "hours.py"))
    first, second = (
        script["stage_of"](ROOT / "configs" / "train" / "dualforce-1.5b" / f"{name}.yaml")
        for name in ("stage1-video", "stage2-dual")
    )
    assert first.operations / first.steps / first.batch < 0.95 * second.operations / second.steps / second.batch
