"""Something in front of the face, of known area, place and time: when a clip is refused as hidden.

The face of a crop is taken for an ellipse around its middle, as large as the detector's box makes it. An area is the
share of that ellipse that is covered.

Shape legend: S = 256 side of the crop, K looked-at frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.stages.tables import RULE_HEADER, Section, Tally, percent, table
from benchmarks.stages.talks import SIDE, Models, Talk
from df_data.stages.occlusion import OcclusionFilter, face_confidences, hidden_share

AREAS = (0.1, 0.2, 0.3, 0.45, 0.6)
TIMES = (0.16, 0.24, 0.4, 0.6, 1.0)
PLACES = ("mouth", "eyes", "one side", "microphone")
COUNTED_AREA = 0.2
"""From this area on a face counts as covered, for precision and recall; 0.1 is told apart."""
_Y, _X = np.mgrid[:SIDE, :SIDE] + 0.5
FACE = ((_X - 128) / 75) ** 2 + ((_Y - 136) / 98) ** 2 < 1


def patch(place: str, area: float) -> np.ndarray:
    """Return bool ``[S, S]``: what covers this share of the face, to a hundredth or as much as the place allows."""
    low, high = 0.0, 4.0
    for _ in range(30):
        middle = (low + high) / 2
        if covered_area(_shape(place, middle)) < area:
            low = middle
        else:
            high = middle
    return _shape(place, high)


def covered_area(patch_SS: np.ndarray) -> float:
    """Return the share of the face that a patch covers."""
    return float((patch_SS & FACE).sum() / FACE.sum())


def _shape(place: str, scale: float) -> np.ndarray:
    if place == "mouth":
        return ((_X - 128) / (70 * scale)) ** 2 + ((_Y - 182) / (45 * scale)) ** 2 < 1 if scale else FACE & False
    if place == "eyes":
        return np.abs(_Y - 112) < 60 * scale
    if place == "one side":
        return (53 + 75 * scale > _X) & (_Y > 20)
    head = ((_X - 128) ** 2 + (_Y - (235 - 45 * scale)) ** 2) < (36 * scale) ** 2
    return head | ((np.abs(_X - 128) < 12 * scale) & (235 - 45 * scale < _Y))


def covered(frames_KSSC: np.ndarray, patch_SS: np.ndarray, look: int) -> np.ndarray:
    """Return the frames with the patch in front: dark, of the face's own skin or of noise, by ``look``."""
    out = frames_KSSC.copy()
    rng = np.random.default_rng(look)
    if look % 3 == 0:
        out[:, patch_SS] = (38, 36, 40)
    elif look % 3 == 1:
        out[:, patch_SS] = frames_KSSC[0, 150:170, 70:90].reshape(-1, 3).mean(axis=0)
    else:
        out[:, patch_SS] = rng.integers(0, 256, (int(patch_SS.sum()), 3))
    return out


def verdicts(talk: Talk, models: Models, look: int) -> dict[tuple[str, float, float], bool]:
    """Return, by place, area and share of the time, whether the clip would be refused; the bare clip is all zeros."""
    filters = OcclusionFilter()
    looked = talk.frames[:: filters.every]
    bare = face_confidences(looked, models.detector, 1)

    def refused(confidence: np.ndarray) -> bool:
        return hidden_share(confidence, filters) > filters.max_hidden

    said = {("", 0.0, 0.0): refused(bare)}
    for place in PLACES:
        for area in AREAS:
            hidden = face_confidences(covered(looked, patch(place, area), look), models.detector, 1)
            for share in TIMES:
                count = round(share * len(bare))
                start = (len(bare) - count) // 2
                inside = (np.arange(len(bare)) >= start) & (np.arange(len(bare)) < start + count)
                said[place, area, share] = refused(np.where(inside, hidden, bare))
    return said


def measure(sets: Mapping[str, Sequence[Talk]], models: Models) -> Section:
    """Cover every clip's face in every way."""
    limit, rules, rows, figures = OcclusionFilter().max_hidden, [], [], {}
    for name, talks in sets.items():
        said = [verdicts(talk, models, look) for look, talk in enumerate(talks)]
        for title, whole in (("a part of the time", False), ("all the time", True)):
            decisions = [
                (found, area > 0 and share > limit)
                for verdict in said
                for (_, area, share), found in verdict.items()
                if area == 0 or (area >= COUNTED_AREA and (share == 1.0) == whole)
            ]
            tally = Tally.of(decisions)
            rules.append([f"{name}, covered {title}", *tally.cells()])
            figures[f"{name}, {title}"] = tally.figures()
        bare = [verdict["", 0.0, 0.0] for verdict in said]
        rows.append([name, "nothing", "-", percent(bare), *["-"] * (len(TIMES) - 1)])
        figures[f"{name}, bare"] = {"refused": sum(bare), "of": len(bare)}
        for place in PLACES:
            for area in AREAS:
                shares = [percent(verdict[place, area, share] for verdict in said) for share in TIMES]
                rows.append([name, place, f"{area:.0%}", *shares])
    header = ("clips of", "covered", "area", *(f"{share:.0%} of the time" for share in TIMES))
    text = (
        f"Refused share of the clips; the limit is {limit:.0%} of the frames, so the two columns up to 24 % should be "
        f"0 and the others 100 %. Precision and recall count areas from {COUNTED_AREA:.0%} on.\n\n"
    )
    return Section(
        "Covered faces (`face_hidden`)",
        f"{text}{table(('clips of', *RULE_HEADER), rules)}\n\n{table(header, rows)}",
        figures,
    )
