"""report.html: what was reached, every number, the curves, and the videos to look at. Files lie beside it; nothing is
fetched from elsewhere. How it looks stands in `templates/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from df_eval.compare import Difference
from df_eval.measure import GENERATED, kind_of
from df_eval.metrics import CATALOG, SETS, SPECS, Score
from df_eval.reports.goals import Goal
from df_eval.reports.markdown import NOTHING, count_of
from df_eval.reports.style import CSS
from df_eval.reports.table import (
    HEADLINE,
    Spec,
    Table,
    clips_in,
    clips_of,
    comparison_note,
    difference_cell,
    groups_with_values,
    headline_specs,
    p_cell,
    remarks,
    unavailable_lines,
    verdict,
)

INTERVAL = re.compile(r"(\S+) (\[[^\]]*\]) ?(.*)")
"""A value, its interval, and what follows."""
ROW_HELP = {
    "ground truth": "The reader on the true frames: how well the reader itself measures.",
    "VAE reconstruction": "The true frames encoded and decoded by the VAE: the best a model of its latents can do.",
    "generated": "The system's video; a run makes it from the reference image (the clip's first frame) and the audio.",
    "shifted audio": "The system's videos against the truth of the same audio taken 1 to 2 s later: must be near 0.",
    "static image": "The reference image held still: what a frozen face scores.",
}


@dataclass(frozen=True)
class Section:
    """A table of its own: heading, header, lines, and what is to be known of it."""

    heading: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass
class Report:
    """What the page shows. Paths are relative to the page.

    Attributes:
        protocol: (name, text) lines.
        tables: by length in frames.
        plots: by heading, (path, caption, wide).
        videos: (path, caption).
        sheets: (path, caption).
        sections: further tables.
        warning: stands on every page; empty: nothing.
        differences: of each system from the first.
        told: what must be read beside the numbers, a line each.
    """

    title: str
    lead: str
    goals: Sequence[Goal]
    tables: dict[int, Table]
    clips: dict[int, int]
    protocol: list[tuple[str, str]]
    plots: dict[str, list[tuple[str, str, bool]]] = field(default_factory=dict)
    videos: list[tuple[str, str]] = field(default_factory=list)
    sheets: list[tuple[str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    warning: str = ""
    differences: Sequence[Difference] = ()
    told: Sequence[str] = ()


def render(report: Report) -> str:
    """The page as HTML text."""
    environment = Environment(loader=PackageLoader("df_eval.reports"), autoescape=True, undefined=StrictUndefined)
    script = resources.files("df_eval.reports").joinpath("templates", "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        report=report,
        style=CSS,
        script=script,
        goals=[_goal(goal) for goal in report.goals],
        differences=_differences(report.differences) if report.differences else None,
        comparison_note=comparison_note(report.differences),
        headlines=[_headline(report, frames) for frames in report.tables],
        lengths=[_length(frames, table, report.clips[frames]) for frames, table in report.tables.items()],
        sections=[{"heading": s.heading, "table": _plain(s), "notes": s.notes} for s in report.sections],
        row_help=list(ROW_HELP.items()),
        specs=(*CATALOG, *SETS),
    )


def _goal(goal: Goal) -> dict[str, str]:
    state = verdict(goal)
    interval = _interval(goal.score, 3)
    detail = f"goal {goal.target}" + (f"; 95 % interval {interval}" if interval else "")
    if goal.truth is not None:
        detail += f"; the truth's own {goal.truth:.3f}"
    if told := goal.told():
        detail += f"; {told}"
    return {
        "kind": state if state in ("yes", "no") else "none",
        "label": {"yes": "met", "no": "not met"}.get(state, "unavailable"),
        "name": f"{goal.name}, {goal.frames} frames",
        "value": NOTHING if goal.score.value is None else f"{goal.score.value:.3f}",
        "detail": detail,
    }


def _differences(differences: Sequence[Difference]) -> dict[str, Any]:
    """The main metrics' paired differences: one line for each metric and length, one column for each system."""
    rows = list(dict.fromkeys(d.row for d in differences))
    found = {(d.metric, d.frames, d.row): d for d in differences if d.metric in HEADLINE}
    specs = {spec.name: spec for spec in headline_specs()}
    lines = [
        {
            "name": f"{_title(specs[metric])}, {frames} frames",
            "help": SPECS[metric].definition,
            "cells": [_difference(found.get((metric, frames, row))) for row in rows],
        }
        for metric, frames in dict.fromkeys((d.metric, d.frames) for d in found.values())
    ]
    columns = [{"name": f"{row} minus {differences[0].reference}", "help": "", "marked": False} for row in rows]
    return {"corner": "metric", "columns": columns, "lines": lines}


def _difference(difference: Difference | None) -> dict[str, str]:
    if difference is None:
        return _empty("")
    value, _, interval = difference_cell(difference).partition(" ")
    lacking = f", {difference.one_sided} more of one side alone" if difference.one_sided else ""
    counted = count_of(difference.found.clips, difference.found.people)
    small = f"N {counted}{lacking}, p {p_cell(difference.p)}, Holm {p_cell(difference.p_holm)}"
    return {"kind": "", "reason": "", "text": value, "interval": interval, "small": small}


def _headline(report: Report, frames: int) -> tuple[str, dict[str, Any]]:
    clips = report.clips[frames]
    caption = f"{frames} frames, {clips_in(report.tables[frames], clips)}; brackets: bootstrap 95 % interval"
    return caption, _table(report.tables[frames], headline_specs(), clips)


def _length(frames: int, table: Table, clips: int) -> dict[str, Any]:
    groups = [
        {"title": title, "table": _table(table, specs, clips), "remarks": remarks(table, specs)}
        for title, specs in groups_with_values(table)
    ]
    missing = [f"{name}: {reason}" for name, reason in unavailable_lines(table)]
    heading = f"{frames} frames ({frames / 25:.2f} s), {clips_in(table, clips)}"
    return {"heading": heading, "groups": groups, "missing": missing}


def _table(table: Table, specs: Sequence[Spec], clips: int) -> dict[str, Any]:
    """One line for each metric and one column for each row of videos."""
    columns = [
        {"name": _hyphenated(row), "help": ROW_HELP[kind_of(row)], "marked": kind_of(row) == GENERATED} for row in table
    ]
    lines = [
        {
            "name": _title(spec),
            "help": spec.definition,
            "cells": [_cell(cells[spec.name], spec.decimals, clips, row) for row, cells in table.items()],
        }
        for spec in specs
    ]
    return {"corner": clips_in(table, clips), "columns": columns, "lines": lines}


def _hyphenated(row: str) -> str:
    """The name with a soft hyphen in its one long word, so that a run's table fits a telephone."""
    return row.replace("reconstruction", "recon\u00adstruction")


def _cell(score: Score, decimals: int, clips: int, row: str) -> dict[str, str]:
    if score.value is None:
        return _empty(score.reason)
    kind = "generated" if kind_of(row) == GENERATED else ""
    return {
        "kind": kind,
        "reason": score.reason,
        "text": f"{score.value:.{decimals}f}",
        "interval": _interval(score, decimals),
        "small": clips_of(score, clips),
    }


def _plain(section: Section) -> dict[str, Any]:
    """A section's table of text."""
    columns = [{"name": name, "help": "", "marked": False} for name in section.header[1:]]
    lines = [{"name": name, "help": "", "cells": [_written(text) for text in rest]} for name, *rest in section.lines]
    return {"corner": section.header[0], "columns": columns, "lines": lines}


def _written(text: str) -> dict[str, str]:
    """A cell of what `table.cell` wrote, or of any text: an interval goes below its value."""
    found = INTERVAL.fullmatch(text)
    value, interval, small = found.groups(default="") if found else (text, "", "")
    return {"kind": "", "reason": "", "text": value, "interval": interval, "small": small}


def _empty(reason: str) -> dict[str, str]:
    return {"kind": "none", "reason": reason, "text": NOTHING, "interval": "", "small": ""}


def _interval(score: Score, decimals: int) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"[{score.low:.{decimals}f}, {score.high:.{decimals}f}]"


def _title(spec: Spec) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(spec.better, "")
    return spec.title + (f" ({spec.unit})" if spec.unit else "") + arrow
