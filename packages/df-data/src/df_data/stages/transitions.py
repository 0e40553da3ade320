"""Transitions of any shape: where one image becomes another for good, however it does.

A dissolve, a fade through black or white or a wipe makes no jump from frame to frame, but what was before it does not
come back. So the mean colour histograms of up to ``WINDOW`` frames before and after a place are compared, with a gap
between them for the transition itself, against how far single frames lie from those means: a head that turns, or a
camera that moves, changes as much within a window as from one to the next. The limits were set on GRID's and talking
people and on rendered ones, with what is said beside each.

A face recognition network, where it is given, is asked too who is to be seen before and after (:func:`person_changes`).

Shape legend: T frames, C cells and colours, K bins, L looks, D width of an identity vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW, LEAST_WINDOW = 36, 18
"""Frames on either side that are compared: 1.4 s, near the ends 0.7 s; a change nearer to an end is not found."""
GAPS = (0, 6, 14, 26)
"""Frames that a transition is allowed to take: 26 are a second."""
EVERY = 2
LEAST_CHANGE = 0.08
"""Distance of the means. In one room (GRID) two people are 0.12 apart at least."""
CONTRAST = 4.2
"""Distance of the means against that of frames from their own: most in one take 3.8, least of two people 4.6."""
SHORT_CONTRAST = 6.2
"""The same for windows of ``LEAST_WINDOW`` frames, which know less; between the two it is even."""
FLOOR = 0.01
"""Added to the distance of frames from their mean: images that do not move at all have none."""
SAME_FACE = 0.5
"""Cosine of mean identity vectors: one take 0.78 at least, two people 0.3 at most."""
LOOKS = 3
"""Least looks on either side that identities are compared of."""


@dataclass(frozen=True)
class Transition:
    """Frames ``start`` to ``stop`` (not included) in which one image becomes another; none for a cut."""

    start: int
    stop: int
    contrast: float


def transitions(histograms_TCK: np.ndarray) -> list[Transition]:
    """Return the transitions within one shot, the surest first where several places would do.

    Args:
        histograms_TCK: of each frame, each row of K sums to 1.
    """
    num, found = len(histograms_TCK), []
    frames = histograms_TCK.astype(np.float32)
    for gap in GAPS:
        for start in range(LEAST_WINDOW, num - gap - LEAST_WINDOW + 1, EVERY):
            before = frames[max(0, start - WINDOW) : start]
            after = frames[start + gap : start + gap + WINDOW]
            change, contrast = compare(before, after)
            least = float(np.interp(min(len(before), len(after)), (LEAST_WINDOW, WINDOW), (SHORT_CONTRAST, CONTRAST)))
            if change >= LEAST_CHANGE and contrast >= least:
                found.append(Transition(start, start + gap, contrast))
    return _apart(found)


def compare(before_TCK: np.ndarray, after_TCK: np.ndarray) -> tuple[float, float]:
    """Return how far the means of two stretches are apart, and that against their frames' distance from them."""
    first, second = before_TCK.mean(axis=0), after_TCK.mean(axis=0)
    change = _distance(first, second)
    own = np.concatenate([_distance(before_TCK, first), _distance(after_TCK, second)]).mean()
    return float(change), float(change / (own + FLOOR))


def person_changes(vectors_LD: np.ndarray) -> bool:
    """Return whether two people are seen: those before and after some look are not one.

    Args:
        vectors_LD: unit identity vectors, in the order of time.
    """
    for split in range(LOOKS, len(vectors_LD) - LOOKS + 1):
        before, after = vectors_LD[:split].mean(axis=0), vectors_LD[split:].mean(axis=0)
        scale = np.linalg.norm(before) * np.linalg.norm(after)
        if before @ after < SAME_FACE * scale:
            return True
    return False


def _apart(found: list[Transition]) -> list[Transition]:
    """Keep the surest of those that lie within a window of each other."""
    kept: list[Transition] = []
    for one in sorted(found, key=lambda transition: -transition.contrast):
        if all(one.start >= other.stop + WINDOW or other.start >= one.stop + WINDOW for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda transition: transition.start)


def _distance(frames: np.ndarray, mean_CK: np.ndarray) -> np.ndarray:
    """Mean over cells and colours of the distance of histograms, 0 to 1."""
    return 0.5 * np.abs(frames - mean_CK).sum(axis=-1).mean(axis=-1)
