"""Several systems on the same clips: rows of their own, paired differences, one report."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from fabricated import SHIFTS, Page, rows_of
from scipy import stats

from df_eval.cli import main
from df_eval.clips import EvalClip
from df_eval.compare import differences, paired
from df_eval.config import EvalConfig
from df_eval.evaluate import system_rows
from df_eval.measure import (
    GENERATED,
    GROUND_TRUTH,
    RECONSTRUCTION,
    SHIFTED,
    STATIC,
    Measured,
    kind_of,
    measure,
    row_of,
)
from df_eval.reports.curves import add_curves
from df_eval.reports.output import EvalOutcome, write_outcome
from df_eval.reports.table import HEADLINE, comparison_note
from df_eval.results import LengthResults
from df_infer.run_dir import RunDir
from df_models.errors import UserError

CLIPS, FRAMES, GONE = 6, 65, 4
SYSTEMS = {"runs/a": 0.1, "wav2lip": 0.9, "copy": 0.1}
"""Systems and how far their mouths are from the truth; `wav2lip` lacks a clip, `copy` is as the first."""
ROWS = (GROUND_TRUTH, RECONSTRUCTION, *SYSTEMS, *(row_of(SHIFTED, name) for name in SYSTEMS), STATIC)
LIMITS = {"max_lag": 5, "shifts": SHIFTS}


def fabricate() -> tuple[LengthResults, list[dict]]:
    keys, people = [f"clip-{i}" for i in range(CLIPS)], [f"person-{i}" for i in range(CLIPS)]
    results, shown = LengthResults(FRAMES, keys, people, ROWS), []
    for index in range(CLIPS):
        videos = {}
        for name, noise in SYSTEMS.items():
            truth, made = rows_of(index, FRAMES, noise, 0.0)
            controls = {row: made[row] for row in (GROUND_TRUTH, RECONSTRUCTION, STATIC)}
            if (name, index) != ("wav2lip", GONE):
                videos |= {name: made[GENERATED], row_of(SHIFTED, name): made[SHIFTED]}
            videos |= controls
        for row in ROWS:
            if row not in videos:
                results.measured[row].append(Measured({}, left_out="there is no video of it"))
                continue
            results.measured[row].append(measure(row, videos[row], truth, **LIMITS))
            add_curves(results, row, index, videos[row], truth, **LIMITS)
        shown.append(videos)
    return results, shown


@pytest.fixture(scope="module")
def made() -> tuple[LengthResults, list[dict]]:
    return fabricate()


@pytest.fixture(scope="module")
def outcome(made: tuple[LengthResults, list[dict]]) -> EvalOutcome:
    results, shown = made
    keys = [f"clip-{index}" for index in range(CLIPS)]
    clips = [
        EvalClip(key, key, shown[0][GROUND_TRUTH].frames_THWC, np.zeros(640 * FRAMES, np.float32), {}) for key in keys
    ]
    return EvalOutcome(
        run=", ".join(SYSTEMS), config=EvalConfig(clips=CLIPS, frames=(FRAMES,), videos=1, shifts=SHIFTS), clips=clips,
        results={FRAMES: results}, tables={FRAMES: results.table(0, 200)}, goals=[], videos={FRAMES: shown},
        protocol=[("reader", "constructed")], facts={}, missing={}, metrics_jsonl=None, seconds={},
        differences=differences({FRAMES: results}, list(SYSTEMS), HEADLINE, 0, 500),
        told=["wav2lip: clip-4: there is no video of it; left out"],
    )  # fmt: skip


def test_rows_belong_to_kinds() -> None:
    kinds = {row: kind_of(row) for row in ROWS}
    assert kinds["wav2lip"] == kinds["runs/a"] == GENERATED and kinds[row_of(SHIFTED, "copy")] == SHIFTED
    assert kinds[STATIC] == STATIC and kind_of(GENERATED) == GENERATED


def test_every_system_has_the_rows_of_a_single_one(made: tuple[LengthResults, list[dict]]) -> None:
    table = made[0].table(0, 200)
    assert list(table) == list(ROWS)
    good, bad = table["runs/a"]["lip_sync"], table["wav2lip"]["lip_sync"]
    assert good.value is not None and bad.value is not None and good.value > bad.value + 0.1
    assert (good.n, bad.n) == (CLIPS, CLIPS - 1) and table["copy"] == table["runs/a"]
    shifted = table[row_of(SHIFTED, "wav2lip")]
    assert shifted["lip_sync"].value is not None and shifted["psnr"].value is None


def test_differences_are_paired_over_the_clips_that_both_have(outcome: EvalOutcome) -> None:
    results = outcome.results[FRAMES]
    ours, theirs = (results.pairs(row, "lip_sync") for row in ("wav2lip", "runs/a"))
    each = np.array([ours[index].numerator - theirs[index].numerator for index in ours])
    found = next(d for d in outcome.differences if (d.row, d.metric) == ("wav2lip", "lip_sync"))
    assert found.reference == "runs/a" and found.found.clips == len(each) == CLIPS - 1
    assert found.found.value == pytest.approx(each.mean())
    low, high = stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))
    assert found.found.low == pytest.approx(low, abs=0.05) and found.found.high == pytest.approx(high, abs=0.05)
    assert found.p == pytest.approx(stats.ttest_1samp(each, 0).pvalue, abs=0.02)


def test_clips_of_one_person_are_drawn_together(made: tuple[LengthResults, list[dict]]) -> None:
    ask = ("wav2lip", "runs/a", "lip_sync", 0, 500)
    found = []
    for names in ("abcdef", "aabbcc"):
        results = copy.copy(made[0])
        results.people = [*names]
        found.append(paired(results, *ask))
    apart, together = found
    assert (apart.people, together.people) == (CLIPS - 1, 3) and apart.value == together.value
    assert (apart.freedom, together.freedom) == (CLIPS - 2, 2)


def test_a_system_does_not_differ_from_its_copy_and_holm_counts_all_that_were_tested(outcome: EvalOutcome) -> None:
    same = [d for d in outcome.differences if d.row == "copy"]
    assert same and all(d.found.value == 0 for d in same)
    family = [d for d in outcome.differences if d.p is not None]
    assert {d.metric for d in family} <= set(HEADLINE) and len(family) < len(HEADLINE) * (len(SYSTEMS) - 1)
    smallest = min(family, key=lambda d: d.p)
    assert smallest.p_holm == pytest.approx(min(1.0, len(family) * smallest.p)), "one without a p tests nothing"
    assert f"adjusted for the {len(family)} comparisons" in comparison_note(outcome.differences)
    assert all(d.p is None and d.p_holm is None for d in same), "the same in every clip"
    assert all(d.p_holm is None for d in outcome.differences if d.metric not in HEADLINE)


def test_one_report_of_all(outcome: EvalOutcome, tmp_path: Path) -> None:
    page = write_outcome(outcome, tmp_path / "out", quiet=True)
    parsed, text = Page(), page.read_text(encoding="utf-8")
    parsed.feed(text)
    assert parsed.open == [] and all((page.parent / source).is_file() for source in parsed.sources)
    for words in (*ROWS, "wav2lip minus runs/a", "there is no video of it; left out"):
        assert words in text
    table = (page.parent / "table.md").read_text()
    assert "minus runs/a" in table and "Holm" in table and "## Goals" not in table
    document = json.loads((page.parent / "metrics.json").read_text())
    assert list(document["lengths"][str(FRAMES)]["rows"]) == list(ROWS) and document["told"] == outcome.told
    entry = next(d for d in document["differences"] if d["metric"] == "lip_sync" and d["row"] == "wav2lip")
    assert entry["low"] <= entry["value"] <= entry["high"] and entry["p_holm"] >= entry["p"]
    lines = [json.loads(line) for line in (page.parent / "per_clip.jsonl").read_text().splitlines()]
    assert {line["clip"] for line in lines if line["row"] == "wav2lip"} == {f"clip-{i}" for i in range(6) if i != GONE}


def test_systems_are_told_apart_by_name(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path / place) for place in ("x/quick", "y/quick")]
    assert system_rows(runs[:1], []) == [GENERATED]
    assert system_rows(runs, ["wav2lip"]) == ["x/quick", "y/quick", "wav2lip"]
    assert system_rows([runs[0], RunDir(tmp_path / "other")], []) == ["quick", "other"]
    for given, names, message in (
        ([runs[0], runs[0]], [], "given twice"),
        (runs[:1], ["quick"], "two systems have it"),
        (runs[:1], [STATIC], "a row of the table"),
    ):
        with pytest.raises(UserError, match=message):
            system_rows(given, names)


def test_a_comparison_asks_for_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [str(tmp_path / "a"), str(tmp_path / "b")]
    for run in map(Path, two):
        (run / "model").mkdir(parents=True)
        (run / "config.yaml").write_text("name: x\n")
        for name in ("config.json", "model.safetensors"):
            (run / "model" / name).touch()
    for argv, message in (
        (two, "--out DIR"),
        ([two[0], "--baseline", "x=videos"], "--out DIR"),
        ([two[0], "--baseline", "videos"], "--baseline wav2lip=DIR"),
        ([two[0], "--baseline", "x=1", "--baseline", "x=2"], "x is 1 already; give each folder another name"),
        ([*two, "--out", str(tmp_path / "o"), "--require-goals"], "about one run"),
        ([two[0], "clips"], "no such run: clips"),
        ([two[0], "clips", "seed=1", "--out", str(tmp_path / "o")], "no such run"),
        ([*two, "--export", str(tmp_path / "o")], "clips of one run"),
        ([two[0], "clips", "--export", str(tmp_path / "o")], "no such run: clips"),
        ([two[0], "clips", "--checkpoint", "all"], "clips"),
        ([two[0], "--export", str(Path(two[0]) / "config.yaml")], "is not a directory"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and "\n" not in error
    assert not (tmp_path / "o").exists()
