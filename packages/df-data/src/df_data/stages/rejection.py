"""What a stage raises when an input does not qualify: not an error, a result."""

from __future__ import annotations

from collections.abc import Mapping


class Rejected(Exception):
    """An input was refused by a filter.

    Attributes:
        reason: short name of the filter, such as ``no_sound_track``.
        detail: one line for a person.
        scores: the numbers it was decided by.
    """

    def __init__(self, reason: str, detail: str, scores: Mapping[str, float] | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.scores = dict(scores or {})
