"""The size of an image whose pixels are not square."""

from __future__ import annotations

from fractions import Fraction

import pytest

from df_data.stages.aspect import square_size


@pytest.mark.parametrize(
    ("aspect", "shown"),
    [
        (None, (720, 576)),
        (Fraction(1), (720, 576)),
        (Fraction(16, 15), (768, 576)),
        (Fraction(64, 45), (1024, 576)),
        (Fraction(8, 9), (720, 648)),
        (Fraction(0), (720, 576)),
        (Fraction(1000), (720, 576)),
        (Fraction(1, 1000), (720, 576)),
        (Fraction(-2), (720, 576)),
    ],
)
def test_no_pixel_is_lost_and_nonsense_counts_as_square(aspect: Fraction | None, shown: tuple[int, int]) -> None:
    assert square_size(720, 576, aspect) == shown
