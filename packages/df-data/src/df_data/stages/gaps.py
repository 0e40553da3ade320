"""Short gaps in a track of landmarks: filled by interpolation and counted, or a reason to refuse the clip.

Shape legend: T frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from df_data.stages.landmarks import Landmarks
from df_data.stages.rejection import Rejected


def longest_gap(detected_T: np.ndarray) -> int:
    """Return the length in frames of the longest run without a detection."""
    longest = run = 0
    for seen in detected_T:
        run = 0 if seen else run + 1
        longest = max(longest, run)
    return longest


def fill_gaps(landmarks: Landmarks, max_gap: int) -> Landmarks:
    """Fill gaps of up to ``max_gap`` frames linearly in time (at the ends: with the nearest frame).

    Rotations are interpolated entry by entry and made orthogonal again, which is exact enough over two frames.

    Raises:
        Rejected: ``no_landmarks`` where no frame has any, ``landmarks_missing`` for a longer gap.
    """
    seen = landmarks.detected
    scores = {"landmark_rate": float(seen.mean()), "landmark_gap": float(longest_gap(seen))}
    if not seen.any():
        raise Rejected("no_landmarks", "no frame shows a human face to the landmarker", scores)
    if scores["landmark_gap"] > max_gap:
        raise Rejected("landmarks_missing", f"no landmarks for {scores['landmark_gap']:.0f} frames", scores)
    if seen.all():
        return landmarks
    u, _, vt = np.linalg.svd(_interpolate(landmarks.rotation, seen))
    return replace(
        landmarks,
        points=_interpolate(landmarks.points, seen),
        rotation=u @ vt,
        depth=_interpolate(landmarks.depth, seen),
        blendshapes=_interpolate(landmarks.blendshapes, seen),
        detected=np.ones_like(seen),
    )


def _interpolate(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1)
    known = np.flatnonzero(seen)
    columns = [np.interp(np.arange(len(flat)), known, column[known]) for column in flat.T]
    return np.stack(columns, axis=1).reshape(values.shape)
