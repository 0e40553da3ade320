"""Rows, goals, tables and the written evaluation, on constructed clips."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest
from fabricated import SHIFTS, Page, outcome_of, results_of, rows_of
from scipy import stats

from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, ROWS, SAME_VIDEO, SHIFTED, STATIC
from df_eval.measure import measure as measure_clip
from df_eval.metrics import CATALOG, GROUPS, SETS, Pair, Score
from df_eval.reports.goals import IDENTITY_DRIFT_LIMIT, LIP_SYNC_SHARE, Limits, goals_of, known_of
from df_eval.reports.markdown import count_of, markdown_table
from df_eval.reports.output import metrics_document, write_outcome
from df_eval.reports.table import cell, clips_in, goals_table, headline_table
from df_models.files import mark_owned
from df_models.media import read_audio, read_video


def test_rows_say_what_they_are_for() -> None:
    results, shown = results_of(clips=6, frames=65, noise=0.3, drift=0.0)
    table = results.table(seed=0, resamples=200)
    assert table[GROUND_TRUTH]["lip_sync"].value == pytest.approx(1.0)
    assert table[STATIC]["lip_sync"].value == 0.0
    assert "does not move" in table[STATIC]["lip_sync"].reason
    assert table[STATIC]["still_mouth"].value == 1.0
    assert table[STATIC]["motion_ratio"].value == 0.0
    generated = table[GENERATED]["lip_sync"].value
    assert generated is not None and 0.8 < generated < 1.0
    shifted = table[SHIFTED]["lip_sync"].value
    assert shifted is not None and abs(shifted) < 0.25
    assert table[SHIFTED]["psnr"].reason == SAME_VIDEO
    assert table[GENERATED]["yaw_corr"].value is None and "pose" in table[GENERATED]["yaw_corr"].reason
    assert table[GENERATED]["apd"].value is not None, "how far the made motion is from the true one"
    assert table[RECONSTRUCTION]["apd"].value == pytest.approx(0.0)
    assert table[RECONSTRUCTION]["psnr"].value == pytest.approx(20 * np.log10(255 / 2), abs=0.01)
    assert table[GENERATED]["structure_mouth"].value == pytest.approx(1.0)
    said, true = shown[0][GENERATED].structure_lips.width_T, shown[0][GROUND_TRUTH].readings.lip_width_T
    first = results.measured[GENERATED][0].pairs["structure_lip_width"]
    assert first.numerator == pytest.approx(np.corrcoef(said, true)[0, 1]) and 0.5 < first.numerator < 0.999
    assert table[STATIC]["structure_lip_width"].value is None


def test_generated_lip_sync_is_the_mean_of_scipy_correlations() -> None:
    results, _ = results_of(clips=5, frames=33, noise=0.5, drift=0.0)
    expected = []
    for index in range(5):
        truth, videos = rows_of(index, 33, 0.5, 0.0)
        read = videos[GENERATED].readings
        assert read is not None and read.mouth_open_T is not None and truth.signals.mouth_open_T is not None
        expected.append(stats.pearsonr(read.mouth_open_T, truth.signals.mouth_open_T[:33])[0])
    score = results.score(GENERATED, "lip_sync", 0, 200)
    assert score.value == pytest.approx(np.mean(expected)) and (score.n, score.people) == (5, 3)
    assert results.table(0, 10)[GENERATED]["frechet_reader"].people == 3, "sets, too"


def test_frames_without_a_face_lower_the_rate_and_nothing_else() -> None:
    truth, videos = rows_of(0, 65, 0.0, 0.0)
    read = videos[GENERATED].readings
    assert read is not None and read.mouth_open_T is not None
    read.presence_T[:13] = False
    for name in ("mouth_open_T", "lip_width_T", "blink_T", "angles_TA", "identity_TD"):
        getattr(read, name)[:13] = np.nan
    pairs = measure_clip(GENERATED, videos[GENERATED], truth, max_lag=5, shifts=SHIFTS).pairs
    assert pairs["presence"].value == pytest.approx(52 / 65)
    assert pairs["lip_sync"].value == pytest.approx(1.0)
    assert all(pair.value is None or np.isfinite(pair.value) for pair in pairs.values())


def test_a_video_without_a_reader_has_pixel_metrics_only() -> None:
    truth, videos = rows_of(0, 33, 0.1, 0.0)
    blind = type(videos[GENERATED])(videos[GENERATED].frames_THWC, None)
    names = set(measure_clip(GENERATED, blind, truth, max_lag=5, shifts=SHIFTS).pairs)
    assert names == {s.name for s in CATALOG if s.group in ("motion", "image")}


@pytest.mark.parametrize(
    ("noise", "drift", "expected"),
    [
        (0.1, 0.0, [True, True, True, True, True]),
        (0.1, 0.3, [True, True, False, False, True]),
        (5.0, 0.0, [False, True, True, True, True]),
    ],
)
def test_goals_are_decided_on_the_measured_values(noise: float, drift: float, expected: list[bool]) -> None:
    results, _ = results_of(clips=12, frames=65, noise=noise, drift=drift)
    goals = goals_of(results, seed=0, resamples=200)
    assert [goal.passed for goal in goals] == expected
    table = results.table(0, 200)
    generated, rebuilt = table[GENERATED]["lip_sync"].value, table[RECONSTRUCTION]["lip_sync"].value
    assert generated is not None and rebuilt is not None
    assert goals[0].score.value == pytest.approx(generated / rebuilt)
    assert (generated / rebuilt >= LIP_SYNC_SHARE) == goals[0].passed
    assert goals[2].score == table[GENERATED]["identity_ratio"]
    assert (goals[2].score.value or 0) <= IDENTITY_DRIFT_LIMIT or not goals[2].passed


def test_a_goal_that_cannot_be_measured_is_neither_met_nor_missed() -> None:
    results, _ = results_of(clips=3, frames=33, noise=0.1, drift=0.0)
    for row in ROWS:
        for clip in results.measured[row]:
            clip.pairs.pop("identity_ratio", None)
    results.unavailable = {"identity_ratio": "no identity here"}
    goal = goals_of(results, 0, 200)[2]
    assert goal.passed is None and goal.score.reason == "no identity here"
    assert "unavailable" in goals_table([goal])


def test_a_missed_goal_says_whether_the_truth_misses_it_and_whether_the_interval_decides_it() -> None:
    """The line stands below the table, on the page and in metrics.json; goals that are met have none."""
    limits = Limits(most=1.15)
    wide, narrow = Score(1.3, 1.1, 1.5, n=4), Score(1.3, 1.2, 1.4, n=4)
    assert known_of(limits, wide, 1.87, "read the other") == (
        "the truth itself reaches 1.870: read the other; the interval holds values that would meet it"
    )
    assert known_of(limits, narrow, 1.0, "read the other") == "no value of the interval would meet it"
    assert known_of(limits, Score(1.3, n=1), None, "") == "N 1: there is no interval"
    assert known_of(limits, Score(1.1, n=4), 1.87, "x") == ""
    both = Limits(-0.15, 0.15)
    assert "the truth" not in known_of(both, Score(-0.3, -0.4, -0.2, n=4), 0.28, "x")  # it misses on the other side
    assert "the truth itself reaches -0.280" in known_of(both, Score(-0.3, -0.4, -0.2, n=4), -0.28, "x")


def test_what_is_known_of_a_missed_goal_is_shown_everywhere(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path / "metrics.jsonl", noise=5.0, lengths=(65,))
    write_outcome(outcome, tmp_path / "eval", quiet=True)
    missed, met = outcome.goals[0], outcome.goals[1]
    assert missed.passed is False and "would meet it" in missed.known and met.passed and met.known == ""
    assert f"- {missed.name}, 65 frames: {missed.known}" in (tmp_path / "eval" / "table.md").read_text()
    assert html.escape(missed.known) in (tmp_path / "eval" / "report.html").read_text()
    document = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert document["goals"][0]["known"] == missed.known


def test_a_goal_is_not_met_by_leaving_clips_out() -> None:
    results, _ = results_of(clips=4, frames=65, noise=0.1, drift=0.0)
    assert all(goal.passed for goal in goals_of(results, 0, 200))
    for name in ("lip_sync", "identity_ratio"):
        results.measured[GENERATED][2].pairs[name] = Pair.undefined("no face was read")
    results.measured[SHIFTED][2].pairs["lip_sync"] = Pair.undefined("no face was read")
    goals = goals_of(results, 0, 200)
    assert [goal.passed for goal in goals] == [False, False, False, True, True]
    assert "3 of 4 clips" in goals[0].score.reason
    for clip in results.measured[GENERATED]:
        clip.pairs["identity_ratio"] = Pair.undefined("no face was read")
        clip.pairs["lip_sync"] = Pair.undefined("no face was read")
    assert [goal.passed for goal in goals_of(results, 0, 200)] == [False, False, False, True, True]


def test_clips_whose_truth_cannot_be_measured_do_not_count_against_a_goal() -> None:
    results, _ = results_of(clips=4, frames=65, noise=0.1, drift=0.0)
    for row in ROWS:
        results.measured[row][1].pairs["lip_sync"] = Pair.undefined("the true signal is constant")
    goals = goals_of(results, 0, 200)
    assert goals[0].passed is True and goals[0].score.n == 3


def test_cells_and_tables() -> None:
    assert cell(Score(0.5, 0.4, 0.6, n=4), 2, clips=4) == "0.50 [0.40, 0.60]"
    assert cell(Score(0.5, None, None, n=3), 1, clips=4) == "0.5 (N 3)"
    assert cell(Score.unavailable("why"), 1, clips=4) == "–"
    assert cell(Score(0.5, n=3, people=2), 1, clips=4) == "0.5 (N 3, 2 people)"
    assert [count_of(16, people) for people in (0, 1, 4, 16)] == ["16", "16, one person", "16, 4 people", "16"]
    results, _ = results_of(clips=4, frames=33, noise=0.1, drift=0.0)
    table = results.table(0, 100)
    assert clips_in(table, 4) == "4 clips, 2 people"
    assert "| 4, 2 people |" in headline_table(table, 4)
    lines = markdown_table(["a", "long"], [["xyz", "1"]]).splitlines()
    assert lines == ["| a   | long |", "|-----|------|", "| xyz | 1    |"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    lines = [{"step": s, "loss": 1 / s, "loss/video": 2 / s, "loss/video/sigma_0.0-0.2": 3 / s} for s in (1, 2, 3)]
    lines += [{"step": s, "val/loss": 1 / s, "val/independent/sigma/structure/0.00-0.25": 1 / s} for s in (2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "lo')
    write_outcome(outcome_of(folder / "metrics.jsonl"), folder / "eval", quiet=True)
    return folder / "eval"


def test_the_page_is_whole_and_asks_nobody_for_anything(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.sources and all((written / source).is_file() for source in page.sources)
    assert "http" not in text.replace("http-equiv", "")
    assert "constructed &lt;signals&gt;" in text
    assert "257 frames were not measured" in text
    assert 'class="sorts"' in text and 'id="at"' in text and "addEventListener" in text, "it sorts, and has a scrubber"
    assert "{{" not in text and "{%" not in text
    for row in ROWS:
        assert row in text
    for spec in CATALOG:
        assert spec.title in text


def test_metrics_json_holds_every_cell_with_its_interval(written: Path) -> None:
    document = json.loads((written / "metrics.json").read_text())
    assert set(document["lengths"]) == {"33", "65"}
    for length in document["lengths"].values():
        assert set(length["rows"]) == set(ROWS)
        for row in length["rows"].values():
            assert set(row) == {spec.name for spec in (*CATALOG, *SETS)}
            for score in row.values():
                assert score["value"] is not None or score["reason"]
        generated = length["rows"][GENERATED]["lip_sync"]
        assert generated["low"] <= generated["value"] <= generated["high"] and generated["n"] == 4
    assert len(document["goals"]) == 10
    assert document["not_measured"] == {"257": "the clips have 65 frames"}


def test_per_clip_lines_pool_to_the_table(written: Path) -> None:
    lines = [json.loads(line) for line in (written / "per_clip.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * len(ROWS) * 4
    document = json.loads((written / "metrics.json").read_text())
    mine = [line["metrics"]["motion_ratio"] for line in lines if line["row"] == GENERATED and line["frames"] == 65]
    pooled = sum(m["numerator"] for m in mine) / sum(m["denominator"] for m in mine)
    assert document["lengths"]["65"]["rows"][GENERATED]["motion_ratio"]["value"] == pytest.approx(pooled)


def test_videos_play_side_by_side_with_audio(written: Path) -> None:
    video = written / "videos" / "65-clip-0.mp4"
    frames, fps = read_video(video)
    assert frames.shape == (65, 256 + 24, 3 * 256, 3) and fps == 25
    assert len(read_audio(video)) >= 65 * 640 * 0.98


def test_plots_of_training_are_drawn_from_the_whole_lines(written: Path) -> None:
    assert {path.name for path in (written / "plots").glob("loss*.png")} == {
        "loss.png",
        "loss-sigma-video.png",
        "loss-val.png",
    }


def test_a_second_evaluation_replaces_the_first(written: Path, tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path / "none.jsonl", clips=2)
    mark_owned(tmp_path / "eval", "df-eval")
    stale = tmp_path / "eval" / "videos" / "old.mp4"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    write_outcome(outcome, tmp_path / "eval", quiet=True)
    assert not stale.exists()
    assert not list((tmp_path / "eval" / "plots").glob("loss*"))
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["lengths"]["33"]["clips"] == 2
    assert metrics_document(outcome)["run"] == "fabricated"


def test_readme_defines_every_row() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [row for row in ROWS if row not in readme] == []
    assert {s.group for s in (*CATALOG, *SETS)} == set(GROUPS)
