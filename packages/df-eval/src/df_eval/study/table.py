"""`table.md`: the verdicts and the tables of a study as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from df_eval.reports.markdown import NOTHING, count_of, markdown_table
from df_eval.study.verdicts import numbers
from df_models.intervals.estimate import Estimate

P_NOTE = "p is of the claim's own margin, not of no difference: small where the interval lies far from the margin."


def markdown_document(document: Mapping[str, Any]) -> str:
    """The whole file."""
    parts = [f"# {document['name']}", document["question"]]
    for entry in document["amendments"]:
        parts.append(f"Amended {entry['date']}: {entry['text']} ({', '.join(entry['added'])})")
    if document["verdicts"]:
        parts += ["## Verdicts", _verdicts(document)]
    for table in document["tables"]:
        parts += [f"## {heading(table)}", _table(table)]
    told = [run for run in document["runs"] if run["state"] != "done" or run["before"]]
    if told:
        rows = [[run["key"], state_text(run), run["why"] or NOTHING] for run in told]
        parts += ["## Not done, or not at once", markdown_table(["step", "state", "why"], rows)]
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
    return markdown_table(["hypothesis", "verdict", "found", "p", "p (Holm)", "remark"], rows) + f"\n\n{P_NOTE}"


def _table(table: Mapping[str, Any]) -> str:
    header = ["arm", "value [95 %]", f"minus {table['reference']}, paired [95 %]", "seeds", "clips", "left out"]
    return markdown_table(header, [cells(row, table["decimals"]) for row in table["rows"]])


def cells(row: Mapping[str, Any], decimals: int) -> list[str]:
    """A row's cells as text."""
    value, difference, counted = Estimate(**row["value"]), row["difference"], counted_of(row)
    return [
        row["arm"],
        numbers(value, decimals),
        NOTHING if difference is None else numbers(Estimate(**difference), decimals),
        str(counted.seeds),
        count_of(counted.clips, counted.people),
        note(row) or NOTHING,
    ]


def counted_of(row: Mapping[str, Any]) -> Estimate:
    """What a row's seeds and clips are those of: its paired difference; its value, if it has no difference."""
    difference = row["difference"]
    return Estimate(**(row["value"] if difference is None or difference["value"] is None else difference))


def note(row: Mapping[str, Any]) -> str:
    """What a row leaves out: failed runs, clips, cells without a value; and what its value rests on, if on others."""
    value, counted = Estimate(**row["value"]), counted_of(row)
    told = [row["left_out"].removeprefix("left out: ")]
    if undefined := Estimate(**(row["difference"] or row["value"])).undefined:
        told.append(f"{undefined} cells without a value")
    if (value.seeds, value.clips, value.undefined) != (counted.seeds, counted.clips, counted.undefined):
        told.append(f"value alone: seeds {value.seeds}, clips {value.clips}, without a value {value.undefined}")
    return ", ".join(filter(None, told))


def state_text(run: Mapping[str, Any]) -> str:
    """How far a step is, with its failures before."""
    return f"{run['state']} ({run['before']})" if run["before"] else run["state"]


def p_text(p: float | None) -> str:
    """A p value as tables show it."""
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
