"""`report.html`, `table.md` and `study.json` of a study, from what its runs left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from df_eval.metrics.seen import GENERATED
from df_eval.reports.style import CSS
from df_eval.study.config import StudyConfig
from df_eval.study.cost import cost_line, duration
from df_eval.study.document import DOCUMENT, read_document, study_document
from df_eval.study.figures import as_svg, axes_of, axis_figure
from df_eval.study.freeze import amendments, frozen_config, look_at, looked_at
from df_eval.study.measured import Measured, collect
from df_eval.study.plan import PLAN, read_plan
from df_eval.study.records import state_of
from df_eval.study.table import P_NOTE, counted_of, markdown_document, note, state_text
from df_eval.study.verdicts import numbers
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.intervals.estimate import Estimate

STYLE = """
.verdict { background: var(--paper); border: 1px solid var(--line); border-left: 5px solid var(--none);
  border-radius: 8px; padding: 11px 14px; margin: 0 0 10px; }
.verdict.supported { border-left-color: var(--good); } .verdict.refuted { border-left-color: var(--bad); }
.tag.supported { background: var(--good); } .tag.refuted { background: var(--bad); }
.verdict p { margin: 3px 0; font-size: 13px; color: var(--soft); } .verdict p.line { color: var(--ink); }
td:first-child { min-width: 120px; } td.text, th.text { text-align: left; min-width: 160px; }
pre { overflow-x: auto; font-size: 12px; background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px; }
figure.wide { overflow-x: auto; } figure svg { display: block; }
"""


def write_report(directory: Path, also: Sequence[str] = ()) -> Path:
    """Write the three files from what is there now; returns the page's path.

    Args:
        also: metrics that the tables are to show from now on, though the study did not name them.

    Raises:
        UserError: the directory is no study that was begun, or no run that is done gives such a metric.
    """
    plan, config = read_plan(directory), frozen_config(directory)
    if config is None:
        raise UserError(f"{directory} holds no study.yaml; run df-study CONFIG first")
    measured = collect(plan)
    if new := _new_to(config, directory, measured, also):
        look_at(directory, new, f"{len(measured.lines)} of {len(measured.lines) + len(measured.missing)} runs")
    document = study_document(config, plan, measured, amendments(directory))
    document["cost_line"] = cost_line(plan)
    atomic_write(directory / DOCUMENT, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return _write_pages(directory, document, linked=True)


def _new_to(config: StudyConfig, directory: Path, measured: Measured, metrics: Sequence[str]) -> list[str]:
    """The metrics that no table of a study shows yet.

    Raises:
        UserError: no run that is done gives one of them.
    """
    asked = {h.metric for h in config.hypotheses if h.row == GENERATED}
    shown = asked.union(config.metrics, looked_at(amendments(directory)))
    new = [name for name in dict.fromkeys(metrics) if name not in shown]
    given = {name for lines in measured.lines.values() for _, row, name in lines if row == GENERATED}
    for name in new:
        if name not in given:
            done = f"none of the {len(measured.lines)} runs that are done gives it"
            raise UserError(f"--also {name}: {done}; docs/metrics.md says what it needs")
    return new


def write_kept(directory: Path) -> Path:
    """Write the page and the tables of a study of which runs are gone from ``study.json``, which stays as it is.

    Returns the page's path.

    Raises:
        UserError: ``study.json`` cannot be used.
    """
    return _write_pages(directory, read_document(directory), linked=False)


def runs_gone(directory: Path) -> str:
    """Which runs a study's ``study.json`` knows more of than what is there, in words; empty: none.

    They are those that it calls done and that are not done now: a report made anew would lose their numbers.

    Raises:
        UserError: no run is there, and ``study.json`` cannot be used.
    """
    if not (directory / DOCUMENT).is_file():
        return ""
    if not (directory / PLAN).is_file():
        return "the runs are not here"
    runs = {step.key: step for step in read_plan(directory).runs}
    try:
        told = read_document(directory)["runs"]
    except UserError:
        if any(Path(step.place).is_dir() for step in runs.values()):
            return ""  # it is made anew
        raise
    done = [runs[run["key"]] for run in told if run["state"] == "done" and run["key"] in runs]
    gone = sum(state_of(step, directory) != "done" for step in done)
    return f"{gone} of the {len(done)} runs that are done there are not here, or not whole" if gone else ""


def _write_pages(directory: Path, document: Mapping[str, Any], *, linked: bool) -> Path:
    text, tables = page(document, linked=linked), markdown_document(document)  # both, before either is written
    atomic_write(directory / "table.md", tables)
    atomic_write(directory / "report.html", text)
    return directory / "report.html"


def page(document: Mapping[str, Any], *, linked: bool = True) -> str:
    """The page as HTML text; nothing in it is fetched from elsewhere.

    Args:
        linked: runs link to their own reports, which lie beside the page.
    """
    environment = Environment(loader=PackageLoader("df_eval.study"), autoescape=True, undefined=StrictUndefined)
    environment.filters["estimate"] = _numbers
    environment.filters |= {"duration": duration, "counted": counted_of, "note": note, "state": state_text}
    drawn = {axis: axis_figure(document, axis) for axis in axes_of(document)}
    figures = {axis: as_svg(figure) for axis, figure in drawn.items() if figure is not None}
    template = environment.get_template("report.html.j2")
    return template.render(study=document, figures=figures, style=CSS + STYLE, linked=linked, p_note=P_NOTE)


def _numbers(found: Mapping[str, Any], decimals: int) -> str:
    return numbers(Estimate(**found), decimals)
