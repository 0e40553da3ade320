"""What decides a claim: pairs that are whole, more than one seed, and criteria that stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from df_eval.study import programs
from df_eval.study.config import StudyConfig
from df_eval.study.freeze import amendments, freeze, hold
from df_eval.study.measured import Measured
from df_eval.study.verdicts import Verdict, verdicts_of
from df_models.errors import UserError

Lines = dict[tuple[str, int], list[float | None]]


def _verdict_of(lines: Lines, missing: dict[tuple[str, int], str], **claim: Any) -> Verdict:
    """What comes of `a` against `b` from a value for each clip, None where there is none."""
    config = StudyConfig.model_validate(
        {
            "name": "s",
            "question": "?",
            "base": "x.yaml",
            "arms": {"a": {}, "b": {"seed": 1}},
            "seeds": sorted({seed for _, seed in [*lines, *missing]}),
            "hypotheses": [
                {"name": "h", "claim": "c", "metric": "lip_sync", "arms": ["a", "b"], "criterion": "why"} | claim
            ],
        }
    )
    asked = (33, "generated", "lip_sync")
    pairs = {
        run: {asked: {f"clip-{i}": (0.0, 0.0) if v is None else (v, 1.0) for i, v in enumerate(values)}}
        for run, values in lines.items()
    }
    (verdict,) = verdicts_of(config, Measured(pairs, {}, missing))
    return verdict


def _lines(difference: float) -> Lines:
    base = [0.1, 0.2, 0.3, 0.4]
    return {
        (arm, seed): [v + 0.001 * seed + (difference if arm == "a" else 0.0) for v in base]
        for arm in ("a", "b")
        for seed in range(3)
    }


def test_what_is_missing_because_it_failed_decides_nothing() -> None:
    assert _verdict_of(_lines(0.2), {}, margin=0.1).outcome == "supported"
    assert _verdict_of(_lines(0.2), {("a", 3): "waiting"}, margin=0.1).outcome == "supported"
    failed = _verdict_of(_lines(0.2), {("a", 3): "failed: train: not finite"}, margin=0.1)
    assert failed.outcome == "undecided" and "a run failed (1 seed)" in failed.reason
    faceless = _lines(0.2)
    faceless["a", 1][2] = None
    lacking = _verdict_of(faceless, {}, margin=0.1)
    assert lacking.outcome == "undecided" and "one arm alone has no value in 1 cells" in lacking.reason
    faceless["b", 1][2] = None
    assert _verdict_of(faceless, {}, margin=0.1).outcome == "supported", "what both lack is left out of both"


def test_an_arm_without_a_metric_is_told_as_that_and_not_as_lacking_clips() -> None:
    lines = _lines(0.2)
    for seed in range(3):
        lines["b", seed] = []
    none = _verdict_of(lines, {}, margin=0.1)
    assert none.left_out == "left out: b has no lip_sync at all (none of its runs gives it in generated)"
    lines = _lines(0.2)
    lines["b", 1] = lines["b", 1][:2]
    assert "2 clips that not every run was measured on" in _verdict_of(lines, {}, margin=0.1).left_out


def test_one_seed_has_no_p_and_a_claim_may_be_of_a_loss_at_most() -> None:
    one = {run: values for run, values in _lines(0.2).items() if run[1] == 0}
    alone = _verdict_of(one, {}, margin=0.1)
    assert alone.outcome == "undecided" and alone.p is None and alone.p_holm is None
    assert _verdict_of(_lines(-0.02), {}, margin=-0.03).outcome == "supported"
    assert _verdict_of(_lines(-0.04), {}, margin=-0.03).outcome == "refuted"
    small = _verdict_of(_lines(0.02), {}, margin=0.03)
    assert small.outcome == "refuted" and "claimed sign" in small.reason


def _study(**changes: Any) -> StudyConfig:
    told = {"name": "s", "question": "?", "base": "x.yaml", "axes": {"lr": [1, 2]}, "seeds": [0]}
    return StudyConfig.model_validate(told | changes)


def test_what_is_there_stays_first_and_values_are_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    freeze(_study())
    assert freeze(_study(axes={"lr": [2, 1]})).axes == {"lr": (1, 2)}, "the first arm trains for those like it"
    with pytest.raises(UserError, match="lr=True stood not in"):
        freeze(_study(axes={"lr": [1, 2, True]}))


def test_seeds_that_are_added_after_a_look_are_noted_with_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    freeze(_study())
    (tmp_path / "studies/s/study.json").write_text(json.dumps({"verdicts": [{"line": "a > b by 0.1: undecided"}]}))
    freeze(_study(seeds=[0, 1]))
    freeze(_study(seeds=[0, 1]))
    (noted,) = amendments(tmp_path / "studies/s")
    assert noted["added"] == ["the seed 1"] and noted["text"] == "seeds added after: a > b by 0.1: undecided"


def test_runs_without_what_was_fixed_before_them_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    freeze(_study())
    (tmp_path / "studies/s/runs").mkdir()
    (tmp_path / "studies/s/study.yaml").unlink()
    with pytest.raises(UserError, match=r"holds runs but no study\.yaml"):
        freeze(_study())


def test_what_the_arms_start_from_may_not_change_behind_a_studys_back(tmp_path: Path) -> None:
    hold(tmp_path, {"a": {"optim": {"lr": 1, "steps": 5}}}, {"a": {"clips": 16}})
    hold(tmp_path, {"a": {"optim": {"lr": 1, "steps": 5}}, "b": {}}, {"a": {"clips": 16}})
    with pytest.raises(UserError, match=r"arm a was first run with train: optim\.steps=5, and .* now give 9"):
        hold(tmp_path, {"a": {"optim": {"lr": 1, "steps": 9}}}, {"a": {"clips": 16}})
    with pytest.raises(UserError, match=r"evaluate: clips=16, and .* null"):
        hold(tmp_path, {"a": {"optim": {"lr": 1, "steps": 5}}}, {})


def test_a_runs_hash_knows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up").mkdir()
    source, weights = (tmp_path / "made_up" / name for name in ("__init__.py", "reader.safetensors"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(programs, "PACKAGES", ("made-up",))
    found = []
    for text in ("x = 1", "x = 2", "x = 1"):
        source.write_text(text)
        programs._code.cache_clear()
        found.append(programs.versions()["code"])
    weights.write_bytes(b"other weights")
    programs._code.cache_clear()
    found.append(programs.versions()["code"])
    programs._code.cache_clear()
    assert found[0] == found[2] != found[1] and found[3] not in found[:3], "embedded weights are code, too"
