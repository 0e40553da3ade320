"""Verdicts, and what a study writes: the page, the tables and the paper's files, from stored numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_eval.reports.markdown import markdown_table
from df_eval.study.cli import main
from df_eval.study.config import HypothesisConfig, StudyConfig
from df_eval.study.figures import MOST_PANELS, axis_figure
from df_eval.study.measured import collect
from df_eval.study.paper import write_paper
from df_eval.study.plan import known_answers, make_plan
from df_eval.study.programs import Programs
from df_eval.study.report import page
from df_eval.study.run import run_study
from df_eval.study.table import cells
from df_eval.study.verdicts import decide, rule_of, verdicts_of
from df_models.intervals.estimate import Estimate
from df_models.settings import dump_config, validate_config

STUBS = Path(__file__).with_name("study_stubs.py")
PROGRAMS = Programs(*((sys.executable, "-S", str(STUBS), name) for name in ("train", "eval", "corpus")))


def claim(name: str, **changes: Any) -> dict[str, Any]:
    told = {"name": name, "claim": f"<b> {name} & more", "metric": "lip_sync", "arms": ["b", "a"], "criterion": "seen"}
    return told | changes


TREE = {
    "name": "s",
    "question": "does <it> help?",
    "base": "base.json",
    "arms": {"a": {"effect": 0}, "b": {"effect": 0.2}, "bad": {"fails": True}},
    "seeds": [0, 1],
    "hypotheses": [
        claim("better", margin=0.05),
        claim("worse", difference="less", margin=0.05),
        claim("good", arms=["b"], margin=0.9),
        claim("whole", arms=["b", "bad"]),
    ],
    "metrics": ["motion_ratio"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two arms that are done and one that failed."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("base.json").write_text("{}")
        config = validate_config(StudyConfig, TREE)
        Path("study.yaml").write_text(dump_config(config))
        assert run_study(config, lambda line: None, programs=PROGRAMS) == 1
    return folder


def document(done: Path) -> dict[str, Any]:
    return json.loads((done / "studies/s/study.json").read_text())


def changed(tree: dict[str, Any], place: tuple[str | int, ...], value: object) -> str:
    """A document as text, with another value at a place."""
    at: Any = tree
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return json.dumps(tree)


def hypothesis(**changes: Any) -> HypothesisConfig:
    return HypothesisConfig.model_validate(claim("h") | changes)


@pytest.mark.parametrize(
    ("difference", "margin", "interval", "outcome"),
    [
        ("more", 0.1, (0.11, 0.3), "supported"),
        ("more", 0.1, (0.05, 0.3), "undecided"),
        ("more", 0.1, (0.01, 0.09), "refuted"),
        ("less", 0.1, (-0.3, -0.11), "supported"),
        ("less", 0.1, (-0.09, 0.2), "refuted"),
        ("same", 0.1, (-0.09, 0.09), "supported"),
        ("same", 0.1, (0.11, 0.2), "refuted"),
        ("same", 0.1, (-0.2, 0.2), "undecided"),
    ],
)
def test_an_interval_against_its_margin(
    difference: str, margin: float, interval: tuple[float, float], outcome: str
) -> None:
    asked = hypothesis(difference=difference, margin=margin)
    assert decide(asked, Estimate(sum(interval) / 2, *interval)) == outcome
    assert "supported if" in rule_of(asked) and f"{margin:g}" in rule_of(asked)


def test_verdicts_come_from_pairs(done: Path) -> None:
    better, worse, good, whole = document(done)["verdicts"]
    assert better["outcome"] == "supported" and worse["outcome"] == "refuted" and good["outcome"] == "refuted"
    assert better["found"]["value"] == pytest.approx(0.2, abs=0.01) and better["p_holm"] >= better["p"]
    assert better["line"].startswith("b > a by 0.") and "2 seeds, 4 clips: supported" in better["line"]
    assert whole["outcome"] == "undecided" and "bad seed 0 failed" in whole["left_out"], "left out, counted, not a hole"
    assert better["found"]["people"] == 4, "as df-eval says who is seen in a clip"
    by_arm = {row["arm"]: row for row in document(done)["tables"][0]["rows"]}
    assert by_arm["bad"]["value"]["value"] is None and by_arm["b"]["difference"]["low"] > 0.1


def test_one_person_decides_nothing(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done)
    config = validate_config(StudyConfig, TREE)
    measured = collect(make_plan(config, PROGRAMS, known_answers(config.directory)))
    measured.people = dict.fromkeys(measured.people, "anna")
    better = verdicts_of(config, measured)[0]
    assert better.outcome == "undecided" and "one person" in better.reason and better.found.clips == 4


def test_one_seed_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.json").write_text("{}")
    arms = {"a": {"effect": 0}, "b": {"effect": 0.2}}
    config = validate_config(StudyConfig, TREE | {"arms": arms, "seeds": [0], "hypotheses": TREE["hypotheses"][:1]})  # type: ignore[index]
    assert run_study(config, lambda line: None, programs=PROGRAMS) == 0
    verdict = document(tmp_path)["verdicts"][0]
    assert verdict["outcome"] == "undecided" and "one seed" in verdict["reason"] and verdict["found"]["low"] > 0.1


def test_the_page_shows_it_all(done: Path) -> None:
    text = (done / "studies/s/report.html").read_text()
    assert text.index("Verdicts") < text.index("Figures") < text.index("Tables") < text.index("Protocol")
    for part in (
        "does &lt;it&gt; help?",
        "&lt;b&gt; better &amp; more",
        "loss is not finite",
        "<svg",
        "train --config",
    ):
        assert part in text, part
    assert "http://" not in text.replace("http://www.w3.org", "") and "src=" not in text, "nothing is fetched"
    assert page(document(done)) == text, "from the stored numbers alone"
    table = (done / "studies/s/table.md").read_text()
    assert "| better" in table and "supported" in table and "bad/seed-0" in table


def estimated(seeds: int, clips: int, undefined: int = 0, value: float | None = 0.5) -> dict[str, Any]:
    return vars(Estimate(value, 0.4, 0.6, 0.1, 2.0, seeds, clips, undefined))


def test_a_difference_is_shown_with_its_own_seeds_and_clips(done: Path, tmp_path: Path) -> None:
    told = document(done)
    row = {"arm": "b", "value": estimated(3, 4, 2), "left_out": "left out: a seed 2 failed"}
    paired, alone = row | {"difference": estimated(2, 3, 1)}, row | {"difference": None}
    whole, own = "a seed 2 failed, 1 cells without a value, ", "value alone: seeds 3, clips 4, without a value 2"
    assert cells(paired, 1)[3:] == ["2", "3", whole + own]
    assert cells(alone, 1)[3:] == ["3", "4", "a seed 2 failed, 2 cells without a value"]
    without = cells(row | {"difference": estimated(0, 0, 0, None)}, 1)
    assert without[2:5] == ["–", "3", "4"], "no pair at all: the counts are those of the value"
    told["tables"][0]["rows"] = [paired]
    assert whole + own in page(told) and "<td>2</td><td>3</td>" in page(told)
    text = next(path for path in write_paper(told, tmp_path) if path.name == "lip-sync-33-generated.tex").read_text()
    assert "& 2 & 3 & -- \\\\" in text and f"b: {whole}{own}" in text


def test_odd_signs_stay_in_their_cells(done: Path, tmp_path: Path) -> None:
    assert markdown_table(["a"], [["x|y\nz"]]).splitlines()[-1] == r"| x\|y z |"
    told = document(done)
    told["verdicts"][0]["hypothesis"]["claim"] = "[both] help"
    text = next(path for path in write_paper(told, tmp_path) if path.name == "verdicts.tex").read_text()
    assert "\n{}[both] help (lip" in text, "no argument of the rule or the line before"
    told["verdicts"][0]["outcome"] = "50 % so"
    told["tables"] = [told["tables"][0] | {"metric": "m\n\\input{x}", "row": "r\n\\input{y}"}]
    texts = [path.read_text() for path in write_paper(told, tmp_path) if path.suffix == ".tex"]
    assert r"& 50 \% so" in texts[0] and texts[1].startswith(r"% m \input{x}, row r \input{y}, ")
    told["arms"] = {name: {"at": {"cost $": f"{name} 1$ to 2$"}} for name in told["arms"]}
    figure = axis_figure(told, "cost $")
    assert figure is not None and r"b 1\$ to 2\$" in [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_a_figure_draws_the_intervals_of_the_table(done: Path) -> None:
    told = document(done)
    for row, sides in zip(told["tables"][0]["rows"][:2], ((0.1, 0.9), (0.4, 0.5)), strict=True):
        row["value"] |= {"value": 0.45, "low": sides[0], "high": sides[1]}
    told["tables"] = told["tables"][:1]
    figure = axis_figure(told, "arms")
    assert figure is not None
    bars = [line for collection in figure.axes[0].collections for line in collection.get_segments()]
    drawn = sorted((round(float(bar[0][1]), 6), round(float(bar[1][1]), 6)) for bar in bars)
    assert (0.1, 0.9) in drawn and (0.4, 0.5) in drawn


def test_a_figure_says_what_it_does_not_draw(done: Path) -> None:
    told = document(done)
    assert "not drawn" not in page(told)
    table, verdict = told["tables"][0], told["verdicts"][0]
    frames = range(1, MOST_PANELS + 3)
    told["tables"] = [table | {"frames": count} for count in frames]
    told["verdicts"] = [verdict | {"hypothesis": verdict["hypothesis"] | {"frames": count}} for count in frames]
    assert "2 more in the tables, not drawn" in page(told)


def test_status_and_report_read_what_is_there(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    for place in ("studies/s", "study.yaml"):
        assert main(["status", place]) == 0
        said = capsys.readouterr().out
        assert "loss is not finite (exit code 1)" in said and "measured" in said and said.count("done") >= 4
    assert main(["report", "studies/s", "--paper", "paper"]) == 0
    assert "verdicts.tex" in capsys.readouterr().out and Path("paper/arms.pdf").is_file()


def test_a_metric_can_be_looked_at_afterwards(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the tables from then on, called so and dated, without a verdict; what the study asks stays as it was."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    fixed, before = Path("studies/s/study.yaml").read_bytes(), document(done)
    assert "still_mouth" not in {table["metric"] for table in before["tables"]}
    assert main(["report", "studies/s", "--also", "still_mouth", "motion_ratio", "lip_sync"]) == 0
    for command in (["report", "studies/s"], ["report", "studies/s", "--also", "still_mouth"]):
        assert main(command) == 0, "it stays, and is noted once"
        told = document(tmp_path)
        assert [table["metric"] for table in told["tables"]] == ["lip_sync", "motion_ratio", "still_mouth"]
        (noted,) = told["amendments"]
        assert noted["added"] == ["the metric still_mouth"], "the others were there"
        assert told["verdicts"] == before["verdicts"]
    tables = Path("studies/s/table.md").read_text()
    assert "looked at when 4 of 6 runs were done" in tables and "## still mouths, looked at afterwards" in tables
    assert Path("studies/s/study.yaml").read_bytes() == fixed
    config = validate_config(StudyConfig, TREE)
    assert run_study(config, lambda _: None, programs=PROGRAMS) == 1, "it goes on as it was asked: one arm fails"
    assert len(document(tmp_path)["tables"]) == 3
    later = TREE | {"hypotheses": [*TREE["hypotheses"], claim("seen", metric="still_mouth")]}
    assert run_study(validate_config(StudyConfig, later), lambda _: None, programs=PROGRAMS, amend="it shows") == 1
    (_, stated) = document(tmp_path)["amendments"]
    assert stated["added"] == ["the hypothesis 'seen' (stated after still_mouth was looked at)"]
    titles = [table["title"] for table in document(tmp_path)["tables"]]
    assert titles.count("still mouths, looked at afterwards") == 1 and len(titles) == 3
    capsys.readouterr()
    noted = Path("studies/s/amendments.json").read_bytes()
    for name, told_why in (
        ("sync_c", "none of the 4 runs that are done gives it"),
        ("mouth", "there is no metric 'mouth'"),
    ):
        assert main(["report", "studies/s", "--also", name]) == 2
        assert "--also" in (said := capsys.readouterr().err) and told_why in said
    assert Path("studies/s/amendments.json").read_bytes() == noted
    for damage in ("{", "null", "{}", '["x"]', '[{"date": "", "text": "", "added": [], "metrics": "ab"}]'):
        Path("studies/s/amendments.json").write_text(damage)
        assert main(["report", "studies/s", "--also", "still_mouth"]) == 2
        assert "amendments.json is damaged" in capsys.readouterr().err
        assert Path("studies/s/amendments.json").read_text() == damage, "nothing is written over it"
    for run in told["runs"]:
        shutil.rmtree(run["place"], ignore_errors=True)
    assert main(["report", "studies/s", "--also", "lip_width_corr"]) == 2
    assert "cannot show more than it does, as 4 of the 4 runs" in capsys.readouterr().err


@pytest.mark.parametrize("planned", [False, True])
def test_a_report_is_made_anew_from_the_kept_numbers(
    planned: bool, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is
    for name in ("study.json", "study.yaml", *(["plan.json"] if planned else [])):
        (tmp_path / name).write_bytes((done / "studies/s" / name).read_bytes())
    before = document(done)
    assert main(["report", ".", "--paper", "paper"]) == 0
    said = capsys.readouterr().out
    assert "from study.json" in said and "own reports" in said and "no strips of images: no videos of" in said
    assert json.loads(Path("study.json").read_text()) == before, "what was found is kept"
    assert Path("table.md").read_text() == (done / "studies/s/table.md").read_text()
    text = Path("report.html").read_text()
    assert text == page(before, linked=False) and "<a href" not in text and "b/seed-0" in text
    assert Path("paper/verdicts.tex").is_file() and Path("paper/arms.pdf").is_file()


@pytest.mark.parametrize("lost", ["run", "eval"])
def test_what_a_lost_run_gave_is_kept(
    lost: str, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    study, before = Path("studies/s"), document(done)
    whole = [Path(run["place"]) for run in before["runs"] if run["state"] == "done"]
    for place in whole[1:]:  # one run is left
        shutil.rmtree(place if lost == "run" else place / "eval")
    assert main(["report", "studies/s"]) == 0
    said = capsys.readouterr().out
    assert f"made from study.json, as {len(whole) - 1} of the {len(whole)} runs" in said
    assert document(tmp_path) == before and "supported" in (study / "table.md").read_text()


def test_where_runs_are_there_a_damaged_document_is_made_anew(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    before = Path("studies/s/study.json").read_text()
    Path("studies/s/study.json").write_text("{")
    assert main(["report", "studies/s"]) == 0 and "from study.json" not in capsys.readouterr().out
    assert Path("studies/s/study.json").read_text() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: "{", "is damaged"),
        (lambda tree: "[]", "says no schema_version"),
        (lambda tree: json.dumps({key: tree[key] for key in tree if key != "tables"}), "tables: Field required"),
        (lambda tree: json.dumps(tree | {"schema_version": 9}), "is of version 9"),
        (lambda tree: json.dumps(tree | {"schema_version": "1"}), "says no schema_version"),
        (lambda tree: json.dumps(tree | {"runs": [{}]}), "runs.0.key: Field required"),
        (lambda tree: json.dumps(tree | {"tables": 5}), "tables: Input should be a valid list"),
        (lambda tree: json.dumps(tree | {"cost_line": None}), "cost_line: Input should be a valid string"),
        (lambda tree: json.dumps(tree | {"arms": {}}), "which is not among the arms"),
        (lambda tree: changed(tree, ("tables", 0, "decimals"), "x"), "tables.0.decimals: Input should be a valid int"),
        (lambda tree: changed(tree, ("tables", 0, "decimals"), -1), "tables.0.decimals: Input should be greater"),
        (lambda tree: changed(tree, ("verdicts", 0, "found"), {}), "verdicts.0.found.value: Field required"),
        (lambda tree: changed(tree, ("verdicts", 0, "found", "mean"), 1), "verdicts.0.found.mean: Extra inputs"),
        (lambda tree: changed(tree, ("verdicts", 0, "found", "low"), 9.0), "outside of its interval"),
        (lambda tree: changed(tree, ("verdicts", 0, "found", "value"), float("nan")), "should be a finite number"),
        (lambda tree: changed(tree, ("verdicts", 0, "outcome"), "50 % so"), "verdicts.0.outcome: Input should be"),
        (lambda tree: changed(tree, ("verdicts", 0, "p_holm"), None), "p and p_holm"),
        (lambda tree: changed(tree, ("arms", "a\nb"), 1), r"arms.a\nb: Input should be"),
    ],
)
def test_kept_numbers_that_cannot_be_used_are_one_line(
    change: Callable[[dict[str, Any]], str], message: str, done: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "study.json").write_text(change(document(done)))
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere.yaml"], "config file not found"),
        (["study.yaml", "seedz=[1]"], "did you mean 'seeds'"),
        (["study.yaml", "seeds=[1,1]"], "named twice"),
        (["status", "."], "no study that was begun"),
        (["report", "studies/s", "seeds=[1]"], "leave out key=value"),
        (["studies/s"], "is a directory"),
        (["plan", "study.yaml", "name=other", "base=none.yaml"], "config file not found"),
        (["plan", "study.yaml", "resamples=300"], "was fixed by the study's first run"),
    ],
)
def test_mistakes_are_one_line(
    done: Path, argv: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_commands_are_shown_by_their_own_names() -> None:
    programs = Programs()
    assert programs.shown([*programs.train, "--config", "x"]) == ["df-train", "--config", "x"]
    assert programs.shown([*programs.evaluate, "run"]) == ["df-eval", "run"]
    assert programs.shown([*programs.corpus, "--out", "d"])[:3] == ["python", "-m", "df_eval.study.corpus"]


def test_help_loads_no_torch() -> None:
    code = "import sys; from df_eval.study.cli import build_parser; build_parser('run').format_help(); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_that_is_misspelt_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plna", "configs/study/bridge.yaml"]) == 2
    assert "no such file and no command: plna (did you mean 'plan'?)" in capsys.readouterr().err
