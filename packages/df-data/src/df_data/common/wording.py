"""Words for a person that several commands need."""

from __future__ import annotations


def counted(number: int, what: str, many: str | None = None) -> str:
    """Return a number of things for a person; ``many`` is the plural where it is not formed with an s."""
    return f"{number} {what if number == 1 else many or what + 's'}"
