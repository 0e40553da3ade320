"""Every metric of the list is measured, says what it is, and is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
from fabricated import outcome_of, rows_of

from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, ROWS, SHIFTED, STATIC, measure
from df_eval.metrics import CATALOG, GROUPS, SETS, SPECS, MetricSpec, SetSpec, add_metric
from df_eval.metrics.seen import Seen
from df_eval.reports.output import EvalOutcome
from df_eval.reports.table import table_document
from tools.make_metrics import DOCUMENT, document


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> EvalOutcome:
    return outcome_of(tmp_path_factory.mktemp("run") / "metrics.jsonl", clips=2)


def test_no_two_metrics_have_one_name() -> None:
    assert len(SPECS) == len(CATALOG)


def test_a_metric_beside_other_clips_that_needs_more_than_mouths_is_refused() -> None:
    more = replace(SPECS["lip_sync"], name="mine", needs=("other_mouths", "angles"))
    with pytest.raises(
        ValueError, match=r"needs other_mouths and angles: .*all are read, .*nothing but mouth, true_mouth"
    ):
        add_metric(more)
    assert "mine" not in SPECS


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.name)
def test_every_metric_has_its_entry_and_a_value_and_is_shown(spec: MetricSpec, outcome: EvalOutcome) -> None:
    assert spec.definition.endswith((".", "?")) and spec.source and spec.title
    assert spec.better in ("higher", "lower", "truth") and spec.group in GROUPS
    signals = (property, cached_property)
    assert all(isinstance(getattr(Seen, need), signals) for need in spec.needs), "a need is a signal of Seen"
    assert set(spec.not_in) < set(ROWS) and all(spec.not_in.values())
    table = outcome.tables[65]
    there = [row for row in ROWS if table[row][spec.name].value is not None]
    assert there, "it is measured in some row of the fabricated evaluation"
    least, most = spec.within
    for score in (table[row][spec.name] for row in there):
        assert least - 1e-9 <= score.value <= most + 1e-9, "it is a value that its range says can be"
        assert score.low is None or min(least, score.value) <= score.low <= score.high <= max(most, score.value)
    assert not set(there) & set(spec.not_in) and (SHIFTED in there) == (spec.shifted is not None)
    for row in spec.not_in:
        assert row == SHIFTED or table[row][spec.name].reason == spec.not_in[row]
    counts = {frames: len(outcome.clips) for frames in outcome.tables}
    assert spec.title in table_document("x", outcome.tables, outcome.goals, counts)


@pytest.mark.parametrize("spec", SETS, ids=lambda spec: spec.name)
def test_every_distance_of_distributions_has_its_entry_and_a_value_and_says_how_few_clips_it_rests_on(
    spec: SetSpec, outcome: EvalOutcome
) -> None:
    assert spec.definition.endswith(".") and spec.source and spec.title and spec.protocol
    assert spec.name not in SPECS and spec.group in GROUPS
    cells = {row: outcome.tables[65][row][spec.name] for row in ROWS}
    assert cells[GROUND_TRUTH].reason == "compared with itself"
    assert [row for row in ROWS if cells[row].value is not None] == [RECONSTRUCTION, GENERATED, STATIC]
    warned = f"{spec.title} is biased below 2048 clips; N = "
    assert cells[GENERATED].reason.startswith(warned) == spec.biased
    counts = {frames: len(outcome.clips) for frames in outcome.tables}
    least, most = spec.within
    for score in (cells[row] for row in (RECONSTRUCTION, GENERATED, STATIC)):
        assert score.low is None or min(least, score.value) <= score.low <= score.high <= max(most, score.value)
    assert (warned in table_document("x", outcome.tables, outcome.goals, counts)) == spec.biased


def test_the_page_of_metrics_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: uv run python tools/make_metrics.py"


@pytest.fixture
def as_it_was() -> Iterator[None]:
    kept = list(CATALOG)
    yield
    CATALOG[:] = kept
    SPECS.clear()
    SPECS.update({spec.name: spec for spec in kept})


@pytest.mark.usefixtures("as_it_was")
def test_the_page_on_adding_a_metric_does_what_it_says(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "metric.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(code, str(page), "exec"), {})
    truth, videos = rows_of(0, 33, 0.5, 0.0)
    limits = {"max_lag": 5, "shifts": (25,)}
    same, other = (measure(row, videos[row], truth, **limits).pairs["mouth_jerk"] for row in (GROUND_TRUTH, GENERATED))
    assert same.value == pytest.approx(1.0) and other.value != same.value
    assert "mouth_jerk" not in measure(SHIFTED, videos[SHIFTED], truth, **limits).pairs
    outcome = outcome_of(tmp_path / "metrics.jsonl", clips=2)
    assert "mouth jerk / truth" in table_document("x", outcome.tables, outcome.goals, {33: 2, 65: 2})
    with pytest.raises(ValueError, match="is taken"):
        exec(compile(code, str(page), "exec"), {})
