"""The values that a metric can have. Every metric declares its own; intervals never leave them
(`df_models.intervals.estimate.interval`)."""

from __future__ import annotations

from math import inf

Range = tuple[float, float]
"""Least and largest value."""

ANY: Range = (-inf, inf)
NOT_NEGATIVE: Range = (0.0, inf)
SHARE: Range = (0.0, 1.0)
CORRELATION: Range = (-1.0, 1.0)
UNIT_DISTANCE: Range = (0.0, 2.0)
"""Of vectors of length 1."""


def of_difference(within: Range) -> Range:
    """The differences that two values in a range can have.

    >>> of_difference(SHARE)
    (-1.0, 1.0)
    """
    least, most = within
    return least - most, most - least
