"""What the benchmarks of training tell is what the configs and clips give."""

from __future__ import annotations

import json
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


def test_losses_by_noise_level_are_paired_by_seed(script: Callable[[str], dict[str, Any]], tmp_path: Path):
    for arm, seed, more in (("a", 0, 0.1), ("a", 1, 0.6), ("b", 0, 0.0), ("b", 1, 0.5), ("short", 0, 0.0)):
        run = tmp_path / "runs" / arm / f"seed-{seed}-0a1b"
        run.mkdir(parents=True)
        rows = [{"step": step, "sigma/video/0.00-0.25": 2.0 - step / 100 + more} for step in range(10, 101, 10)]
        rows = rows[:5] if arm == "short" else rows
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = sorted(map(str, tmp_path.glob("runs/*/*")))
    script("buckets.py")["main"]([*runs, "--first", "b", "--out", str(tmp_path / "table.md")])
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "table.md").read_text().splitlines()
    ]
    cells = {line[2]: line for line in lines if line[:1] == ["video"]}
    assert cells["b"][5].startswith("2.100 ±") and cells["b"][6].startswith("1.250 ±"), "early: 10 and 20; late: 100"
    assert cells["b"][7] == "–" and cells["a"][7] == "0.100 ± 0.000"
    assert cells["short"][4] == "50" and cells["short"][7] == "–", "it ends at another step: other noise"
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        script("buckets.py")["main"]([str(tmp_path)])
