"""What the benchmarks of training tell is what the configs and clips give."""

from __future__ import annotations

import runpy
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_models.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The names that a script of `benchmarks/` defines."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return lambda name: runpy.run_path(str(ROOT / "benchmarks" / name))


def test_the_committed_hours_are_what_the_script_computes(script: Callable[[str], dict[str, Any]], tmp_path: Path):
    script("hours.py")["main"](["--out", str(tmp_path / "hours.md")])
    committed = ROOT / "docs" / "results" / "hours.md"
    assert (tmp_path / "hours.md").read_text() == committed.read_text(), f"benchmarks/hours.py --out {committed}"


def test_stage_1_takes_the_hours_of_the_video_tower_alone(script: Callable[[str], dict[str, Any]]):
    stages = ROOT / "configs" / "train" / "dualforce-1.5b"
    first, second = (
        script("hours.py")["stage_of"](stages / f"{name}.yaml") for name in ("stage1-video", "stage2-dual")
    )
    assert first.operations / first.steps / first.batch < 0.95 * second.operations / second.steps / second.batch


def test_fewer_held_out_clips_than_are_asked_for_are_refused(script: Callable[[str], dict[str, Any]], dataset: Path):
    with pytest.raises(UserError, match=r"holds 3 clips, and 40 are to be measured .* --val-clips 40$"):
        script("sync.py")["_clips"](Namespace(data=dataset, clips=40), None, None)
