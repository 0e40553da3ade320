"""Groups of equal people among many vectors: single linkage in bounded memory, and names that stay.

Single linkage above a threshold is the maximum spanning forest of the cosines, cut at the threshold. The forest also
has every vector's nearest neighbour, and those links at which another threshold would decide differently. It is found
in rounds (Boruvka 1926): each group takes its strongest link to another one. A round compares all with all in blocks of
rows and keeps one link per row.

Shape legend: N vectors, B rows of a block, D width of a vector.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_CELLS = 1 << 23
"""Cosines that are held at a time."""
NOT_OUTSIDE = -2.0
"""Below every cosine: vectors of one's own group."""


@dataclass(frozen=True)
class Link:
    """Two vectors and their cosine."""

    a: int
    b: int
    cosine: float


@dataclass(frozen=True)
class Forest:
    """What the cosines of N vectors say.

    Attributes:
        nearest: int64 [N], the nearest other vector, -1 where there is none.
        cosine: float32 [N], that of the two.
        links: of the maximum spanning forest, down to the least cosine asked for.
    """

    nearest: np.ndarray
    cosine: np.ndarray
    links: tuple[Link, ...]


class Groups:
    """Disjoint sets of the numbers 0 to N - 1 (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, index: int) -> int:
        """Return the least number of the group that holds ``index``."""
        parent = self._parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(self, a: int, b: int) -> bool:
        """Make the groups of two numbers one; return whether they were two."""
        a, b = sorted((self.find(a), self.find(b)))
        self._parent[b] = a
        return a != b

    def labels(self) -> np.ndarray:
        """Return int64 [N]: the least number of each number's group."""
        return np.array([self.find(index) for index in range(len(self._parent))], dtype=np.int64)


def strongest_links(vectors_ND: np.ndarray, least: float) -> Forest:
    """Return nearest neighbours, and the maximum spanning forest of all cosines of at least ``least``.

    Time grows with the square of N (measured on one core, D = 128: 10 000 in 3 s, 20 000 in 8 s), memory does not (120
    MiB in all for both): it is N vectors and ``BLOCK_CELLS`` cosines.

    Args:
        vectors_ND: unit vectors.
    """
    vectors_ND = np.ascontiguousarray(vectors_ND, dtype=np.float32)
    count = len(vectors_ND)
    groups, links = Groups(count), []
    first: tuple[np.ndarray, np.ndarray] | None = None
    rows = np.arange(count)
    while len(rows):
        group = groups.labels()
        other, cosine = _best_outside(vectors_ND, rows, group)
        first = first or (np.where(cosine > NOT_OUTSIDE, other, -1), cosine)
        strong = np.flatnonzero(cosine >= least)
        chosen = _strongest_of_each(group[rows[strong]], cosine[strong])
        for at in strong[chosen].tolist():
            a, b = int(rows[at]), int(other[at])
            if groups.join(a, b):
                links.append(Link(min(a, b), max(a, b), float(cosine[at])))
        rows = rows[np.isin(group[rows], group[rows[strong]])]
    nearest, cosine = first or (np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Forest(nearest, cosine, tuple(sorted(links, key=lambda link: -link.cosine)))


def _best_outside(vectors_ND: np.ndarray, rows: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of some rows, the vector outside its group with the greatest cosine, and that cosine."""
    other, cosine = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    step = max(1, BLOCK_CELLS // len(vectors_ND))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        cosines_BN = vectors_ND[block] @ vectors_ND.T
        cosines_BN[group[block][:, None] == group] = NOT_OUTSIDE
        best = cosines_BN.argmax(axis=1)
        other[start : start + step] = best
        cosine[start : start + step] = cosines_BN[np.arange(len(block)), best]
    return other, cosine


def _strongest_of_each(group: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Return, for each group that occurs, where its greatest cosine stands, in falling order of the cosines."""
    order = np.argsort(-cosine, kind="stable")
    return order[np.sort(np.unique(group[order], return_index=True)[1])]


def name_groups(
    labels: Sequence[int], candidates: Sequence[Sequence[str | None]], earlier: Sequence[str | None]
) -> dict[int, str]:
    """Return a name for every group: the one that it had before, or else one of its own members'.

    A group that had several names (people who turn out to be one) keeps the one that most of its members had; a name
    that several groups had goes to the one with most of its bearers.

    Args:
        labels: the group of each member.
        candidates: for each member the names that its group may take from it, equally many, the best first; the first
            of all members are tried, in alphabetical order, before the second. The last one is there, and the member's
            alone.
        earlier: the name that each member had, if any.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    names = _kept_names(zip(labels, earlier))
    taken = set(names.values()) | {name for name in earlier if name is not None}
    for label, group in members.items():
        if label not in names:
            names[label] = _free_name([candidates[index] for index in group], taken)
            taken.add(names[label])
    return names


def _kept_names(bearers: Iterable[tuple[int, str | None]]) -> dict[int, str]:
    counts = Counter((label, name) for label, name in bearers if name is not None)
    names: dict[int, str] = {}
    given: set[str] = set()
    for (label, name), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0][1], item[0][0])):
        if label not in names and name not in given:
            names[label] = name
            given.add(name)
    return names


def _free_name(candidates: Sequence[Sequence[str | None]], taken: set[str]) -> str:
    for rank in zip(*candidates):
        for name in sorted(name for name in rank if name is not None):
            if name not in taken:
                return name
    own = min(str(names[-1]) for names in candidates)
    numbered = (f"{own}-{number}" for number in itertools.count(2))
    return next(name for name in numbered if name not in taken)
