"""report.html: what was reached, every number, the curves, and the videos to look at. Files lie beside it; nothing is
fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from df_eval.compare import Difference
from df_eval.goals import Goal
from df_eval.markdown import NOTHING
from df_eval.measure import GENERATED, kind_of
from df_eval.metrics import CATALOG, SETS, SPECS, Score
from df_eval.style import CSS
from df_eval.table import (
    HEADLINE,
    Spec,
    Table,
    comparison_note,
    difference_cell,
    groups_with_values,
    p_cell,
    remarks,
    unavailable_lines,
    verdict,
)

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
        told: what is wrong with a system's videos, a line each.
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
    parts = [f'<p class="warning">{escape(report.warning)}</p>'] if report.warning else []
    parts += [f"<h1>{escape(report.title)}</h1>", f'<p class="lead">{escape(report.lead)}</p>']
    if report.goals:
        parts.append(_goals(report))
    if report.differences:
        parts.append(_differences(report.differences))
    if report.told:
        parts += ["<h2>Told of the videos</h2>", _list(report.told)]
    for frames, table in report.tables.items():
        caption = f"{frames} frames, {report.clips[frames]} clips; brackets: bootstrap 95 % interval"
        specs = [SPECS[name] for name in HEADLINE]
        parts += [f"<h3>{escape(caption)}</h3>", _table(table, specs, report.clips[frames])]
    if report.videos:
        parts += ["<h2>Watch</h2>", '<div class="plots">', *map(_video, report.videos), "</div>"]
    if report.sheets:
        parts += ["<h3>Contact sheets</h3>", '<div class="plots">']
        parts += [_figure(path, caption, True) for path, caption in report.sheets]
        parts.append("</div>")
    for frames, table in report.tables.items():
        parts.append(_length_section(frames, table, report.clips[frames]))
    parts += map(_section, report.sections)
    for heading, plots in report.plots.items():
        if plots:
            parts += [
                f"<h2>{escape(heading)}</h2>",
                '<div class="plots">',
                *(_figure(*plot) for plot in plots),
                "</div>",
            ]
    parts += [_definitions(), _protocol(report.protocol)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _goals(report: Report) -> str:
    cards = []
    for goal in report.goals:
        state = verdict(goal)
        kind = state if state in ("yes", "no") else "none"
        label = {"yes": "met", "no": "not met"}.get(state, "unavailable")
        value = NOTHING if goal.score.value is None else f"{goal.score.value:.3f}"
        interval = _interval(goal.score, 3)
        detail = f"goal {goal.target}" + (f"; 95 % interval {interval}" if interval else "")
        if goal.truth is not None:
            detail += f"; the truth's own {goal.truth:.3f}"
        if goal.score.reason:
            detail += f"; {goal.score.reason}"
        cards.append(
            f'<div class="card {kind}"><div class="name">{escape(goal.name)}, {goal.frames} frames</div>'
            f'<div class="value">{value}<span class="tag {kind}">{label}</span></div>'
            f'<div class="detail">{escape(detail)}</div></div>'
        )
    return '<h2 style="border-top:0;margin-top:10px">Goals</h2><div class="cards">' + "".join(cards) + "</div>"


def _differences(differences: Sequence[Difference]) -> str:
    """The main metrics' paired differences: one line for each metric and length, one column for each system."""
    rows = list(dict.fromkeys(d.row for d in differences))
    head = "".join(f"<th>{escape(row)} minus {escape(differences[0].reference)}</th>" for row in rows)
    found = {(d.metric, d.frames, d.row): d for d in differences if d.metric in HEADLINE}
    lines = []
    for metric, frames in dict.fromkeys((d.metric, d.frames) for d in found.values()):
        cells = "".join(_difference(found.get((metric, frames, row))) for row in rows)
        name = (
            f'<abbr title="{escape(SPECS[metric].definition)}">{escape(_title(SPECS[metric]))}</abbr>, {frames} frames'
        )
        lines.append(f"<tr><td>{name}</td>{cells}</tr>")
    return (
        '<h2 style="border-top:0;margin-top:10px">Differences</h2><div class="scroll"><table><thead><tr><th>metric</th>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="small">{escape(comparison_note(differences))}</p>'
    )


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return f'<td class="none">{NOTHING}</td>'
    value, _, interval = difference_cell(difference).partition(" ")
    small = f"{interval} N {difference.found.clips}, p {p_cell(difference.p)}, Holm {p_cell(difference.p_holm)}"
    return f'<td>{value}<span class="ci">{escape(small)}</span></td>'


def _section(section: Section) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in section.header)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in section.lines)
    return (
        f'<h2>{escape(section.heading)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>{_list(section.notes)}"
    )


def _list(lines: Sequence[str]) -> str:
    return f'<ul class="small">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def _length_section(frames: int, table: Table, clips: int) -> str:
    parts = [f"<h2>{frames} frames ({frames / 25:.2f} s), {clips} clips</h2>"]
    for title, specs in groups_with_values(table):
        parts += [f"<h3>{escape(title)}</h3>", _table(table, specs, clips)]
        if found := remarks(table, specs):
            parts.append(_list(found))
    missing = unavailable_lines(table)
    if missing:
        parts += ["<h3>Unavailable</h3>", _list([f"{name}: {reason}" for name, reason in missing])]
    return "\n".join(parts)


def _table(table: Table, specs: Sequence[Spec], clips: int) -> str:
    """One line for each metric and one column for each row of videos: never wider than a screen."""
    head = "".join(
        f'<th{_mark(row)}><abbr title="{escape(ROW_HELP[kind_of(row)])}">{escape(row)}</abbr></th>' for row in table
    )
    lines = []
    for spec in specs:
        cells = "".join(_cell(table[row][spec.name], spec.decimals, clips, _mark(row)) for row in table)
        name = f'<abbr title="{escape(spec.definition)}">{escape(_title(spec))}</abbr>'
        lines.append(f"<tr><td>{name}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>{clips} clips</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _mark(row: str) -> str:
    return ' class="generated"' if kind_of(row) == GENERATED else ""


def _cell(score: Score, decimals: int, clips: int, mark: str) -> str:
    if score.value is None:
        return f'<td class="none" title="{escape(score.reason)}">{NOTHING}</td>'
    interval = _interval(score, decimals)
    remark = f" N {score.n}" if score.n != clips else ""
    small = f'<span class="ci">{interval}{remark}</span>' if interval or remark else ""
    title = f' title="{escape(score.reason)}"' if score.reason else ""
    return f"<td{mark}{title}>{score.value:.{decimals}f}{small}</td>"


def _interval(score: Score, decimals: int) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"[{score.low:.{decimals}f}, {score.high:.{decimals}f}]"


def _title(spec: Spec) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(spec.better, "")
    return spec.title + (f" ({spec.unit})" if spec.unit else "") + arrow


def _figure(path: str, caption: str, wide: bool) -> str:
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><img src="{escape(path)}" alt="{escape(caption)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _video(video: tuple[str, str]) -> str:
    path, caption = video
    return (
        f'<figure><video src="{escape(path)}" controls loop preload="auto"></video>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _definitions() -> str:
    rows = "".join(f"<dt>{escape(row)}</dt><dd>{escape(text)}</dd>" for row, text in ROW_HELP.items())
    metrics = "".join(
        f"<dt>{escape(spec.title)}</dt><dd>{escape(spec.definition)} <code>{spec.name}</code></dd>"
        for spec in (*CATALOG, *SETS)
    )
    return (
        f"<h2>What the rows and metrics mean</h2><h3>Rows</h3><dl>{rows}</dl><details><summary>Metrics</summary>"
        f"<dl>{metrics}</dl></details>"
    )


def _protocol(lines: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines)
    return f"<h2>Protocol</h2><dl>{items}</dl>"
