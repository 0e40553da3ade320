"""Lengths, sizes and people of a dataset in words, for `df-data stats` and the page of `df-data inspect`."""

from __future__ import annotations

from collections.abc import Iterable

from df_data.check.summary import SECONDS_PER_HOUR, LengthBin
from df_data.common.wording import counted
from df_data.people.across import PeopleAcross


def duration(seconds: float) -> str:
    """Return a length of time for a person: seconds below an hour, hours above."""
    return f"{seconds:.0f} s" if seconds < SECONDS_PER_HOUR else f"{seconds / SECONDS_PER_HOUR:.2f} h"


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


def lengths(bins: Iterable[LengthBin]) -> str:
    """Return how many clips have which length, in pixel frames."""
    named = ((f"{b.shortest}" if b.shortest == b.longest else f"{b.shortest} to {b.longest}", b.clips) for b in bins)
    return ", ".join(f"{name} ({counted(clips, 'clip')})" for name, clips in named)


def size(count: float) -> str:
    """Return a number of bytes for a person."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"
