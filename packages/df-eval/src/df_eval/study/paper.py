"""Files for a paper, from the numbers that `study.json` holds and the videos of its runs: booktabs tables, PDF figures,
strips of images, the protocol as text.

Tables compile with pdfLaTeX and ``\\usepackage{booktabs}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from df_eval.study.figures import axes_of, axis_figure, save_pdf
from df_eval.study.latex import latex
from df_eval.study.strips import shown_videos, strip_of
from df_eval.study.table import P_NOTE, counted_of, note, p_text
from df_models.files import atomic_write
from df_models.intervals.estimate import Estimate

_BRACKETS = "brackets: 95 % interval over seeds and people (clips, where all are of one person)"


def write_paper(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``verdicts.tex``, a ``METRIC-FRAMES-ROW.tex`` per table, ``AXIS.pdf``, a ``strip-FRAMES-CLIP.pdf`` for some
    of the clips whose videos every arm's first run has, and ``protocol.txt``; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(name: str, text: str) -> None:
        atomic_write(folder / name, text)
        written.append(folder / name)

    if document["verdicts"]:
        write("verdicts.tex", _verdicts(document["verdicts"]))
    for table in document["tables"]:
        write(f"{_name(table['metric'], table['frames'], table['row'])}.tex", _table(table))
    for axis in axes_of(document):
        if (figure := axis_figure(document, axis)) is not None:
            written.append(save_pdf(figure, folder / f"{_name(axis)}.pdf"))
    for name, videos in shown_videos(document).items():
        written.append(save_pdf(strip_of(videos), folder / f"strip-{_name(name)}.pdf"))
    write("protocol.txt", protocol(document))
    return written


def protocol(document: Mapping[str, Any]) -> str:
    """How the study was made, as text."""
    lines = [f"{document['name']}: {document['question']}", ""]
    lines += [f"{name}: {text}" for name, text in document["protocol"].items()]
    lines += [
        f"amended {entry['date']}: {entry['text']} ({', '.join(entry['added'])})" for entry in document["amendments"]
    ]
    for verdict in document["verdicts"]:
        hypothesis = verdict["hypothesis"]
        lines += [
            "",
            f"{hypothesis['name']}: {hypothesis['claim']}",
            f"  {verdict['rule']}",
            f"  {hypothesis['criterion']}",
        ]
    failed = [f"  {run['key']}: {run['before']}" for run in document["runs"] if run["before"]]
    lines += ["", "tried again:", *failed] if failed else []
    lines += ["", "commands:"]
    lines += [f"  {command}" for run in document["runs"] for command in run["commands"].values()]
    return "\n".join(lines) + "\n"


def _name(*parts: object) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(map(str, parts))).strip("-")


def _interval(found: Estimate, decimals: int) -> str:
    if found.value is None:
        return "--"
    if found.low is None or found.high is None:
        return f"${found.value:.{decimals}f}$"
    return f"${found.value:.{decimals}f}$ $[{found.low:.{decimals}f}, {found.high:.{decimals}f}]$"


def _booktabs(
    columns: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str, remarks: Sequence[str] = ()
) -> str:
    """A table; its remarks stand below it, as a row of text would pull its columns apart."""
    comment = " ".join(note.split())  # a second line of it would be set as text
    lines = [f"% {comment}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule", " & ".join(header) + r" \\", "\\midrule"]
    lines += [_row(row) for row in rows]
    below = [f"\\par{{\\footnotesize {remark}\\par}}" for remark in remarks]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *below]) + "\n"


def _row(cells: Sequence[str]) -> str:
    r"""A line of a table; ``[`` or ``*`` at its start would be an argument of the ``\\`` or the rule before it."""
    text = " & ".join(cells) + r" \\"
    return "{}" + text if text.startswith(("[", "*")) else text


def _table(table: Mapping[str, Any]) -> str:
    decimals = table["decimals"]
    rows: list[list[str]] = []
    remarks: list[str] = []
    for row in table["rows"]:
        counted, difference = counted_of(row), row["difference"]
        rows.append(
            [
                latex(row["arm"]),
                _interval(Estimate(**row["value"]), decimals),
                "--" if difference is None else _interval(Estimate(**difference), decimals),
                str(counted.seeds),
                str(counted.clips),
                _people(counted),
            ]
        )
        if left_out := note(row):
            remarks.append(f"{latex(row['arm'])}: {latex(left_out)}")
    unit = f" ({table['unit']})" if table["unit"] else ""
    header = [
        "arm",
        latex(f"{table['title']}{unit}, {table['frames']} frames"),
        f"minus {latex(table['reference'])}, paired",
        "seeds",
        "clips",
        "people",
    ]
    about = f"{table['metric']}, row {table['row']}, {table['frames']} frames; {_BRACKETS}; "
    counts = "seeds, clips and people: of the paired difference where there is one"
    return _booktabs("lllrrr", header, rows, about + counts, remarks)


def _people(found: Estimate) -> str:
    """Over how many people an interval goes; those of studies from before people were known are not."""
    return str(found.people) if found.people else "--"


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            latex(f"{v['hypothesis']['claim']} ({v['hypothesis']['metric']}, {v['hypothesis']['frames']} frames)"),
            _interval(Estimate(**v["found"]), 3),
            f"${v['hypothesis']['margin']:g}$",
            latex(p_text(v["p"])),
            latex(p_text(v["p_holm"])),
            str(Estimate(**v["found"]).seeds),
            _people(Estimate(**v["found"])),
            latex(v["outcome"]),
        ]
        for v in verdicts
    ]
    header = ["hypothesis", "paired difference", "margin", "$p$", "$p$ (Holm)", "seeds", "people", "verdict"]
    return _booktabs("p{0.3\\linewidth}lrrrrrl", header, rows, f"{_BRACKETS}; {P_NOTE}")
