"""What the page needs to know of every clip, and how to read a chosen one again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from df_data.common.hashing import hash_int
from df_data.format.manifest import Manifest
from df_data.format.measures import measures_of
from df_data.format.sample import Sample
from df_data.format.shards import iter_shard
from df_models.errors import UserError

MOST_CLIPS = 5000
"""A page's distributions are of about so many clips of a split: shards are taken by hash until there are enough."""


@dataclass(frozen=True)
class ClipFacts:
    """A clip's numbers, and where it lies.

    Attributes:
        values: the scores that its build recorded, and after them what its tensors tell
            (:func:`df_data.format.measures.measures_of`); a score stands before a measure of the same name.
    """

    key: str
    path: Path
    identity: str
    values: dict[str, float]


def scan_split(directory: Path, manifest: Manifest) -> list[ClipFacts]:
    """Return the facts of a split's clips, or of :data:`MOST_CLIPS` of them and what more their shards hold.

    Raises:
        UserError: a damaged shard.
    """
    facts: list[ClipFacts] = []
    shards = sorted(manifest.shards, key=lambda entry: hash_int("inspect", entry.name))
    for entry in tqdm(shards, f"reading {manifest.split}", unit="shard", leave=False, disable=None):
        if len(facts) >= MOST_CLIPS:
            break
        path = directory / entry.name
        facts += [
            ClipFacts(sample.key, path, sample.meta.identity, measures_of(sample) | sample.meta.scores)
            for sample in iter_shard(path, video=False)
        ]
    return facts


def read_clips(facts: list[ClipFacts]) -> Iterator[Sample]:
    """Yield the samples of facts, in their order, mp4 and all; each shard is read once.

    Raises:
        UserError: one is not where it was.
    """
    wanted = {(fact.path, fact.key) for fact in facts}
    found: dict[str, Sample] = {}
    for path in dict.fromkeys(fact.path for fact in facts):
        found |= {sample.key: sample for sample in iter_shard(path) if (path, sample.key) in wanted}
    for fact in facts:
        if fact.key not in found:
            raise UserError(f"{fact.path}: sample {fact.key} is no longer there; was the dataset built again?")
        yield found[fact.key]
