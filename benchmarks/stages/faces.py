"""A second face of known size, place and time: when a clip is refused as showing more than one.

Shape legend: T frames, K looked-at frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.stages.tables import RULE_HEADER, Section, Tally, percent, table
from benchmarks.stages.talks import FACES, SIDE, Models, Talk
from df_data.stages.faces import FaceFilter, track_face
from df_data.stages.rejection import Rejected
from df_models.crop import CropBox, CropRule, crop_resize
from df_models.encoders.face.yunet import Face

SIZES = (0.2, 0.28, 0.42, 0.5, 0.7, 1.0)
"""Of the second face, in sizes of the first; the limit is 0.35."""
SHARES = (0.04, 0.08, 0.16, 0.24, 0.52)
"""Of the looked-at frames in which the second face is there; the limit is 0.1."""
SEEN_SIZE = 0.7
Found = list[list[Face]]


def beside(talk: Talk, other: Talk, size: float, *, cut: float = 0.0, still: bool = False) -> np.ndarray:
    """Return every third frame with a second person to the right, uint8 ``[K, H, W', 3]``.

    Args:
        size: of the second face in sizes of the first.
        cut: share of the second person's square that lies beyond the image's right edge.
        still: the second person is an image that does not move.
    """
    looked = talk.source[:: FACES.detect_every]
    side = round(size * talk.face_size * CropRule().scale)
    second = other.frames[:1] if still else other.frames[:: FACES.detect_every]
    second = crop_resize(second, CropBox(0.0, 0.0, float(SIDE)), side)
    height = looked.shape[1]
    visible = round(side * (1 - cut))
    pane = np.repeat(looked[:, :, -1:], visible, axis=2)
    rows = min(side, height)
    for index in range(len(looked)):
        pane[index, height - rows :] = second[index % len(second), side - rows :, :visible]
    return np.concatenate([looked, pane], axis=2)


def found_in(frames_KHWC: np.ndarray, models: Models) -> Found:
    """Return the faces of each frame."""
    return [models.detector.detect(frame) for frame in frames_KHWC]


def reason(faces: Found, frames_KHWC: np.ndarray, filters: FaceFilter = FACES) -> str:
    """Return why the clip is refused, or an empty text."""
    num = (len(faces) - 1) * filters.detect_every + 1
    try:
        track_face(faces, (num, *frames_KHWC.shape[1:3]), filters, CropRule())
    except Rejected as refused:
        return refused.reason
    return ""


def mixed(alone: Found, together: Found, share: float) -> Found:
    """Return the faces of a clip in which the second person is there for a share of the frames, in the middle."""
    count = round(share * len(alone))
    start = (len(alone) - count) // 2
    return [together[i] if start <= i < start + count else faces for i, faces in enumerate(alone)]


def verdicts(talk: Talk, other: Talk, models: Models) -> dict[str, tuple[str, bool]]:
    """Return, by case, why the clip is refused and whether it ought to be as ``more_than_one_face``."""
    plain = talk.source[:: FACES.detect_every]
    alone = found_in(plain, models)
    said = {"one face": (reason(alone, plain), False)}
    together: Found = alone
    for size in SIZES:
        frames = beside(talk, other, size)
        faces = found_in(frames, models)
        together = faces if size == SEEN_SIZE else together
        said[f"second face of {size:g}, all the time"] = (reason(faces, frames), size >= FACES.other_face)
    for share in SHARES:
        faces = mixed(alone, together, share)
        true = round(share * len(alone)) / len(alone) > FACES.max_crowded
        said[f"second face of {SEEN_SIZE:g} in {share:.0%} of the frames"] = (reason(faces, plain), true)
    for name, options in {
        "second face of 0.7 as a still image": {"still": True},
        "second face of 0.7, half beyond the edge": {"cut": 0.5},
    }.items():
        frames = beside(talk, other, SEEN_SIZE, **options)
        said[name] = (reason(found_in(frames, models), frames), True)
    return said


def measure(sets: Mapping[str, Sequence[Talk]], models: Models) -> Section:
    """Put a second person beside each clip's."""
    rows, rules, figures = [], [], {}
    for name, talks in sets.items():
        said = [verdicts(talk, talks[index - 1], models) for index, talk in enumerate(talks)]
        decisions = [(why == "more_than_one_face", truth) for verdict in said for why, truth in verdict.values()]
        tally = Tally.of(decisions)
        rules.append([name, *tally.cells()])
        for case in said[0]:
            reasons = [verdict[case][0] for verdict in said]
            crowded = [why == "more_than_one_face" for why in reasons]
            others = sorted({why for why in reasons if why not in ("", "more_than_one_face")})
            wanted = "yes" if said[0][case][1] else "no"
            rows.append([case, name, len(said), wanted, percent(crowded), ", ".join(others) or "-"])
            figures[f"{name}: {case}"] = {"refused": sum(crowded), "of": len(said), "truth": said[0][case][1]}
        figures[name] = tally.figures()
    header = ("case", "clips of", "clips", "to be refused", "refused", "refused for another reason")
    text = (
        "Sizes are those of the square around the second face, in sizes of the first; the limits are a size of "
        f"{FACES.other_face} and {FACES.max_crowded:.0%} of the looked-at frames.\n\n"
    )
    return Section(
        "Two faces (`more_than_one_face`)",
        f"{text}{table(('clips of', *RULE_HEADER), rules)}\n\n{table(header, rows)}",
        figures,
    )
