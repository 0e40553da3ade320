"""`df-data stats`: what a dataset holds, in lines for a person or as JSON for a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from df_data.check.brief import brief_lines
from df_data.check.summary import (
    FieldSummary,
    LedgerSummary,
    MeanStd,
    SplitSummary,
    Spread,
    summarise,
)
from df_data.check.wording import duration, lengths, people_line, size
from df_data.common.wording import counted
from df_data.format.ledger import LEDGER_NAME

WIDE_FIELD = 3
"""Fields with more entries than this are described by their extremes."""


def describe(directory: Path, *, full: bool = True) -> list[str]:
    """Return lines on a dataset or one split of it: all that is known, or about ten.

    Raises:
        UserError: no dataset, or a damaged shard.
    """
    summary = summarise(directory)
    if not full:
        return brief_lines(directory, summary)
    lines = [line for split in summary.splits for line in split_lines(split)]
    lines += [people_line(summary.people)] if summary.people else []
    return lines + (ledger_lines(directory / LEDGER_NAME, summary.ledger) if summary.ledger else [])


def describe_json(directory: Path) -> str:
    """Return the same as one JSON document (:class:`df_data.check.summary.DatasetSummary`)."""
    return summarise(directory).model_dump_json(indent=1)


def split_lines(split: SplitSummary) -> list[str]:
    """Return lines on one split: size, people, lengths, storage, value ranges, scores, encoders, structure."""
    state = "complete" if split.complete else "NOT complete: run its build again"
    lines = [
        f"{split.directory}: {counted(split.clips, 'clip')}, {duration(split.seconds)}, {split.width}x{split.height}, "
        f"crop {split.crop}",
        f"  {counted(split.shards, 'shard')}, {size(split.shard_bytes)}, {size(split.bytes_per_hour)} per hour, "
        f"{state}",
    ]
    if split.clips:
        lines += _content(split)
    lines += [f"  {role}: {made.id} (sha256 {made.sha256[:12]})" for role, made in sorted(split.encoders.items())]
    return lines + _structure(split)


def ledger_lines(path: Path, ledger: LedgerSummary) -> list[str]:
    """Return lines on what became of the inputs."""
    lines = [f"{path}: " + ", ".join(f"{number} {status}" for status, number in ledger.counts.items())]
    lines += [f"  rejected: {number} x {reason}" for reason, number in ledger.reasons.items()]
    lines += _spreads("score of rejects", ledger.reject_scores)
    return lines + [f"  failed: {name}: {error}" for name, error in ledger.failures.items()]


def _content(split: SplitSummary) -> list[str]:
    lines = [
        f"  people: {split.persons}, at most {counted(split.most_clips_of_a_person, 'clip')} each; "
        f"{split.with_video} with mp4",
        "  licences: " + ", ".join(f"{name} ({count})" for name, count in split.licences.items()),
        "  pixel frames per clip: " + lengths(split.lengths),
        f"  latents: {_mean_std(split.latents)} (about 0 and 1 is right); audio features: {_mean_std(split.audio)}",
        "  storage per clip: " + ", ".join(_storage(split)),
    ]
    lines += [f"  halved: {number} x {fault}" for fault, number in split.halved.items()]
    return lines + _spreads("score", split.scores) + _spreads("measure", split.measures)


def _storage(split: SplitSummary) -> list[str]:
    sizes = {name: tensor.bytes / tensor.clips for name, tensor in split.tensors.items()}
    if split.with_video:
        sizes["mp4"] = split.video_bytes / split.with_video
    return [f"{name} {size(count)}" for name, count in sorted(sizes.items(), key=lambda item: -item[1])]


def _spreads(what: str, found: Mapping[str, Spread]) -> list[str]:
    return [
        f"  {what} {name}: 5 % {s.q05:.3g}, median {s.median:.3g}, 95 % {s.q95:.3g} ({s.min:.3g} to {s.max:.3g})"
        for name, s in found.items()
    ]


def _structure(split: SplitSummary) -> list[str]:
    if not split.structure:
        return []
    head = (
        f"  structure ({split.structure_layout}, {split.structure_frames} frames), mean +- deviation (least, greatest):"
    )
    return [head, *(f"    {name}: {_field(summary)}" for name, summary in split.structure.items())]


def _field(found: FieldSummary) -> str:
    if len(found.mean) > WIDE_FIELD:
        return (
            f"{len(found.mean)} values, |mean| to {np.abs(found.mean).max():.3g}, std to {max(found.std):.3g} "
            f"({min(found.min):.3g}, {max(found.max):.3g})"
        )
    rows = zip(found.mean, found.std, found.min, found.max)
    return ", ".join(f"{mean:.4g} +- {std:.3g} ({low:.3g}, {high:.3g})" for mean, std, low, high in rows)


def _mean_std(found: MeanStd | None) -> str:
    return "none" if found is None else f"mean {found.mean:.3f}, std {found.std:.3f}"
