"""Whether a clip shows one person from its first frame to its last, by the face recognition network.

A change of person is the looks at one before and at another after; what a transition shows in between is left out.

Shape legend: L looks, D width of an identity vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.stages.seen import Seen
from benchmarks.stages.tables import Section, rate, table
from df_data.stages.identity import FaceIdentity
from df_data.stages.prepare import LOOK_EVERY
from df_data.stages.transitions import LOOKS, person_changes

PAIRS = 200
"""Most pairs of clips a corpus."""


def looks(seen: Seen, network: FaceIdentity) -> np.ndarray:
    """Return the vectors of a stretch at the looks of a build, float64 ``[L, D]``."""
    return network.frame_vectors(seen.frames, seen.landmarks, np.arange(0, len(seen.landmarks.points), LOOK_EVERY))


def measure(
    reported: Mapping[str, Sequence[Seen]],
    everybody: Mapping[str, Sequence[Seen]],
    turn: Sequence[Seen],
    network: FaceIdentity,
) -> Section:
    """Join every clip's looks with another person's, and leave every clip's as they are."""
    rows = []
    for name, clips in reported.items():
        held = {seen.kept: looks(seen, network) for seen in {*clips, *everybody[name]}}
        pairs = [(a, b) for a in clips for b in everybody[name] if a.person != b.person]
        chosen = [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))[:PAIRS]]
        for share in (0.35, 0.5, 0.65):
            found = []
            for a, b in chosen:
                first, second = held[a.kept], held[b.kept]
                count = min(len(first), len(second))
                split = min(max(round(share * count), LOOKS), count - LOOKS)
                found.append(person_changes(np.concatenate([first[:split], second[split:count]])))
            what = f"another person after {share:.0%}"
            rows.append([what, name, str(len(found)), "yes", rate(sum(found), len(found))])
        alone = [person_changes(held[seen.kept]) for seen in clips]
        rows.append(["one take", name, str(len(alone)), "no", rate(sum(alone), len(alone))])
    turned = [person_changes(looks(seen, network)) for seen in turn]
    rows.append(["one take, a fast turn", "talking", str(len(turned)), "no", rate(sum(turned), len(turned))])
    text = (
        f"MobileFaceNet's vectors at every {LOOK_EVERY}th frame, where `models.face_identity` is given. It was made "
        + "for photographs: rendered heads are much alike to it.\n\n"
        + table(("looks of", "clips of", "clips", "to be refused", "refused"), rows)
    )
    return Section("One person by the face recognition network (`person_changes`)", text, {"rows": rows})
