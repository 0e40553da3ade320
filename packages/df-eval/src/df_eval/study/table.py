"""`table.md`: the verdicts and the tables of a study as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from df_eval.markdown import NOTHING, markdown_table
from df_eval.study.statistics import Estimate
from df_eval.study.verdicts import numbers


def markdown_document(document: Mapping[str, Any]) -> str:
    """The whole file."""
    parts = [f"# {document['name']}", document["question"]]
    for entry in document["amendments"]:
        parts.append(f"Amended {entry['date']}: {entry['text']} ({', '.join(entry['added'])})")
    if document["verdicts"]:
        parts += ["## Verdicts", _verdicts(document)]
    for table in document["tables"]:
        parts += [f"## {heading(table)}", _table(table)]
    failed = [run for run in document["runs"] if run["state"] != "done"]
    if failed:
        rows = [[run["key"], run["state"], run["why"] or NOTHING] for run in failed]
        parts += ["## Not done", markdown_table(["step", "state", "why"], rows)]
    parts.append(document["cost_line"])
    return "\n\n".join(parts) + "\n"


def heading(table: Mapping[str, Any]) -> str:
    """What a table shows, in a line."""
    unit = f" ({table['unit']})" if table["unit"] else ""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(table["better"], "")
    return f"{table['title']}{unit}{arrow}, {table['row']}, {table['frames']} frames"


def _verdicts(document: Mapping[str, Any]) -> str:
    rows = [
        [v["hypothesis"]["name"], v["outcome"], v["line"], p_text(v["p"]), p_text(v["p_holm"]), v["reason"] or NOTHING]
        for v in document["verdicts"]
    ]
    return markdown_table(["hypothesis", "verdict", "found", "p", "p (Holm)", "remark"], rows)


def _table(table: Mapping[str, Any]) -> str:
    header = ["arm", "value [95 %]", f"minus {table['reference']}, paired [95 %]", "seeds", "clips", "left out"]
    return markdown_table(header, [cells(row, table["decimals"]) for row in table["rows"]])


def cells(row: Mapping[str, Any], decimals: int) -> list[str]:
    """A row's cells as text."""
    value, difference = Estimate(**row["value"]), row["difference"]
    left_out = row["left_out"].removeprefix("left out: ")
    if value.undefined:
        left_out = ", ".join(filter(None, [left_out, f"{value.undefined} cells without a value"]))
    return [
        row["arm"],
        numbers(value, decimals),
        NOTHING if difference is None else numbers(Estimate(**difference), decimals),
        str(value.seeds),
        str(value.clips),
        left_out or NOTHING,
    ]


def p_text(p: float | None) -> str:
    """A p value as tables show it."""
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
