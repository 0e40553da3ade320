"""How far the distribution of a row's windows is from the true clips', against time.

Windows of all times are compared with one and the same set: the true clips' first windows. So a distance that grows is
the row's own change; the ground truth's later windows tell what another place in the clips makes of it.

Shape suffixes: n vectors of one window, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from df_eval.measure import GROUND_TRUTH, Video
from df_eval.metrics import SET_SPECS, Score, SetDistance
from df_eval.reading.networks import PER_FRAME

BY_NETWORKS = {
    "fvd2048_16f_last": "FVD of windows",
    "cd_fvd_last": "FVD (cd-fvd) of windows",
    "fid": "FID of windows",
    "kid": "KID of windows",
}
"""By name in the list of distances, how it is called of windows. FVD sees their last 16 frames, FID and KID every
:data:`STEP`-th."""
STEP = 4
"""Frames from one image of a window to the next that FID and KID see: neighbours are nearly equal, and what is kept of
all windows would be four times as much."""
READINGS = "frechet_reader"
SET_TITLES = BY_NETWORKS | {READINGS: SET_SPECS[READINGS].title}
Extractors = Mapping[str, Callable[[np.ndarray], np.ndarray]]


def distances_of(extractors: Collection[str], rendered: bool) -> list[str]:
    """Those whose network is given; else, of rendered faces, the distance of what their exact reader reads."""
    given = [name for name in BY_NETWORKS if SET_SPECS[name].features in extractors]
    return given or ([READINGS] if rendered else [])


@dataclass
class WindowSets:
    """Features of windows.

    Attributes:
        names: the distances, of `df_eval.metrics.SETS`.
        first: the frame after which the true clips' windows end that all others are compared with.
        people: of the clips; what intervals resample.
        features: by row, name of the features and end, what is seen in the clips' windows, by index.
    """

    names: Sequence[str]
    first: int
    people: Sequence[str]
    features: dict[str, dict[str, dict[int, dict[int, np.ndarray]]]] = field(default_factory=dict)

    def add(self, row: str, end: int, index: int, found: Mapping[str, np.ndarray]) -> None:
        """Add what is seen in a clip's window: `[n, D]` by the name of the features."""
        for name, values_nD in found.items():
            self.features.setdefault(row, {}).setdefault(name, {}).setdefault(end, {})[index] = values_nD

    def of(self, video: Video, extractors: Extractors) -> dict[str, np.ndarray]:
        """What the distances compare of a window, float32 `[n, D]` by the name of the features."""
        needed = {SET_SPECS[name].features for name in self.names}
        frames = {name: video.frames_THWC[::STEP] if name in PER_FRAME else video.frames_THWC for name in needed}
        found = {name: extractors[name](frames[name]) for name in needed if name in extractors}
        if "readings" in needed and video.readings is not None:
            found["readings"] = video.readings.table()
        return {name: values_nD.astype(np.float32) for name, values_nD in found.items()}

    def scores(self, row: str, name: str, seed: int, resamples: int) -> dict[int, Score]:
        """A distance of a row by end, with intervals.

        Ends that not every clip reaches are left out, as are windows without any value: a set of fewer clips would be
        compared with fewer true ones, and that alone changes a distance.
        """
        features = SET_SPECS[name].features
        true = self.features.get(GROUND_TRUTH, {}).get(features, {}).get(self.first)
        if true is None:
            return {}
        found: dict[int, Score] = {}
        for end, made in sorted(self.features.get(row, {}).get(features, {}).items()):
            if row == GROUND_TRUTH and end == self.first:
                continue  # compared with itself
            if not made.keys() >= true.keys():
                continue
            distance = SetDistance(name)
            distance.update(list(true.values()), list(true), real=True)
            distance.update(list(made.values()), list(made), real=False)
            score = distance.score(seed, resamples, self.people)
            if score.value is not None:
                found[end] = score
        return found

    def missing(self) -> dict[str, str]:
        """By title, why a distance is not there."""
        if not self.names:
            how = "no file is given for it (readers.i3d=PATH, readers.cd_i3d=PATH; readers.inception=PATH for FID, KID)"
            return {BY_NETWORKS["fvd2048_16f_last"]: how}
        if GROUND_TRUTH in self.features:
            return {}
        why = f"no true clip has a window that ends after {self.first} frames, to compare with"
        return {SET_TITLES[name]: why for name in self.names}
