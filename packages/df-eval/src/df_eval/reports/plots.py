"""The images of the report. Every function writes one PNG, or returns False if there is nothing to draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, SHIFTED, STATIC, kind_of
from df_eval.metrics import Score
from df_eval.results import LengthResults, mean_curve
from df_infer.run_log import smoothed
from df_models.files import atomic_path

COLOURS = {
    "truth": "#111827",
    GROUND_TRUTH: "#6b7280",
    RECONSTRUCTION: "#2563eb",
    GENERATED: "#dc2626",
    SHIFTED: "#a855f7",
    STATIC: "#d97706",
    "structure": "#059669",
}
MORE_COLOURS = ("#0891b2", "#65a30d", "#db2777", "#4338ca", "#92400e", "#0f766e")
"""Of the systems after the first."""
FPS = 25.0


def looks(rows: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and style of each row's lines: every system its own colour; dashed what belongs to one but the first."""
    systems = [row for row in rows if kind_of(row) == GENERATED]
    own = dict(zip(systems, itertools.chain([COLOURS[GENERATED]], itertools.cycle(MORE_COLOURS))))
    found: dict[str, tuple[str, str]] = {}
    for row in rows:
        _, _, system = row.partition(": ")
        later = system in own and system != systems[0]
        found[row] = (own[system], "--") if later else (own.get(row, COLOURS[kind_of(row)]), "-")
    return found


def new_figure(width: float, height: float) -> Figure:
    """A figure that belongs to no global state and needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> bool:
    """Write the figure as PNG; True."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


def plot_mouths(results: LengthResults, path: Path, count: int = 4) -> bool:
    """Mouth opening over time of several clips: true, read from the pixels, decoded from the structure stream."""
    truths = dict(list(results.curves[GROUND_TRUTH].get("true_mouth", {}).items())[:count])
    if not truths:
        return False
    figure = new_figure(10, 1.9 * len(truths) + 0.5)
    axes = figure.subplots(len(truths), 1, sharex=True, squeeze=False)[:, 0]
    systems = [row for row in results.rows if kind_of(row) == GENERATED]
    look = looks(results.rows)
    drawn = [
        (RECONSTRUCTION, "mouth", *look[RECONSTRUCTION], "read from the VAE reconstruction"),
        *((row, "mouth", *look[row], f"read from {_video_of(row)}") for row in systems),
    ]
    if len(systems) == 1:  # more of them would hide each other
        drawn.append(
            (systems[0], "structure_mouth", COLOURS["structure"], "--", "decoded from the generated structure")
        )
    for axis, (index, true) in zip(axes, truths.items(), strict=True):
        seconds = np.arange(len(true)) / FPS
        axis.plot(seconds, true, color=COLOURS["truth"], linewidth=2.2, label="true")
        for row, name, colour, style, label in drawn:
            curve = results.curves[row].get(name, {}).get(index)
            if curve is not None:
                axis.plot(seconds, curve, style, color=colour, linewidth=1.3, label=label)
        axis.set_title(results.keys[index], fontsize=9, loc="left")
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.65), frameon=False)
    axes[-1].set_xlabel("seconds")
    figure.supylabel("mouth opening", fontsize=10)
    return save(figure, path)


def plot_lags(results: LengthResults, path: Path, max_lag: int) -> bool:
    """Mean correlation of the mouth opening at each lag, with the standard error over clips as a band."""
    rows = [row for row in results.rows if results.curves[row].get("lag")]
    look = looks(results.rows)
    if not rows:
        return False
    figure = new_figure(6.2, 3.8)
    axis = figure.subplots()
    lags = np.arange(-max_lag, max_lag + 1)
    for row in rows:
        curves = results.curves[row]["lag"]
        stack, mean = np.stack(list(curves.values())), mean_curve(curves)
        if not np.isfinite(mean).any():
            continue
        count = np.isfinite(stack).sum(axis=0)
        spread = np.sqrt(mean_curve({index: (curve - mean) ** 2 for index, curve in curves.items()}))
        error = spread / np.sqrt(np.maximum(count, 1))
        colour, style = look[row]
        axis.plot(lags, mean, f"o{style}", markersize=3.5, color=colour, label=row)
        axis.fill_between(lags, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axis.axhline(0, color="#9ca3af", linewidth=0.8)
    axis.axvline(0, color="#9ca3af", linewidth=0.8)
    axis.set_xlabel("lag in frames (positive: the mouth moves too late)")
    axis.set_ylabel("correlation with the true mouth")
    axis.set_ylim(min(-0.3, axis.get_ylim()[0]), 1.03)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    return save(figure, path)


def plot_over_time(results: LengthResults, path: Path, name: str, label: str) -> bool:
    """A quantity over time, mean over the clips, one line per row; the quarters are marked."""
    rows = [row for row in results.rows if results.curves[row].get(name)]
    look = looks(results.rows)
    if not rows:
        return False
    figure = new_figure(6.2, 3.4)
    axis = figure.subplots()
    seconds = np.arange(results.frames) / FPS
    for row in rows:
        colour, style = look[row]
        axis.plot(seconds, mean_curve(results.curves[row][name]), style, color=colour, label=row, linewidth=1.6)
    for part in np.array_split(np.arange(results.frames), 4)[1:]:
        axis.axvline(part[0] / FPS, color="#d1d5db", linewidth=0.8, linestyle=":")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("seconds (dotted: quarters)")
    axis.set_ylabel(label)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    return save(figure, path)


def _video_of(row: str) -> str:
    return "the generated video" if row == GENERATED else row


def plot_drift(scores: Mapping[str, Mapping[int, Score]], rows: Sequence[str], path: Path, label: str) -> bool:
    """A quantity of windows against the time at which they end, a line for each row, its interval as a band.

    Args:
        scores: by row and pixel frame, all with a value.
        rows: all rows of the table, which decide the colours.
    """
    figure = new_figure(6.2, 3.4)
    axis = figure.subplots()
    look = looks(rows)
    for row, found in scores.items():
        colour, style = look[row]
        drawn = [(end / FPS, score.value) for end, score in found.items() if score.value is not None]
        axis.plot(*np.array(drawn).T, f"o{style}", markersize=3.5, color=colour, label=row)
        sure = [(end / FPS, s.low, s.high) for end, s in found.items() if s.low is not None and s.high is not None]
        if sure:
            at, low, high = np.array(sure, dtype=np.float64).T
            axis.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    ends = sorted({end / FPS for found in scores.values() for end in found})
    axis.set_xscale("log")
    axis.set_xticks(ends, [f"{end:.3g}" for end in ends])
    axis.minorticks_off()
    axis.set_xlabel("seconds after which the window ends")
    axis.set_ylabel(label)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    return save(figure, path)


def plot_losses(lines: list[dict[str, Any]], path: Path, keep: Callable[[str], bool], title: str) -> bool:
    """Curves of the metrics.jsonl keys that ``keep`` chooses, on a logarithmic axis if positive.

    Those of training are smoothed. What was measured on held-out clips (`val/...`) is drawn as it is, point by point:
    it has little noise, and smoothing would show an early, worse value.
    """
    names = sorted({name for line in lines for name, value in line.items() if keep(name) and _number(value)})
    drawn = {name: [(line["step"], line[name]) for line in lines if _number(line.get(name))] for name in names}
    drawn = {name: points for name, points in drawn.items() if len(points) > 1}
    if not drawn:
        return False
    figure = new_figure(6.2, 3.6)
    axis = figure.subplots()
    shades = [f"C{index}" for index in range(len(drawn))]
    for (name, points), colour in zip(drawn.items(), shades, strict=True):
        steps, values = np.array(points, dtype=np.float64).T
        if name.startswith("val/"):
            axis.plot(steps, values, color=colour, linewidth=1.6, marker=".", label=name)
            continue
        axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
        axis.plot(steps, smoothed(values), color=colour, linewidth=1.6, label=name)
    if all(value > 0 for points in drawn.values() for _, value in points):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel("step")
    axis.grid(alpha=0.25, which="both")
    axis.legend(fontsize=7, frameon=False, ncols=2)
    return save(figure, path)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
