"""What a measurement hands to the report: a title, Markdown, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Section:
    """One stage's part of the report.

    Attributes:
        title: its heading.
        text: Markdown.
        figures: the same numbers for programs.
    """

    title: str
    text: str
    figures: dict[str, Any] = field(default_factory=dict)


class Tally(NamedTuple):
    """How often a rule spoke, and how often it was right."""

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    rests: int = 0

    def add(self, found: bool, truth: bool) -> Tally:
        """Count one more decision."""
        mine = (found and truth, found and not truth, truth and not found, not found and not truth)
        return Tally(*(a + b for a, b in zip(self, mine)))

    @classmethod
    def of(cls, decisions: Iterable[tuple[bool, bool]]) -> Tally:
        """Count pairs of (what the rule said, what is true)."""
        tally = cls()
        for found, truth in decisions:
            tally = tally.add(bool(found), bool(truth))
        return tally

    @property
    def precision(self) -> float:
        """Share of the alarms that are right; 1 without any."""
        return self.hits / (self.hits + self.false_alarms) if self.hits + self.false_alarms else 1.0

    @property
    def recall(self) -> float:
        """Share of what should be found that is; 1 if there is nothing."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 1.0

    def cells(self) -> list[str]:
        """Return number of true cases, of others, precision and recall, as cells of a table."""
        return [
            str(self.hits + self.misses),
            str(self.false_alarms + self.rests),
            f"{self.precision:.3f}",
            f"{self.recall:.3f}",
        ]

    def figures(self) -> dict[str, float]:
        """Return the numbers by name."""
        return self._asdict() | {"precision": self.precision, "recall": self.recall}


RULE_HEADER = ("to be found", "to be left alone", "precision", "recall")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(flags: Iterable[Any]) -> str:
    """Return the share of true entries as whole percent, or a dash where there are none."""
    found = [bool(flag) for flag in flags]
    return f"{100 * sum(found) / len(found):.0f} %" if found else "-"


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share that holds it in 95 % of all cases (Wilson 1927)."""
    share, more = hits / count, z * z / count
    middle = (share + more / 2) / (1 + more)
    reach = z * (share * (1 - share) / count + more / (4 * count)) ** 0.5 / (1 + more)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rate(hits: int, count: int) -> str:
    """Return a share in percent with its Wilson interval, or a dash where there is nothing to count."""
    if not count:
        return "-"
    low, high = wilson(int(hits), count)
    return f"{100 * hits / count:.1f} % ({100 * low:.1f}-{100 * high:.1f})"
