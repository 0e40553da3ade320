"""Which stream carries what: clips generated with the structure, or the reference image, of another clip.

`structure_swapped` is given another clip's true structure beside its own sound and portrait; `reference_swapped` has
another person's portrait beside its own sound. What is then read from the pixels is compared with the clip's own truth
and with the other clip's: lips that follow the given structure against their own sound are carried by structure, a face
that stays its own while another moves it is carried by the reference. The noise is that of the row `generated`, which
stands beside them as the control.

Shape suffixes: T pixel frames, A = 3 angles, D identity features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.measure import Truth
from df_eval.metrics import Pair, Score, pearson, sync
from df_eval.metrics.aggregate import pooled_score
from df_eval.metrics.identity import identity_distance, mean_over_time
from df_eval.reading.readers import FaceReader
from df_eval.reading.readings import FaceReadings
from df_eval.rows.codec import through
from df_eval.rows.generation import Progress
from df_eval.rows.partners import partners, with_structure_of
from df_eval.rows.systems import LeftOut, RunSystem
from df_infer.config import TRUTH
from df_models.intervals.ranges import CORRELATION, NOT_NEGATIVE, SHARE

STRUCTURE_SWAPPED, REFERENCE_SWAPPED = "structure_swapped", "reference_swapped"
QUANTITIES = {"mouth": "mouth (correlation)", "pose": "pose (correlation)", "identity": "identity (distance)"}
SIDES = ("own", "other", "share")
RANGES = {"mouth": CORRELATION, "pose": CORRELATION, "identity": NOT_NEGATIVE}
"""Of what is read, against either side; shares are shares."""
NOTE = (
    "What is read from the pixels, against the clip's own truth and against that of the clip whose structure or "
    "portrait was given. Share of the other one: o² / (own² + o²) of the correlations (negative ones count as 0), and "
    "for identity own² / (own² + o²) of the distances, sums over clips. 0: it follows its own, 1: the other; where "
    "both correlations are low it follows neither, and the share says nothing."
)


@dataclass
class Interventions:
    """Everything measured, by row, quantity (`QUANTITIES`), side (`SIDES`) and clip.

    Attributes:
        frames: pixel frames of the clips.
        people: of the clips; what intervals resample.
        missing: by row, why it could not be made.
    """

    frames: int
    people: Sequence[str]
    pairs: dict[str, dict[str, dict[str, dict[int, Pair]]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, index: int, measured: Mapping[str, Mapping[str, Pair]]) -> None:
        """Add a clip's measurements."""
        for quantity, sides in measured.items():
            for side, pair in sides.items():
                self.pairs.setdefault(row, {}).setdefault(quantity, {}).setdefault(side, {})[index] = pair

    def scores(self, seed: int, resamples: int) -> dict[str, dict[str, dict[str, Score]]]:
        """By row, quantity and side, pooled over the clips with intervals."""
        return {
            row: {
                name: {
                    side: pooled_score(
                        pairs, self.people, seed, resamples, within=SHARE if side == "share" else RANGES[name]
                    )
                    for side, pairs in sides.items()
                }
                for name, sides in quantities.items()
            }
            for row, quantities in self.pairs.items()
        }

    def to_json(self, seed: int, resamples: int) -> dict[str, Any]:
        """Plain JSON."""
        rows = {
            row: {name: {side: score.to_json() for side, score in sides.items()} for name, sides in quantities.items()}
            for row, quantities in self.scores(seed, resamples).items()
        }
        return {"frames": self.frames, "rows": rows, "missing": self.missing}


def intervene(
    system: RunSystem,
    clips: Sequence[EvalClip],
    truths: Sequence[Truth],
    readings: Sequence[FaceReadings | None],
    reader: FaceReader,
    config: EvalConfig,
    into: Interventions,
    progress: Progress,
    name: Callable[[str], str] = lambda row: row,
) -> None:
    """Generate both interventions with a run, and measure them beside its own videos.

    Args:
        truths: of the clips; ``readings`` of its own videos of them, at the length of ``into``.
        name: of a row, from its kind.
    """
    others = partners(clips)
    for index, other in enumerate(others):
        read = readings[index]
        if read is not None:
            into.add(system.row, index, compared(read, truths[index], truths[other], into.frames))
    given = replace(system, rollout=system.rollout.model_copy(update={"structure_from": TRUTH}))
    for kind, maker, swapped in (
        (STRUCTURE_SWAPPED, given, _structure_swapped(system, clips, others)),
        (REFERENCE_SWAPPED, system, _reference_swapped(clips, others)),
    ):
        if isinstance(swapped, str):
            into.missing[name(kind)] = swapped
            progress(len(clips))
            continue
        for index, (clip, other) in enumerate(zip(maker.make(swapped, into.frames, progress), others, strict=True)):
            assert not isinstance(clip, LeftOut), "a run makes every clip"
            read = reader.read(through(config.codec, clip.frames_THWC))
            if read is not None:
                into.add(name(kind), index, compared(read, truths[index], truths[other], into.frames))
    if not into.pairs:
        into.missing[system.row] = "no reader for this data"


def _structure_swapped(system: RunSystem, clips: Sequence[EvalClip], others: Sequence[int]) -> list[EvalClip] | str:
    model = system.pipeline.model.config
    if len(clips) < 2:
        return "there is no other clip"
    if not model.has_structure:
        return "the model has no structure (streams=video)"
    if model.structure_given == "never":
        return "the model was never given all of its structure in training (objective.give_structure=0)"
    if system.pipeline.trained.distilled:
        return "the model is a distilled student (task=distill), which never saw clean structure beside noisy video"
    if any(clip.structure_TV is None for clip in clips):
        return "the clips have no true structure"
    return with_structure_of(clips, others)


def _reference_swapped(clips: Sequence[EvalClip], others: Sequence[int]) -> list[EvalClip] | str:
    if len({clip.identity for clip in clips}) < 2:
        return "all clips are of one person"
    return [replace(clip, portrait_HWC=clips[other].reference_HWC) for clip, other in zip(clips, others)]


def compared(read: FaceReadings, own: Truth, other: Truth, frames: int) -> dict[str, dict[str, Pair]]:
    """What was read against two clips' truths; quantities that are not read or not known are left out."""
    mine, theirs = own.signals.first(frames), other.signals.first(frames)
    found: dict[str, dict[str, Pair]] = {}
    if read.mouth_open_T is not None and mine.mouth_open_T is not None and theirs.mouth_open_T is not None:
        mouth_T = read.mouth_open_T
        found["mouth"] = _followed(
            *(sync.correlation(mouth_T, true) for true in (mine.mouth_open_T, theirs.mouth_open_T))
        )
    if read.angles_TA is not None and mine.angles_TA is not None and theirs.angles_TA is not None:
        angles_TA = read.angles_TA
        found["pose"] = _followed(*(_pose(angles_TA, true) for true in (mine.angles_TA, theirs.angles_TA)))
    if read.identity_TD is not None and own.person_identity_D is not None and other.person_identity_D is not None:
        distances = (identity_distance(read.identity_TD, v) for v in (own.person_identity_D, other.person_identity_D))
        near, far = (mean_over_time(distance_T) for distance_T in distances)
        found["identity"] = {"own": near, "other": far, "share": _share(near.numerator, far.numerator, near, far)}
    return found


def _followed(own: Pair, other: Pair) -> dict[str, Pair]:
    follows_own, follows_other = (max(pair.numerator, 0.0) for pair in (own, other))
    return {"own": own, "other": other, "share": _share(follows_other, follows_own, own, other)}


def _share(part: float, rest: float, *pairs: Pair) -> Pair:
    """The part's square over both squares; pooled as sum over sum, so that clips that follow neither weigh little."""
    if not all(pair.defined for pair in pairs):
        return Pair.undefined("one of the two does not exist")
    total = part**2 + rest**2
    return Pair(part**2, total) if total > 0 else Pair.undefined("neither is followed")


def _pose(angles_TA: np.ndarray, true_TA: np.ndarray) -> Pair:
    """Mean correlation of yaw, pitch and roll."""
    found = [pearson(angles_TA[:, axis], true_TA[:, axis]) for axis in range(3)]
    known = [value for value in found if np.isfinite(value)]
    return Pair(float(np.mean(known))) if known else Pair.undefined("constant, or too few frames were read")
