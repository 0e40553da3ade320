"""An evaluation in the place of an earlier one: no number that was measured otherwise is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fabricated import outcome_of

from df_eval.reports.earlier import EARLIER, KEPT, differing
from df_eval.reports.output import EvalOutcome, check_place, write_outcome
from df_models.errors import UserError


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> EvalOutcome:
    made = outcome_of(tmp_path_factory.mktemp("run") / "none.jsonl", clips=2, lengths=(33,))
    return replace(made, results={}, videos={}, facts={"protocol": None, "clips": [{}, {}]}, measured_as="a" * 64)


def test_another_evaluation_s_numbers_are_kept_and_said(
    outcome: EvalOutcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval"
    write_outcome(outcome, out, quiet=True)
    first = {name: (out / name).read_bytes() for name in KEPT}
    write_outcome(replace(outcome, seconds={"x": 1.0}), out, quiet=True)
    assert capsys.readouterr().err == "" and not (out / EARLIER).exists(), "measured alike"
    write_outcome(outcome, out, quiet=True)

    other = outcome_of(tmp_path / "none.jsonl", clips=1, noise=0.5, lengths=(33,))
    other = replace(outcome, tables=other.tables, clips=other.clips, measured_as="b" * 64)
    write_outcome(other, out, quiet=True)
    told = capsys.readouterr().err
    (place,) = (out / EARLIER).iterdir()
    assert told.count("\n") == 1 and str(place) in told
    assert "run fabricated, no protocol, 2 clips, 33 frames" in told
    assert {name: (place / name).read_bytes() for name in KEPT} == first
    assert json.loads((out / "metrics.json").read_text())["measured_as"] == "b" * 64

    write_outcome(outcome, out, quiet=True)  # and back: both are there
    assert len(list((out / EARLIER).iterdir())) == 2


def told_of(outcome: EvalOutcome, **changes: object) -> dict[str, object]:
    config = outcome.config.model_copy(update=changes)
    facts = {"protocol": None, "clips": [{"key": "a"}], "config": config.model_dump(mode="json"), "reader": "x"}
    return {"run": "r", "protocol": facts}


def test_the_line_names_the_settings_that_differed(outcome: EvalOutcome) -> None:
    before = told_of(outcome, batch_size=1)
    assert differing(before, told_of(outcome, seed=7)) == "differs in seed: 0 -> 7", (
        "not the batch, which decides nothing"
    )
    codec = outcome.config.drift.model_copy(update={"frames": 513})
    told = differing(before, told_of(outcome, seed=7, codec="h264", max_lag=3, drift=codec))
    assert told.count(" -> ") == 3 and told.endswith("and 1 more") and 'codec: "raw" -> "h264"' in told
    other = told_of(outcome)
    other["protocol"]["clips"] = [{"key": "a"}, {"key": "b"}]  # type: ignore[index]
    assert "clips measured" in differing(before, other)
    resized = told_of(outcome, baseline=outcome.config.baseline.model_copy(update={"resize": True}))
    assert differing(before, resized) == "differs in baseline.resize: false -> true"
    assert "weights, clips" in differing(before, told_of(outcome)) and "\n" not in told
    assert differing({"run": "r"}, before) == "its settings are not known", "of an older version"
    long = told_of(outcome)
    long["protocol"]["reader"] = "y" * 500  # type: ignore[index]
    assert len(differing(before, long)) < 150


def test_of_several_systems_the_numbers_decide(
    outcome: EvalOutcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = replace(outcome, measured_as="")
    write_outcome(several, tmp_path, quiet=True)
    write_outcome(several, tmp_path, quiet=True)
    assert capsys.readouterr().err == ""
    (tmp_path / "metrics.json").write_text("{broken")
    write_outcome(several, tmp_path, quiet=True)
    assert "cannot be read" in capsys.readouterr().err
    (place,) = (tmp_path / EARLIER).iterdir()
    assert (place / "metrics.json").read_text() == "{broken"


def test_a_kill_between_the_moves_loses_nothing_and_what_was_kept_can_be_told(
    outcome: EvalOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outcome(outcome, tmp_path, quiet=True)
    first = {name: (tmp_path / name).read_bytes() for name in KEPT}
    moved: list[Path] = []

    def killed(self: Path, target: Path) -> Path:
        if self.name in KEPT and EARLIER in str(target):
            moved.append(self)
            raise KeyboardInterrupt
        return replace_file(self, target)

    replace_file = Path.replace
    monkeypatch.setattr(Path, "replace", killed)
    other = outcome_of(tmp_path / "none.jsonl", clips=1, noise=0.5, lengths=(33,))
    with pytest.raises(KeyboardInterrupt):
        write_outcome(replace(outcome, tables=other.tables, measured_as="b" * 64), tmp_path, quiet=True)
    monkeypatch.undo()
    (place,) = (tmp_path / EARLIER).iterdir()
    there = {name: (at / name).read_bytes() for at in (tmp_path, place) for name in KEPT if (at / name).is_file()}
    assert there == first and (place / "metrics.json").read_bytes() == first["metrics.json"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_place_that_is_not_ours_is_told_before_anything_is_measured(tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".df-eval").touch()
    if kind == "file":
        (tmp_path / "out" / EARLIER).touch()
    else:
        (tmp_path / "out" / EARLIER).symlink_to(tmp_path)
    with pytest.raises(UserError, match="is no directory of df-eval's"):
        check_place(tmp_path / "out")
