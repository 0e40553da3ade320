"""Markdown tables; apart from what fills them, so that a command can print one without loading torch."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"
"""A cell without a value."""


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns padded to equal width, so that it also reads well in a terminal."""
    cells = [[_cell(text) for text in line] for line in (header, *lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]

    def join(line: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([join(cells[0]), rule, *map(join, cells[1:])])


def count_of(clips: int, people: int) -> str:
    """``16``, or ``16, 4 people`` where several clips are of one person: intervals rest on people."""
    if not 0 < people < clips:
        return str(clips)
    return f"{clips}, {people} people" if people > 1 else f"{clips}, one person"


def _cell(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.splitlines()).replace("|", "\\|")
