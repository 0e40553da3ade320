"""Words for a person that several commands need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
PATIENCE_S = 5.0
"""Seconds after which a person is told what a program is busy with."""


def counted(number: int, what: str, many: str | None = None) -> str:
    """Return a number of things for a person; ``many`` is the plural where it is not formed with an s."""
    return f"{number} {what if number == 1 else many or what + 's'}"


def patiently(items: Iterable[Item], what: str, unit: str) -> Iterable[Item]:
    """Return the same items, with a line of progress if going through them takes long."""
    return tqdm(items, desc=what, unit=unit, delay=PATIENCE_S, leave=False)
