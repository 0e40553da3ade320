"""`report.html`, `table.md` and `study.json` of a study, from what its runs left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from df_eval.reports.style import CSS
from df_eval.study.cost import cost_line, duration
from df_eval.study.document import DOCUMENT, read_document, study_document
from df_eval.study.figures import as_svg, axes_of, axis_figure
from df_eval.study.freeze import amendments, frozen_config
from df_eval.study.measured import collect
from df_eval.study.plan import PLAN, read_plan
from df_eval.study.table import counted_of, markdown_document, note, state_text
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
td.text { text-align: left; white-space: normal; } pre { overflow-x: auto; font-size: 12px; background: var(--paper);
  border: 1px solid var(--line); border-radius: 8px; padding: 10px; } figure svg { max-width: 100%; height: auto; }
"""


def write_report(directory: Path) -> Path:
    """Write the three files from what is there now; returns the page's path.

    Raises:
        UserError: the directory is no study that was begun.
    """
    plan, config = read_plan(directory), frozen_config(directory)
    if config is None:
        raise UserError(f"{directory} holds no study.yaml; run df-study CONFIG first")
    document = study_document(config, plan, collect(plan), amendments(directory))
    document["cost_line"] = cost_line(plan)
    atomic_write(directory / DOCUMENT, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return _write_pages(directory, document, linked=True)


def write_kept(directory: Path) -> Path:
    """Write the page and the tables of a study whose runs are gone, from ``study.json``, which stays as it is; returns
    the page's path.

    Raises:
        UserError: ``study.json`` cannot be used.
    """
    return _write_pages(directory, read_document(directory), linked=False)


def runs_gone(directory: Path) -> bool:
    """Whether a study's results were kept without its runs: there is a ``study.json`` that tells of runs that are done,
    and no run is where the plan says, or there is no plan."""
    if not (directory / DOCUMENT).is_file():
        return False
    if not (directory / PLAN).is_file():
        return True
    runs = read_plan(directory).runs
    if any(Path(step.place).is_dir() for step in runs):
        return False
    done = {run["key"] for run in read_document(directory)["runs"] if run["state"] == "done"}
    return any(step.key in done for step in runs)


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
    return template.render(study=document, figures=figures, style=CSS + STYLE, linked=linked)


def _numbers(found: Mapping[str, Any], decimals: int) -> str:
    return numbers(Estimate(**found), decimals)
