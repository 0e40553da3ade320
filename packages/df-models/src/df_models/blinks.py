"""Blinks: how often people blink, how an eyelid closes, and what closing it is in a structure's own numbers.

Shape legend: V structure entries.
"""

from __future__ import annotations

import numpy as np

from df_models.structure import EYELIDS, StructureLayout

BLINKS_PER_MINUTE = 17.0
"""The mean of people at rest (Bentivoglio et al. 1997); in talk they blink more."""

REFRACTORY_S = 0.6
"""Seconds from one blink's closing in which no other begins."""

STRETCH = (0.85, 1.3)
"""Between what factors of the usual the time of a blink varies."""

_CLOSING_S, _CLOSED_S, _OPENING_S = 0.07, 0.03, 0.14
_SYNTHETIC = {
    **{f"expression[{3 * lid + 1}]": 0.111 for lid in (13, 16)},  # the upper lids, down
    **{f"expression[{3 * lid + 2}]": -0.013 for lid in (13, 16)},
    "expression[55]": -0.035,  # the lower ones, up
    "expression[56]": -0.008,
}
"""By how much the synthetic corpus' lids move as they close (head units; y down, z away), the mean over its people."""

_MEDIAPIPE = {
    "expression[39]": 0.010,  # the upper lids: down, and a little towards the middle of the face
    "expression[40]": 0.044,
    "expression[48]": -0.007,
    "expression[49]": 0.044,
    "expression[55]": -0.007,  # the lower ones: up
}
"""The same of df-data's ``mediapipe`` (face heights; x to the right of the image), of heads that look ahead: a tenth
more than the mean over the lids of five people (of clips that are not part of the project) at a blink reading of 0.5,
which is not quite shut (`benchmarks/lids.py`). At rest lids are 0 there too, in every clip."""
_CLOSING = {"synthetic": _SYNTHETIC, "mediapipe": _MEDIAPIPE}


def eyelid_closure(since_s: np.ndarray, stretch: float) -> np.ndarray:
    """Return how far lids are closed, 0 open to 1, some seconds after the moment when they are: quick to close, slower
    to open.

    Args:
        stretch: factor of the time that it takes.
    """
    closing = np.clip(since_s / (_CLOSING_S * stretch) + 1, 0, 1)
    opening = np.clip(1 - (since_s - _CLOSED_S) / (_OPENING_S * stretch), 0, 1)
    lids = np.minimum(closing, opening)
    return lids * lids * (3 - 2 * lids)


def closing_eyelids(layout: StructureLayout | None) -> np.ndarray | None:
    """Return what closing the lids adds to a structure whose lids are open and at 0, float32 ``[V]``.

    None where it is not known: it is for structures that are 0 at rest by definition, of the synthetic corpus and of
    df-data's ``mediapipe``. LivePortrait's lids lie where each person's do, and FLAME has none in its expression.
    """
    if layout is None or layout.encoder not in _CLOSING or not layout.has(EYELIDS):
        return None
    moved, names = _CLOSING[layout.encoder], layout.vector.names
    assert all(entry or name not in moved for name, entry in zip(names, layout.entries((EYELIDS,))))
    return np.array([moved.get(name, 0.0) for name in names], dtype=np.float32)
