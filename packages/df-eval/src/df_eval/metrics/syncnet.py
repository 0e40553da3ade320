"""SyncNet's offset, confidence and distance of one clip, from vectors of its pixels and its sound.

Shape suffixes: T pixel frames, D features of SyncNet, S shifts.
"""

from __future__ import annotations

import numpy as np

from df_eval.metrics.pair import Pair

MAX_SHIFT = 15
WINDOW = 5
LEAST = 2 * MAX_SHIFT + WINDOW
"""Pixel frames below which the outermost shifts compare most windows with nothing."""
BEYOND = "the face was not found for too long, or the sound ends early"


def windows_of(frames: int) -> int:
    """Windows that the published evaluation compares in a clip: all but the last."""
    return frames - WINDOW


def distance_curve(seen_TD: np.ndarray, heard_TD: np.ndarray) -> np.ndarray | None:
    """Mean distance at each shift of -15 to 15 frames [S]; None where a window has no vector."""
    count = windows_of(len(seen_TD))
    seen, heard = seen_TD[:count], heard_TD[:count]
    if len(heard) < count or not (np.isfinite(seen).all() and np.isfinite(heard).all()):
        return None
    import torch

    from df_models.encoders.face.syncnet import offset_curve

    return offset_curve(torch.from_numpy(seen), torch.from_numpy(heard), MAX_SHIFT).numpy()


def sync_scores(seen_TD: np.ndarray, heard_TD: np.ndarray) -> tuple[Pair, Pair, Pair]:
    """Sync-C, Sync-D and the AV offset (frames; positive: the sound comes too early for the lips).

    The published evaluation (Chung and Zisserman 2016, syncnet_python): windows of 5 frames, shifts of +-15, the curve
    is the mean over windows; C is its median less its minimum, D its minimum.
    """
    if len(seen_TD) < LEAST:
        few = Pair.undefined(f"{len(seen_TD)} frames are too few to shift by +-{MAX_SHIFT}; {LEAST} are needed")
        return few, few, few
    curve = distance_curve(seen_TD, heard_TD)
    if curve is None:
        missing = Pair.undefined(BEYOND)
        return missing, missing, missing
    import torch

    from df_models.encoders.face.syncnet import sync_scores as scores_of

    found = scores_of(torch.from_numpy(curve))
    return Pair(found.confidence), Pair(found.distance), Pair(float(found.offset))


def shifted_scores(seen_TD: np.ndarray, heard_LD: np.ndarray, shifts: tuple[int, ...]) -> tuple[Pair, Pair, Pair]:
    """`sync_scores` against the sound taken later, mean over the shifts that the clip is long enough for."""
    length = len(seen_TD)
    fitting = [shift for shift in shifts if windows_of(length) <= np.isfinite(heard_LD[shift:, 0]).sum()]
    each = [sync_scores(seen_TD, heard_LD[shift : shift + length]) for shift in fitting]
    if not each:
        missing = Pair.undefined(f"a shifted comparison needs sound of {length + min(shifts)} frames")
        return missing, missing, missing
    columns = []
    for pairs in zip(*each, strict=True):
        defined = [pair.numerator for pair in pairs if pair.defined]
        columns.append(Pair(float(np.mean(defined))) if defined else pairs[0])
    return columns[0], columns[1], columns[2]
