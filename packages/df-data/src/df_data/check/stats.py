"""`df-data stats`: what a dataset holds, in lines for a person or as JSON for a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from df_data.check.summary import (
    SECONDS_PER_HOUR,
    FieldSummary,
    LedgerSummary,
    LengthBin,
    MeanStd,
    SplitSummary,
    Spread,
    summarise,
)
from df_data.common.wording import counted
from df_data.format.ledger import LEDGER_NAME
from df_data.people.across import PeopleAcross

WIDE_FIELD = 3
"""Fields with more entries than this are described by their extremes."""


def describe(directory: Path) -> list[str]:
    """Return lines on a dataset or one split of it.

    Raises:
        UserError: no dataset, or a damaged shard.
    """
    summary = summarise(directory)
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
        f"  {counted(split.shards, 'shard')}, {_size(split.shard_bytes)}, {_size(split.bytes_per_hour)} per hour, "
        f"{state}",
    ]
    if split.clips:
        lines += _content(split)
    lines += [f"  {role}: {made.id} (sha256 {made.sha256[:12]})" for role, made in sorted(split.encoders.items())]
    return lines + _structure(split)


def people_line(people: PeopleAcross) -> str:
    """Return a line on people who are in several splits, which a split by identity must not have."""
    named = f"{people.by_name} by name" + (" (as split.by: sentence means it)" if people.by_name else "")
    if people.by_face is None or people.pair is None or people.names is None:
        return f"people in both splits: {named}; their faces were not compared (no identity vectors in both)"
    (a, b), (one, other) = people.pair, people.names
    return (
        f"people in both splits: {people.by_face} by face above {people.threshold:g} (nearest pair cosine "
        f"{people.nearest:.2f}: {a} of {one}, {b} of {other}), {named}"
    )


def ledger_lines(path: Path, ledger: LedgerSummary) -> list[str]:
    """Return lines on what became of the inputs."""
    lines = [f"{path}: " + ", ".join(f"{number} {status}" for status, number in ledger.counts.items())]
    lines += [f"  rejected: {number} x {reason}" for reason, number in ledger.reasons.items()]
    lines += _spreads("score of rejects", ledger.reject_scores)
    return lines + [f"  failed: {name}: {error}" for name, error in ledger.failures.items()]


def duration(seconds: float) -> str:
    """Return a length of time for a person: seconds below an hour, hours above."""
    return f"{seconds:.0f} s" if seconds < SECONDS_PER_HOUR else f"{seconds / SECONDS_PER_HOUR:.2f} h"


def _content(split: SplitSummary) -> list[str]:
    lines = [
        f"  people: {split.persons}, at most {counted(split.most_clips_of_a_person, 'clip')} each; "
        f"{split.with_video} with mp4",
        "  licences: " + ", ".join(f"{name} ({count})" for name, count in split.licences.items()),
        "  pixel frames per clip: " + _lengths(split.lengths),
        f"  latents: {_mean_std(split.latents)} (about 0 and 1 is right); audio features: {_mean_std(split.audio)}",
        "  storage per clip: " + ", ".join(_storage(split)),
    ]
    lines += [f"  halved: {number} x {fault}" for fault, number in split.halved.items()]
    return lines + _spreads("score", split.scores) + _spreads("measure", split.measures)


def _lengths(bins: Iterable[LengthBin]) -> str:
    named = ((f"{b.shortest}" if b.shortest == b.longest else f"{b.shortest} to {b.longest}", b.clips) for b in bins)
    return ", ".join(f"{name} ({counted(clips, 'clip')})" for name, clips in named)


def _storage(split: SplitSummary) -> list[str]:
    sizes = {name: tensor.bytes / tensor.clips for name, tensor in split.tensors.items()}
    if split.with_video:
        sizes["mp4"] = split.video_bytes / split.with_video
    return [f"{name} {_size(size)}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])]


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


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
