"""`report.html`, `table.md` and `study.json` of a study, from what its runs left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from df_eval.reports.style import CSS
from df_eval.study.cost import cost_line, duration
from df_eval.study.document import study_document
from df_eval.study.figures import as_svg, axes_of, axis_figure
from df_eval.study.freeze import amendments, frozen_config
from df_eval.study.measured import collect
from df_eval.study.plan import read_plan
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
  border: 1px solid var(--line); border-radius: 8px; padding: 10px; } figure svg { width: 100%; height: auto; }
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
    atomic_write(directory / "study.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    atomic_write(directory / "table.md", markdown_document(document))
    atomic_write(directory / "report.html", page(document))
    return directory / "report.html"


def page(document: Mapping[str, Any]) -> str:
    """The page as HTML text; nothing in it is fetched from elsewhere."""
    environment = Environment(loader=PackageLoader("df_eval.study"), autoescape=True, undefined=StrictUndefined)
    environment.filters["estimate"] = _numbers
    environment.filters |= {"duration": duration, "counted": counted_of, "note": note, "state": state_text}
    drawn = {axis: axis_figure(document, axis) for axis in axes_of(document)}
    figures = {axis: as_svg(figure) for axis, figure in drawn.items() if figure is not None}
    return environment.get_template("report.html.j2").render(study=document, figures=figures, style=CSS + STYLE)


def _numbers(found: Mapping[str, Any], decimals: int) -> str:
    return numbers(Estimate(**found), decimals)
