"""One figure for each axis of a study: the metrics over the axis, with intervals. Vectors only."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from df_eval.reports.plots import new_figure
from df_models.files import atomic_path

MOST_PANELS = 4
_COLOURS = ("#1d4ed8", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#4b5563")


def axes_of(document: Mapping[str, Any]) -> list[str]:
    """The axes along which arms differ; ``arms`` for named ones."""
    return [*dict.fromkeys(axis for arm in document["arms"].values() for axis in arm["at"])]


def axis_figure(document: Mapping[str, Any], axis: str) -> Figure | None:
    """The metrics that the hypotheses are about (or the first one) over an axis; None if nothing was measured."""
    asked = {
        (v["hypothesis"]["metric"], v["hypothesis"]["frames"], v["hypothesis"]["row"]) for v in document["verdicts"]
    }
    drawn = [t for t in document["tables"] if any(row["value"]["value"] is not None for row in t["rows"])]
    tables = [t for t in drawn if (t["metric"], t["frames"], t["row"]) in asked] or drawn[:1]
    hidden, tables = len(tables) - MOST_PANELS, tables[:MOST_PANELS]
    if not tables:
        return None
    columns = min(len(tables), 2)  # side by side on a page: more would make the text small
    rows = -(-len(tables) // columns)
    figure = new_figure(4.4 * columns, 3.2 * rows)
    if hidden > 0:
        figure.supxlabel(f"{hidden} more in the tables, not drawn", fontsize=9)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, table in zip(panels, tables):
        _draw(panel, document, axis, table)
    for panel in panels[len(tables) :]:
        panel.remove()
    return figure


def _draw(panel: Axes, document: Mapping[str, Any], axis: str, table: Mapping[str, Any]) -> None:
    lines: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for row in table["rows"]:
        at = document["arms"][row["arm"]]["at"]
        others = ", ".join(f"{name} {label}" for name, label in at.items() if name != axis)
        if axis in at and row["value"]["value"] is not None:
            lines.setdefault(others, []).append((at[axis], row["value"]))
    labels = [*dict.fromkeys(label for points in lines.values() for label, _ in points)]
    places, numeric = _places(labels)
    for number, ((others, points), colour) in enumerate(zip(lines.items(), itertools.cycle(_COLOURS))):
        shift = 0.0 if numeric else 0.08 * (number - (len(lines) - 1) / 2)
        across = [places[label] + shift for label, _ in points]
        values = [found["value"] for _, found in points]
        down, up = (
            [
                max(0.0, sign * ((value if found[side] is None else found[side]) - value))
                for value, (_, found) in zip(values, points)
            ]
            for side, sign in (("low", -1), ("high", 1))
        )
        style = "o-" if numeric else "o"
        panel.errorbar(
            across, values, yerr=[down, up], fmt=style, color=colour, capsize=3, label=label_text(others) or None
        )
    if not numeric:
        panel.set_xticks(
            [places[label] for label in labels], [*map(label_text, labels)], rotation=20, ha="right", fontsize=9
        )
        panel.margins(x=0.15)
    unit = f" ({table['unit']})" if table["unit"] else ""
    panel.set_title(f"{table['title']}{unit}, {table['frames']} frames", fontsize=9, loc="left")
    panel.set_xlabel("" if axis == "arms" else label_text(axis), fontsize=9)
    panel.grid(alpha=0.25)
    if any(lines):
        panel.legend(fontsize=8, frameon=False)


def label_text(text: str) -> str:
    """Text that Matplotlib draws as it is: a pair of ``$`` would be a formula."""
    return text.replace("$", r"\$")


def _places(labels: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Where each label stands: at its number, if all are numbers, else side by side."""
    try:
        return {label: float(label) for label in labels}, len(labels) > 1
    except ValueError:
        return {label: float(place) for place, label in enumerate(labels)}, False


def as_svg(figure: Figure) -> str:
    """A figure as an SVG element to stand in a page; the same figure gives the same text."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "df-study", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = stream.getvalue()
    return text[text.index("<svg") :]


def save_pdf(figure: Figure, path: Path) -> Path:
    """Write a figure as PDF; returns the path."""
    with atomic_path(path) as temporary, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    return path
