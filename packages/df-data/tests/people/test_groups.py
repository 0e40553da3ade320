"""Groups of equal people against the definition, whatever the blocks; names that stay."""

from __future__ import annotations

import numpy as np
import pytest

from df_data.people import groups
from df_data.people.groups import Groups, name_groups, strongest_links


def people(rng: np.random.Generator, persons: int, clips: int, noise: float) -> np.ndarray:
    centres = rng.normal(size=(persons, 16))
    vectors = centres[rng.integers(0, persons, clips)] + noise * rng.normal(size=(clips, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_definition(vectors_ND: np.ndarray, threshold: float) -> list[int]:
    joined = Groups(len(vectors_ND))
    for a, b in zip(*np.nonzero(vectors_ND @ vectors_ND.T > threshold)):
        joined.join(int(a), int(b))
    return joined.labels().tolist()


@pytest.mark.parametrize("cells", [1, 700, 1 << 20])
@pytest.mark.parametrize("noise", [0.2, 0.6, 1.5])
def test_the_links_make_the_groups_of_single_linkage_at_every_threshold(
    monkeypatch: pytest.MonkeyPatch, cells: int, noise: float
) -> None:
    monkeypatch.setattr(groups, "BLOCK_CELLS", cells)
    vectors = people(np.random.default_rng(0), 9, 120, noise)
    forest = strongest_links(vectors, 0.5)
    for threshold in (0.5, 0.6, 0.7, 0.9):
        found = Groups(len(vectors))
        for link in forest.links:
            if link.cosine > threshold:
                assert found.join(link.a, link.b)  # a forest: no link is of no use
        assert found.labels().tolist() == by_definition(vectors, threshold)
    cosines = vectors @ vectors.T - 3 * np.eye(len(vectors))
    assert np.allclose(forest.cosine, cosines.max(axis=1), atol=1e-6)
    assert np.allclose(cosines[np.arange(120), forest.nearest], forest.cosine, atol=1e-6)


def test_equal_vectors_and_few_vectors() -> None:
    forest = strongest_links(np.ones((50, 1), np.float32), 0.5)
    assert len(forest.links) == 49
    assert strongest_links(np.zeros((0, 4), np.float32), 0.5).links == ()
    alone = strongest_links(np.ones((1, 1), np.float32), 0.5)
    assert alone.links == () and alone.nearest.tolist() == [-1]


def test_new_groups_are_named_by_their_first_member_listed_names_before_others() -> None:
    candidates = [(None, "b", "b"), (None, "a", "a"), ("z", "z", "c")]
    assert name_groups([0, 0, 2], candidates, [None] * 3) == {0: "a", 2: "z"}
    assert name_groups([0, 0, 0], candidates, [None] * 3) == {0: "z"}
    video = [(None, "video", "clip-1"), (None, "video", "clip-2")]  # two people in one video
    assert name_groups([0, 1], video, [None, None]) == {0: "video", 1: "clip-2"}


def test_a_group_keeps_its_name_when_members_come() -> None:
    candidates = [(None, name, name) for name in "abc"]
    assert name_groups([0, 0, 0], candidates, [None, "b", "b"]) == {0: "b"}


def test_of_two_groups_that_become_one_the_larger_ones_name_stays_and_the_other_is_not_used_again() -> None:
    candidates = [(None, name, name) for name in "abcde"]
    assert name_groups([0, 0, 0, 3, 4], candidates, ["a", "b", "b", None, "a"]) == {0: "b", 3: "d", 4: "a"}
    assert name_groups([0, 0, 0, 3, 0], candidates, ["a", "b", "b", None, "a"]) == {0: "a", 3: "d"}


def test_a_name_is_given_once() -> None:
    """The one member of a group whose own name another group bears gets a number."""
    named = name_groups([0, 1, 1], [(None, "a", "a"), (None, "b", "b"), (None, "c", "c")], [None, "a", "a"])
    assert named == {1: "a", 0: "a-2"}
