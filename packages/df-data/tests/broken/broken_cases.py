"""Broken inputs by name: each a file that is written into a folder, and how its build may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ACCEPTED, FAILED = "accepted", "failed"


@dataclass(frozen=True)
class Case:
    """One broken input.

    Attributes:
        name: of the file, relative to the folder; may be any that the system allows.
        write: makes the file.
        ends: statuses and reasons of refusal that are right for it.
        kind: what it is an example of.
    """

    name: str
    write: Callable[[Path], None]
    ends: frozenset[str]
    kind: str


def case(kind: str, name: str, write: Callable[[Path], None], *ends: str) -> Case:
    assert ends
    return Case(name, write, frozenset(ends), kind)


def put(data: bytes) -> Callable[[Path], None]:
    """Return what writes these bytes."""
    return lambda path: void(path.write_bytes(data))


def void(_: object) -> None:
    """Return None: for functions that are used for what they do."""
