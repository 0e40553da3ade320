"""The page's parts as HTML. Every text from a dataset passes through :func:`df_data.check.inspect.svg.escape`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from df_data.check.inspect.images import ClipImages, data_uri
from df_data.check.inspect.sift import card_data, shown_value
from df_data.check.inspect.style import CSS, SCRIPT, content_policy
from df_data.check.inspect.svg import element, escape, histogram, number, range_mark
from df_data.check.inspect.timeline import Timeline
from df_data.check.summary import Spread
from df_data.check.wording import duration
from df_data.format.ledger import LedgerEntry
from df_data.format.sample import WEIGHT_LOWERED_BY, Sample
from df_models.time import FPS


@dataclass(frozen=True)
class Chart:
    """One histogram: a value of the accepted clips, and of the rejected inputs that have it."""

    name: str
    accepted: Sequence[float]
    rejected: Sequence[float]


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page."""
    head = element("meta", charset="utf-8").replace("/>", ">")
    head += f'<meta http-equiv="Content-Security-Policy" content="{escape(content_policy())}">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += element("title", escape(title)) + f"<style>{CSS}</style>"
    body = element("main", "\n".join(parts)) + f"<script>{SCRIPT}</script>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body class="no-usual">{body}</body></html>\n'


def toolbar(sections: Mapping[str, str]) -> str:
    """Return the bar with links to the sections (id -> title) and the switches of what is drawn."""
    links = "".join(element("a", escape(title), href=f"#{name}") for name, title in sections.items())
    switches = "".join(
        f'<label><input type="checkbox" autocomplete="off"{on} data-hides="{hides}"> {what}</label>'
        for what, hides, on in (
            ("mouth boxes", "no-boxes", " checked"),
            ("keypoints", "no-keypoints", " checked"),
            ("usual values too", "no-usual", ""),
        )
    )
    return element("div", links + switches, class_="bar")


def totals(values: Mapping[str, str]) -> str:
    """Return small cards, each a number and what it counts."""
    cards = (element("div", element("b", escape(value)) + escape(name)) for name, value in values.items())
    return element("div", "".join(cards), class_="totals")


def clip_card(
    sample: Sample,
    why: str,
    drawn: Timeline,
    images: ClipImages,
    values: Mapping[str, float],
    ranges: Mapping[str, Spread],
) -> str:
    """Return one clip: its drawing, its video, what is known about it, its scores."""
    meta = sample.meta
    outside = sum(is_outside(value, ranges[name]) for name, value in values.items())
    tags = element("span", escape(meta.split), class_="tag")
    tags += element("span", f"weight {number(meta.weight)}", class_="tag bad") if meta.weight < 1 else ""
    tags += element("span", f"{outside} unusual", class_="tag bad") if outside else ""
    head = element("h3", escape(meta.key) + tags + shown_value()) + element(
        "div", "shown as: " + escape(why), class_="soft"
    )
    card = element("div", head, class_="head") + drawn.drawing
    video = ""
    if images.video is not None:
        uri = data_uri(images.video, "video/mp4")
        video = f'<video controls loop preload="metadata" src="{uri}"></video>'
    facts = element("dl", "".join(_fact(name, value) for name, value in _facts(sample).items()))
    notes = element("p", "; ".join(escape(note) for note in drawn.notes) + ".", class_="notes")
    card += element("div", video + element("div", facts + notes, class_="facts"), class_="below")
    card += element("div", "".join(_score(n, v, ranges[n]) for n, v in values.items()), class_="scores")
    usual = len(values) - outside
    card += element("p", f"{usual} of {len(values)} values lie within the dataset's 5-95 % range.", class_="usual")
    data = card_data({**values, "weight": meta.weight}, clip_reasons(sample))
    return element("article", card, class_="card clip", **data)


def clip_reasons(sample: Sample) -> list[str]:
    """Return what a clip is filtered by: its split, and the faults that lowered its weight."""
    return [sample.meta.split, *sample.meta.weight_lowered_by()]


def is_outside(value: float, spread: Spread) -> bool:
    """Return whether a value lies outside the dataset's 5-95 % range."""
    return not spread.q05 <= value <= spread.q95


def chart_section(charts: Sequence[Chart], note: str) -> str:
    """Return the histograms of all values."""
    if not charts:
        return element("p", "No clips, so no scores.", class_="soft")
    drawn = "".join(map(_chart, charts))
    key = element("p", escape(note), class_="soft")
    return key + element("div", element("div", drawn, class_="charts"), class_="card")


def reason_tags(reasons: Mapping[str, int]) -> str:
    """Return how often each reason was given."""
    tags = (element("span", f"{number:,} × {escape(reason)}", class_="tag bad") for reason, number in reasons.items())
    return element("div", "".join(tags), class_="reasons")


def reject_card(entry: LedgerEntry, jpeg: bytes | None) -> str:
    """Return one rejected input: image, reason and the numbers it was decided by."""
    image = f'<img alt="" src="{data_uri(jpeg, "image/jpeg")}">' if jpeg else '<div class="none">no image</div>'
    tag = element("span", escape(entry.reason), class_="tag bad")
    cells = (
        element("div", element("span", escape(name), title=name) + element("b", number(value)), class_="score")
        for name, value in sorted(entry.scores.items())
    )
    told = element("p", escape(entry.detail), class_="soft") if entry.detail else ""
    card = (
        image
        + element("h3", escape(entry.input) + tag + shown_value())
        + told
        + element("div", "".join(cells), class_="scores")
    )
    return element("article", card, class_="card", **card_data(entry.scores, [entry.reason or ""]))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table."""
    top = element("tr", "".join(element("th", escape(cell)) for cell in head))
    lines = (element("tr", "".join(element("td", escape(cell)) for cell in row)) for row in rows)
    return element("table", top + "".join(lines))


def _facts(sample: Sample) -> dict[str, str]:
    meta = sample.meta
    facts = {
        "text": meta.text or "(none)",
        "person": meta.identity,
        "source": f"{meta.source}, licence {meta.licence}",
        "size": f"{duration_of(meta.num_frames)}, {meta.num_frames} frames, {meta.width}x{meta.height}, "
        f"weight {number(meta.weight)}",
    }
    if meta.weight < 1:
        facts["weight lowered by"] = ", ".join(meta.weight_lowered_by()) or "(not recorded)"
    if meta.prompt is not None:
        facts["prompt"] = meta.prompt
    shown = {name for name in meta.provenance if name.startswith("word_")} | {WEIGHT_LOWERED_BY}
    provenance = {name: value for name, value in meta.provenance.items() if name not in shown}
    return facts | {"provenance": ", ".join(f"{name} = {value}" for name, value in provenance.items())}


def duration_of(num_frames: int) -> str:
    """Return a clip's length in seconds, to the frame."""
    seconds = num_frames / FPS
    return f"{seconds:.2f} s" if seconds < 60 else duration(seconds)


def _fact(name: str, value: str) -> str:
    return element("dt", escape(name)) + element("dd", escape(value))


def _score(name: str, value: float, spread: Spread) -> str:
    outside = is_outside(value, spread)
    arrow = "" if not outside else " ▼" if value < spread.q05 else " ▲"
    title = f"{name}: 5-95 % of the clips {number(spread.q05)} to {number(spread.q95)}"
    mark = range_mark(value, spread) or element("svg", "", viewBox="0 0 60 10")
    cells = element("span", escape(name)) + mark + element("b", number(value) + arrow)
    return element("div", cells, class_="score out" if outside else "score", title=title)


def _chart(chart: Chart) -> str:
    count = f"{len(chart.accepted)}" + (f" + {len(chart.rejected)} rejected" if len(chart.rejected) else "")
    caption = element("figcaption", element("b", escape(chart.name)) + element("span", count, class_="soft"))
    return element("figure", caption + histogram(chart.accepted, chart.rejected))
