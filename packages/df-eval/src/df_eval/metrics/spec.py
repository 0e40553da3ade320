"""What an entry in the list of metrics says of a metric, and what entries share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from df_eval.metrics.pair import Pair
from df_eval.metrics.seen import GENERATED, GROUND_TRUTH, RECONSTRUCTION, ROWS, Seen
from df_models.intervals.ranges import Range

OURS = "this repository"


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        better: "higher", "lower" or "truth" (as near the truth's as possible).
        measure: of one clip; it is called only where everything that it needs is there.
        within: the values that it can have; its intervals, and those of differences of it, hold no others.
        needs: signals of :class:`~df_eval.metrics.seen.Seen` without which it does not exist; none for what is measured
            on pixels alone.
        source: of the definition.
        protocol: settings that another implementation must share to compare.
        not_in: rows in which it means nothing, with the reason.
        shifted: how it is measured in the row of shifted audio; None: not there, whose video is the generated one.
    """

    name: str
    title: str
    group: str
    better: str
    definition: str
    measure: Callable[[Seen], Pair]
    within: Range = field(kw_only=True)
    needs: tuple[str, ...] = ()
    unit: str = ""
    decimals: int = 2
    source: str = OURS
    protocol: str = ""
    not_in: Mapping[str, str] = field(default_factory=dict)
    shifted: Callable[[Seen], Pair] | None = None


MOUTH = ("mouth", "true_mouth")
BESIDE_OTHERS = (*MOUTH, "other_mouths")
"""What a metric that compares with other clips may need: it is measured when all clips are read, and of each only its
mouth is still in memory by then."""
POSE = ("angles", "true_angles")
TO_REFERENCE = ("identity", "reference_identity")
TO_PERSON = ("identity", "person_identity")
_FREE_POSE = "the audio does not determine the pose: compare the pose statistics"
_NO_STRUCTURE = "only a generated video has a structure stream of its own"
ONLY_GENERATED = dict.fromkeys((row for row in ROWS if row != GENERATED), _NO_STRUCTURE)
SAME_POSE = dict.fromkeys((row for row in ROWS if row not in (GROUND_TRUTH, RECONSTRUCTION)), _FREE_POSE)
NOT_ITSELF = {GROUND_TRUTH: "compared with itself"}

GROUPS: dict[str, str] = {
    "lips": "Lips and audio",
    "face": "Face and blinks",
    "identity": "Identity over time",
    "motion": "Motion",
    "image": "Image quality",
    "pose": "Head pose",
    "sets": "Distance of distributions",
    "theval": "THEval, in part",
}
"""Titles of the groups of metrics, in the order of the report."""
