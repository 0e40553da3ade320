"""Hard cuts at known frames, and what is no cut: flashes, fades, fast motion.

Shape legend: T frames, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.stages.tables import RULE_HEADER, Section, Tally, table
from benchmarks.stages.talks import Talk
from df_data.stages.shots import shot_cuts
from df_models.crop import CropBox, crop_resize
from df_models.time import FPS

Case = tuple[np.ndarray, list[int]]
"""Frames ``[T, S, S, 3]`` and the frames that truly begin a shot."""
NEAR = 1
"""A cut is found if it is placed within so many frames."""
NEITHER = "dissolve over 12 frames"
"""No hard cut, and a boundary (:mod:`benchmarks.stages.one_take`): told, and left out of precision and recall."""


def joined(first_TSSC: np.ndarray, second_TSSC: np.ndarray, at: int) -> Case:
    """Return a clip that changes to another at a frame."""
    return np.concatenate([first_TSSC[:at], second_TSSC[at:]]), [at]


def zoomed(frames_TSSC: np.ndarray, factor: float) -> np.ndarray:
    """Return the middle of the frames, enlarged."""
    side = frames_TSSC.shape[1]
    inner = side / factor
    return crop_resize(frames_TSSC, CropBox((side - inner) / 2, (side - inner) / 2, inner), side)


def relit(frames_TSSC: np.ndarray) -> np.ndarray:
    """Return the same person mirrored, before another wall and in other light: half as bright, warmer."""
    tint = np.array([0.62, 0.5, 0.4])
    return (frames_TSSC[:, :, ::-1] * tint).astype(np.uint8)


def flash(frames_TSSC: np.ndarray, at: int, length: int, strength: float = 0.8) -> Case:
    """Return frames of which some are lit by a flash."""
    out = frames_TSSC.copy()
    part = out[at : at + length].astype(np.float64)
    out[at : at + length] = part + strength * (255 - part)
    return out, []


def fade(frames_TSSC: np.ndarray, at: int, length: int = 15) -> Case:
    """Return a fade to black from a frame on, and back."""
    gain = np.interp(np.arange(len(frames_TSSC)), [at - length, at, at + length], [1.0, 0.0, 1.0])
    return (frames_TSSC * gain[:, None, None, None]).astype(np.uint8), []


def dissolve(first_TSSC: np.ndarray, second_TSSC: np.ndarray, at: int, length: int = 12) -> Case:
    """Return one clip passing into another over some frames: no hard cut, but another image afterwards."""
    share = np.clip((np.arange(len(first_TSSC)) - at) / length, 0, 1)[:, None, None, None]
    return ((1 - share) * first_TSSC + share * second_TSSC).astype(np.uint8), []


def shaken(frames_TSSC: np.ndarray, rng: np.random.Generator) -> Case:
    """Return frames of a camera that pans by up to 8 % of the image from one frame to the next."""
    side = frames_TSSC.shape[1]
    inner, path = 0.7 * side, rng.uniform(-0.08, 0.08, (len(frames_TSSC), 2)).cumsum(axis=0)
    path = np.abs((path + 1.0) % 2.0 - 1.0) * (side - inner)
    boxes = [CropBox(float(x), float(y), inner) for x, y in path]
    return np.stack([crop_resize(frame, box, side) for frame, box in zip(frames_TSSC, boxes)]), []


MAKERS: dict[str, Callable[[np.ndarray, np.ndarray, int, np.random.Generator], Case]] = {
    "cut to another person": lambda a, b, at, rng: joined(a, b, at),
    "cut, same person, other light and side": lambda a, b, at, rng: joined(a, relit(a), at),
    "cut, same person, zoom 1.6": lambda a, b, at, rng: joined(a, zoomed(a, 1.6), at),
    "cut, same person, zoom 1.25": lambda a, b, at, rng: joined(a, zoomed(a, 1.25), at),
    "cut to a black image": lambda a, b, at, rng: joined(a, np.zeros_like(a), at),
    "cut to another person, a flash 6 frames before": lambda a, b, at, rng: (
        joined(flash(a, at - 6, 2)[0], b, at)[0], [at]
    ),
    "no cut": lambda a, b, at, rng: (a, []),
    "flash of 1 frame": lambda a, b, at, rng: flash(a, at, 1),
    "flash of 3 frames": lambda a, b, at, rng: flash(a, at, 3),
    "fade to black and back, 15 frames each": lambda a, b, at, rng: fade(a, at),
    NEITHER: lambda a, b, at, rng: dissolve(a, b, at),
    "shaken camera": lambda a, b, at, rng: shaken(a, rng),
}  # fmt: skip
"""By kind: from a clip, another person's and a frame to a case."""


def cases(talks: Sequence[Talk], kind: str) -> Iterator[Case]:
    """Yield one case per clip; the second person of a cut is the next clip's."""
    rng = np.random.default_rng(len(kind))
    for index, talk in enumerate(talks):
        other = _another(talks, index)
        length = min(len(talk.frames), len(other))
        at = int(rng.integers(15, length - 15))
        yield MAKERS[kind](talk.frames[:length], other[:length], at, rng)


def _another(talks: Sequence[Talk], index: int) -> np.ndarray:
    for step in range(1, len(talks)):
        other = talks[(index + step) % len(talks)]
        if other.name != talks[index].name:
            return other.frames
    raise AssertionError("clips of one person only")


def judge(case: Case) -> tuple[list[int], int]:
    """Return how far each true cut was misplaced (frames, of those found), and how many cuts there are not."""
    frames, truth = case
    found = shot_cuts(frames)
    placed = [min((abs(cut - at) for cut in found), default=99) for at in truth]
    false = sum(all(abs(cut - at) > NEAR for at in truth) for cut in found)
    return [error for error in placed if error <= NEAR], false


def measure(sets: Mapping[str, Sequence[Talk]]) -> Section:
    """Make every case of every clip and look for cuts."""
    rows, figures, rules = [], {}, []
    for name, talks in sets.items():
        total = Tally()
        for kind in MAKERS:
            judged, truths, num_frames = [], [], 0
            for case in cases(talks, kind):
                judged.append(judge(case))
                truths.append(case[1])
                num_frames += len(case[0])
            wanted = sum(map(len, truths))
            hits, false = sum(len(errors) for errors, _ in judged), sum(false for _, false in judged)
            worst = max((error for errors, _ in judged for error in errors), default=0)
            minutes = num_frames / FPS / 60
            rows.append([
                kind, name, len(judged), f"{hits / wanted:.0%}" if wanted else "-", worst if wanted else "-",
                false, f"{false / minutes:.1f}",
            ])  # fmt: skip
            figures[f"{name}: {kind}"] = {"clips": len(judged), "cuts": wanted, "found": hits, "false": false}
            if kind == NEITHER:
                continue
            quiet = sum(not truth and not false for truth, (_, false) in zip(truths, judged))
            total = Tally(*(a + b for a, b in zip(total, (hits, false, wanted - hits, quiet))))
        rules.append([name, *total.cells()])
        figures[name] = total.figures()
    header = ("what", "clips of", "clips", "found", "misplaced by (frames)", "false cuts", "false per minute")
    text = "All kinds together, each as often as the others:\n\n" + table(("clips of", *RULE_HEADER), rules)
    return Section("Shot cuts (`shot_cut`)", f"{text}\n\n{table(header, rows)}", figures)
