"""One person becomes another by transitions of every shape, one take with some of it left out, and takes left alone.

Shape legend: T frames, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.stages.seen import Seen
from benchmarks.stages.tables import Section, rate, table
from df_data.stages.shots import shot_cuts
from df_models.crop import CropBox, crop_resize
from df_models.time import FPS

LENGTHS = {"rendered": (75, 125), "GRID": (75,), "talking": (75, 125)}
"""Frames of a clip: 3 s, which is all that GRID has, and 5 s."""
SIDE = 128
"""The judges of shots thin images to 128 rows."""
PAIRS = 28
"""Most pairs of clips a corpus."""
JUMPED = 20
"""Frames that a jump cut leaves out: 0.8 s."""


def mix(first: np.ndarray, second: np.ndarray, share_T: np.ndarray) -> np.ndarray:
    """Return frames of which a share is of the second clip."""
    share = share_T[:, None, None, None]
    return ((1 - share) * first + share * second + 0.5).astype(np.uint8)


def dissolve(first: np.ndarray, second: np.ndarray, frames: int) -> np.ndarray:
    """Let one clip pass into another over some frames, in the middle."""
    at = np.arange(len(first)) - (len(first) - frames) / 2
    return mix(first, second, np.clip((at + 0.5) / max(frames, 1), 0, 1))


def fade_through(first: np.ndarray, second: np.ndarray, grey: int, frames: int = 24) -> np.ndarray:
    """Fade to a grey value and out of it to the other clip."""
    at = (np.arange(len(first)) - (len(first) - frames) / 2) / frames
    clips = np.where((at < 0.5)[:, None, None, None], first, second)
    return mix(clips, np.full_like(first, grey), np.clip(1 - np.abs(2 * at - 1), 0, 1))


def wipe(first: np.ndarray, second: np.ndarray, frames: int = 12) -> np.ndarray:
    """Push a border across the image, beyond which the other clip is."""
    at = np.clip((np.arange(len(first)) - (len(first) - frames) / 2) / frames, 0, 1)
    columns = np.arange(first.shape[2]) / first.shape[2]
    return np.where((columns[None] < at[:, None])[:, None, :, None], second, first)


TRANSITIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "hard cut": lambda a, b: dissolve(a, b, 0),
    "dissolve, 4 frames": lambda a, b: dissolve(a, b, 4),
    "dissolve, 8 frames": lambda a, b: dissolve(a, b, 8),
    "dissolve, 12 frames": lambda a, b: dissolve(a, b, 12),
    "dissolve, 25 frames": lambda a, b: dissolve(a, b, 25),
    "fade through black, 24 frames": lambda a, b: fade_through(a, b, 0),
    "fade through white, 24 frames": lambda a, b: fade_through(a, b, 255),
    "wipe, 12 frames": wipe,
}


def small(frames: np.ndarray) -> np.ndarray:
    """Return a clip's crop at the size that is looked at."""
    return crop_resize(frames, CropBox(0.0, 0.0, float(frames.shape[1])), SIDE)


def pairs(clips: Sequence[Seen], others: Sequence[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Yield pairs of a clip and another person's, drawn by a fixed seed."""
    all_pairs = [(a, b) for a in clips for b in others if a.person != b.person]
    for index in np.random.default_rng(0).permutation(len(all_pairs))[:PAIRS]:
        yield all_pairs[index]


def with_jump(frames: np.ndarray) -> np.ndarray:
    """Leave 0.8 s out of the middle."""
    middle = (len(frames) - JUMPED) // 2
    return np.delete(frames, np.arange(middle, middle + JUMPED), axis=0)


def found_and_missed(name: str, kind: str, found: Sequence[bool]) -> list[str]:
    """Return a row of the table."""
    hits = sum(found)
    return [kind, name, str(len(found)), rate(hits, len(found)), rate(len(found) - hits, len(found))]


def transition_rows(clips: Sequence[Seen], others: Sequence[Seen], name: str) -> list[list[str]]:
    """Let clips become another person's, by every transition."""
    held = {seen.kept: small(seen.frames) for seen in {*clips, *others}}
    rows = []
    for length in LENGTHS[name]:
        couples = [(held[a.kept][:length], held[b.kept][:length]) for a, b in pairs(clips, others)]
        couples = [(a[:n], b[:n]) for a, b in couples if (n := min(len(a), len(b))) >= length - 3]
        for kind, make in TRANSITIONS.items():
            said = [bool(shot_cuts(make(a, b))) for a, b in couples]
            rows.append(found_and_missed(f"{name}, {length / FPS:g} s", kind, said))
    said = [bool(shot_cuts(with_jump(held[seen.kept][:125]))) for seen in clips]
    return [*rows, found_and_missed(name, "jump cut of one person, 0.8 s left out", said)]


def measure(
    reported: Mapping[str, Sequence[Seen]], everybody: Mapping[str, Sequence[Seen]], turn: Sequence[Seen]
) -> Section:
    """Count transitions that are no boundary, and takes that are cut."""
    rows, alone = [], []
    for name, clips in reported.items():
        rows += transition_rows(clips, everybody[name], name)
    takes = {f"{name}, reported": clips for name, clips in reported.items()}
    for name, clips in (*takes.items(), *everybody.items(), ("`turn_without_cut.mp4`", turn)):
        cut = {f"{seen.person} {seen.kept.stem}": at for seen in clips if (at := shot_cuts(seen.whole))}
        where = ", ".join(f"{who} at {at}" for who, at in cut.items()) or "-"
        alone.append([name, str(len(clips)), rate(len(cut), len(clips)), where])
    text = (
        "One crop beside the other, so that both faces are in one place. The face recognition network, which is asked "
        "as well where it is given, is not counted here.\n\n"
        + table(("change", "clips of", "clips", "found", "missed"), rows)
        + "\n\nTakes as they are. The two cuts of talk_02 are its own: its images show that some is left out there.\n\n"
        + table(("clips of", "stretches", "cut", "which, at which frames"), alone)
    )
    return Section("One take, one person (`shot_cut`, `person_changes`)", text, {"rows": rows, "takes": alone})
