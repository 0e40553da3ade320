"""What the records beside the shards must agree in: the ledger, the persons of each split, and what was left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from df_data.format.dataset import CONFIG_NAME
from df_data.format.ledger import LEDGER_NAME, Ledger, StagedSample
from df_data.format.shards import STAGING_NAME, shard_name
from df_models.errors import UserError
from df_models.settings import read_tree

NAMED = 5
"""At most so many persons are named in a line."""


@dataclass(frozen=True)
class SampleFacts:
    """What the records say about a sample: its place, its piece, its person."""

    key: str
    shard: str
    bytes: int
    sha256: str
    identity: str


@dataclass(frozen=True)
class SplitFacts:
    """The samples of a split by key; `unread` shards could not be read, so nothing is said of their samples."""

    split: str
    complete: bool
    samples: Mapping[str, SampleFacts]
    unread: frozenset[str]


def ledger_problems(root: Path, splits: Iterable[SplitFacts]) -> list[str]:
    """Return where ledger and shards disagree; or that there is no ledger.

    The ledger is read as it stands: a torn last line is a problem, not something to repair.
    """
    path = root / LEDGER_NAME
    if not path.is_file():
        return [f"{path}: missing; copy it from where the dataset was made (it says what became of every input)"]
    if not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        return [f"{path}: its last line is torn; run the build again, which does that input anew"]
    try:
        entries = Ledger(path).of_status("accepted")
    except UserError as error:
        return [str(error)]
    splits = list(splits)
    known = {facts.split for facts in splits}
    problems = [
        f"{path}: {entry.input} was accepted into the split {entry.split!r}, which is not there"
        for entry in entries
        if entry.split not in known
    ]
    for facts in splits:
        told = {staged.key: staged for entry in entries if entry.split == facts.split for staged in entry.samples}
        problems += [f"{path}: {line}" for line in _disagreements(told, facts)]
    return problems


def _disagreements(told: Mapping[str, StagedSample], facts: SplitFacts) -> Iterator[str]:
    for key, staged in told.items():
        name, found = shard_name(staged.shard), facts.samples.get(key)
        if found is None:
            if facts.complete and name not in facts.unread:
                yield f"sample {key} of {facts.split} was accepted, but stands in no shard"
        elif found.shard != name:
            yield f"sample {key} of {facts.split} belongs in {name}, but stands in {found.shard}"
        elif (found.bytes, found.sha256) != (staged.bytes, staged.sha256):
            yield f"sample {key} of {facts.split} is not the one that was accepted: its bytes differ"
    for key, found in facts.samples.items():
        if key not in told:
            yield f"sample {key} of {facts.split} stands in {found.shard}, but no input was accepted with it"


def identity_problems(root: Path, splits: Iterable[SplitFacts]) -> list[str]:
    """Return the persons that are in more than one split, unless sentences were held out instead of persons."""
    if _holds_out_sentences(root):
        return []
    homes: dict[str, set[str]] = {}
    for facts in splits:
        for sample in facts.samples.values():
            homes.setdefault(sample.identity, set()).add(facts.split)
    both = sorted(name for name, where in homes.items() if len(where) > 1)
    if not both:
        return []
    more = f" and {len(both) - NAMED} more" if len(both) > NAMED else ""
    return [f"{root}: persons in more than one split: {', '.join(both[:NAMED])}{more}"]


def leftover_problems(root: Path, splits: Iterable[SplitFacts]) -> list[str]:
    """Return files that a killed writer left; the staging directory belongs there while a split is not complete."""
    found = sorted({*root.glob(".*.tmp*"), *root.glob("*/.*.tmp*"), *root.glob("*/*.tmp")})
    problems = [f"{path}: left by a writer that was killed; delete it" for path in found]
    staging = root / STAGING_NAME
    if staging.exists() and all(facts.complete for facts in splits):
        problems.append(f"{staging}: left by a build though all splits are complete; delete it")
    return problems


def _holds_out_sentences(root: Path) -> bool:
    """Whether a dataset's config says so: `split.by` of a build, `person` of a synthetic corpus."""
    path = root / CONFIG_NAME
    if not path.is_file():
        return False
    told = read_tree(path)
    split = told.get("split")
    return told.get("person") is not None or (isinstance(split, dict) and split.get("by") == "sentence")
