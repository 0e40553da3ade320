"""What a person wants to know of a dataset first, in about ten lines; the rest is told by `df-data stats --full`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from df_data.check.summary import DatasetSummary, LedgerSummary, SplitSummary
from df_data.check.wording import duration, lengths, people_line, size
from df_data.common.wording import counted
from df_models.cli_support import command

MOST_NAMED = 6
"""Reasons, faults and licences that a line names; of more, the rest is counted together."""


def brief_lines(directory: Path, summary: DatasetSummary) -> list[str]:
    """Return about ten lines on a dataset or one split of it: what it holds, what was refused, and why."""
    lines = [_split(split) for split in summary.splits]
    lines += [people_line(summary.people)] if summary.people else []
    first = summary.splits[0]
    lines += ["licences: " + _named(_summed(split.licences for split in summary.splits))]
    lines += ["encoders: " + ", ".join(f"{role} {made.id}" for role, made in sorted(first.encoders.items()))]
    halved = _summed(split.halved for split in summary.splits)
    lines += ["half the weight for: " + _named(halved)] if halved else []
    lines += _inputs(summary.ledger) if summary.ledger else []
    full, page = (command(f"df-data {text}") for text in (f"stats {directory} --full", f"inspect {directory}"))
    return [*lines, f"every score and field: {full}; in images: {page}"]


def _split(split: SplitSummary) -> str:
    people = counted(split.persons, "person", "people")
    state = "" if split.complete else "; NOT complete: run its build again"
    return (
        f"{split.directory}: {counted(split.clips, 'clip')}, {duration(split.seconds)}, {people}, "
        f"{split.width}x{split.height}, {lengths(split.lengths) or 'no'} frames, {size(split.shard_bytes)}{state}"
    )


def _inputs(ledger: LedgerSummary) -> list[str]:
    lines = ["inputs: " + ", ".join(f"{number} {status}" for status, number in ledger.counts.items())]
    lines += ["rejected for: " + _named(ledger.reasons)] if ledger.reasons else []
    if ledger.failures:
        name, error = next(iter(ledger.failures.items()))
        more = len(ledger.failures) - 1
        lines.append(f"failed: {name}: {error}" + (f" (and {more} more)" if more else ""))
    return lines


def _summed(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in counts:
        found.update(part)
    return found


def _named(counts: Mapping[str, int]) -> str:
    """Tell of counts, the greatest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    named = [f"{number} {name}" for name, number in ordered[:MOST_NAMED]]
    rest = sum(number for _, number in ordered[MOST_NAMED:])
    return ", ".join([*named, *([f"{rest} of other kinds"] if rest else [])]) or "none"
