"""Whether people of one split are in another: the check after the build, by name and by the faces in the samples.

Shape legend: N vectors held, D width of a vector.
"""

from __future__ import annotations

import numpy as np

from df_data.format.sample import Sample
from df_data.stages.identity import SAME_PERSON
from df_models.settings import FrozenModel

IDENTITY_ROLE = "identity"
"""Role of the face recognition network; without it an identity vector is no direction (synthetic people)."""


class PeopleAcross(FrozenModel):
    """People in more than one split.

    Attributes:
        by_name: persons whose name stands in several splits.
        by_face: persons of whom a clip is more like another split's clip than the threshold; None: there are no vectors
            to compare.
        threshold: that cosine.
        nearest: greatest cosine of clips of two splits; None: there are none with vectors.
        pair: those two samples' keys.
        names: the persons that they show.
    """

    by_name: int
    by_face: int | None
    threshold: float = SAME_PERSON
    nearest: float | None = None
    pair: tuple[str, str] | None = None
    names: tuple[str, str] | None = None


class SplitComparison:
    """Compares each clip with those of the splits before it.

    Held are the vectors of all splits but the last (give the largest last): one for each stretch of video, since the
    clips of a stretch share theirs.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._in_several: set[str] = set()
        self._alike: set[str] = set()
        self._held: list[tuple[str, str]] = []
        self._fresh: list[tuple[str, str]] = []
        self._vectors, self._fresh_vectors = np.zeros((0, 0), np.float32), []
        self._before = b""
        self._best: tuple[float, tuple[str, str], tuple[str, str]] | None = None

    def add(self, sample: Sample, *, hold: bool) -> None:
        """Compare a sample with the splits before; ``hold`` it for those to come."""
        meta = sample.meta
        if self._names.setdefault(meta.identity, meta.split) != meta.split:
            self._in_several.add(meta.identity)
        if IDENTITY_ROLE not in meta.encoders or "identity_vector" not in sample.tensors:
            return
        vector_D = sample.tensors["identity_vector"].numpy()
        if vector_D.tobytes() == self._before:
            return
        self._before = vector_D.tobytes()
        if len(self._held):
            self._compare(meta.key, meta.identity, vector_D)
        if hold:
            self._fresh.append((meta.key, meta.identity))
            self._fresh_vectors.append(vector_D)

    def end_split(self) -> None:
        """Say that the samples to come are of another split."""
        if self._fresh_vectors:
            fresh_ND = np.stack(self._fresh_vectors)
            self._vectors = np.concatenate([self._vectors, fresh_ND]) if len(self._held) else fresh_ND
            self._held += self._fresh
            self._fresh, self._fresh_vectors = [], []
        self._before = b""

    def result(self) -> PeopleAcross:
        """Return what was found."""
        if self._best is None:
            return PeopleAcross(by_name=len(self._in_several), by_face=None)
        nearest, pair, names = self._best
        by_face = len(self._alike)
        return PeopleAcross(
            by_name=len(self._in_several), by_face=by_face, nearest=round(nearest, 4), pair=pair, names=names
        )

    def _compare(self, key: str, name: str, vector_D: np.ndarray) -> None:
        cosines_N = self._vectors @ vector_D
        self._alike |= {self._held[index][1] for index in np.flatnonzero(cosines_N > SAME_PERSON).tolist()}
        best = int(cosines_N.argmax())
        if self._best is None or cosines_N[best] > self._best[0]:
            other, its_name = self._held[best]
            self._best = float(cosines_N[best]), (other, key), (its_name, name)
