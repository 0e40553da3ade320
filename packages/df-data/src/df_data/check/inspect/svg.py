"""Small drawings as SVG text: histograms, curves and a value within its range.

Shape legend: N points.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from df_data.check.summary import Spread

BINS = 30


def escape(text: object) -> str:
    """Return text from anywhere as HTML or SVG text, safe inside elements and quoted attributes."""
    return html.escape(str(text), quote=True)


def number(value: float) -> str:
    """Return a number for a person: four significant digits, no needless zeros."""
    return f"{value:.4g}"


def element(name: str, content: str | None = None, **attributes: str | float) -> str:
    """Return an element around content, which is markup (so texts are escaped before); attributes are escaped here.

    A ``_`` in an attribute's name stands for ``-``, one at its end is dropped.
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{given}/>" if content is None else f"<{name}{given}>{content}</{name}>"


def polyline(x_N: np.ndarray, y_N: np.ndarray, class_: str) -> str:
    """Return a line through points."""
    return element("polyline", points=_points(x_N, y_N), fill="none", class_=class_)


def polygon(x_N: np.ndarray, y_N: np.ndarray, class_: str) -> str:
    """Return a filled shape around points."""
    return element("polygon", points=_points(x_N, y_N), class_=class_)


def histogram(accepted: Sequence[float], rejected: Sequence[float], *, width: int = 240, height: int = 84) -> str:
    """Return a histogram of a score: bars of the accepted clips upward, of the rejected inputs downward.

    Each side has its own scale (its highest bar fills it), since rejects are few; both have one axis.
    """
    values = np.concatenate([np.asarray(accepted, float), np.asarray(rejected, float)])
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    base = height - 14 if not len(rejected) else round(0.62 * (height - 14))
    bars = _bars(accepted, (low, high), width, base, base - 2, "accepted")
    bars += _bars(rejected, (low, high), width, base, -(height - 14 - base), "rejected")
    axis = element("line", x1=0, y1=base, x2=width, y2=base, class_="axis")
    ends = element("text", number(float(values.min())), x=0, y=height - 2)
    ends += element("text", number(float(values.max())), x=width, y=height - 2, text_anchor="end")
    return element("svg", bars + axis + ends, viewBox=f"0 0 {width} {height}", class_="histogram")


def _bars(values: Sequence[float], ends: tuple[float, float], width: int, base: int, reach: int, kind: str) -> str:
    """Bars from the base line, ``reach`` pixels (upward if positive) for the fullest bin."""
    counts, _ = np.histogram(values, BINS, ends)
    step, most = width / BINS, max(1, int(counts.max()))
    drawn = []
    for index, count in enumerate(counts.tolist()):
        if count:
            tall = max(1.0, abs(reach) * count / most)
            top = base - tall if reach > 0 else base
            box = {"x": _n(index * step), "y": _n(top), "width": _n(step - 1), "height": _n(tall)}
            drawn.append(element("rect", **box, class_=kind))
    return "".join(drawn)


def range_mark(value: float, spread: Spread) -> str:
    """Return a small scale: the dataset's full range as a line, its 5-95 % as a band, the value as a dot."""
    width = spread.max - spread.min
    if width <= 0:
        return ""

    def at(v: float) -> float:
        return 3 + 54 * min(max((v - spread.min) / width, 0.0), 1.0)

    line = element("line", x1=3, y1=5, x2=57, y2=5, class_="axis")
    band_width = _n(max(1.0, at(spread.q95) - at(spread.q05)))
    band = element("rect", x=_n(at(spread.q05)), y=2.5, width=band_width, height=5, class_="band")
    return element("svg", line + band + element("circle", cx=_n(at(value)), cy=5, r=2.6), viewBox="0 0 60 10")


def _points(x_N: np.ndarray, y_N: np.ndarray) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in zip(x_N.tolist(), y_N.tolist()))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
