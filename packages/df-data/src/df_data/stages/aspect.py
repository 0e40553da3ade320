"""Images whose pixels are not square, as broadcasts and discs have them: how large they are in square ones.

Source: ISO/IEC 14496-10 (H.264), annex E, ``sample_aspect_ratio``: width of a pixel over its height.
"""

from __future__ import annotations

from fractions import Fraction

WIDEST = 4
"""Pixels further from square, either way, are a damaged header's; known formats stay below 2.2."""


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return width and height in square pixels, none fewer than there are.

    Args:
        aspect: of a pixel; None or nonsense counts as square.
    """
    if not aspect or not Fraction(1, WIDEST) <= aspect <= WIDEST:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
