"""`df-data people`: a short look at every input, then who is who among all of them.

The looks run like a build's inputs, by the same worker pools, and are kept in a journal beside the people file, so a
killed run goes on. Every run writes the people file anew, whole; people keep the names that it gave them before.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from df_data.build.config import BuildConfig
from df_data.build.pool import WorkerPool, open_pool
from df_data.build.pool.messages import MadeSample, ModelsFactory
from df_data.common.wording import counted
from df_data.format.sample import EncoderRecord
from df_data.people.groups import Forest, Groups, Link, name_groups, strongest_links
from df_data.people.journal import LookEntry, LookJournal, encode_vector, open_journal
from df_data.people.look import SAME_FACE
from df_data.people.worker import VECTOR, PeopleModels
from df_data.sources.listing import FileState, Input, file_state, list_files
from df_data.sources.person import PersonRecord, read_people, write_people
from df_data.stages.identity import FRAMES, SAME_PERSON
from df_models.files import check_output

LOOK = "2"
"""Raised when a look is changed so that its vectors differ: those of the journal are then made anew."""
DOUBTFUL = (0.5, 0.7)
"""Links within decide otherwise at another threshold; a person should look at them."""
MOST_NAMED = 5
"""Groups, and pairs of names for one person, that the summary lists."""


@dataclass(frozen=True)
class Doubt:
    """Two inputs of which a threshold moved a little would say otherwise whether they show one person."""

    first: str
    second: str
    cosine: float
    joined: bool


@dataclass(frozen=True)
class PeopleSummary:
    """What a run ended with.

    Attributes:
        out: the people file.
        inputs: how many there are; ``looked`` how many of them this run looked at.
        people: how many persons were told apart.
        reasons: inputs without a vector by reason.
        largest: the persons with the most inputs, and how many.
        one_person: names that the lists have for what the faces say is one person, by person.
        unlike: persons named by the lists whose faces fall apart, and into how many.
        doubts: links near the threshold, the nearest first.
    """

    out: Path
    inputs: int
    looked: int
    people: int
    reasons: dict[str, int]
    largest: tuple[tuple[str, int], ...]
    one_person: dict[str, tuple[str, ...]]
    unlike: dict[str, int]
    doubts: tuple[Doubt, ...]

    def lines(self, most_doubts: int) -> Iterator[str]:
        """Yield the summary for a person, with at most so many of the doubtful pairs."""
        people = counted(self.people, "person", "people")
        yield f"{self.out}: {counted(self.inputs, 'input')} ({self.looked} looked at now), {people}"
        yield from (f"  without a face to tell by: {number} x {reason}" for reason, number in self.reasons.items())
        if self.largest:
            yield "  most inputs: " + ", ".join(f"{name} ({number})" for name, number in self.largest)
        for name, listed in list(self.one_person.items())[:MOST_NAMED]:
            yield f"  listed as {len(listed)} persons, by their faces one: {', '.join(listed)} -> {name}"
        for name, number in list(self.unlike.items())[:MOST_NAMED]:
            yield f"  listed as one person, by their faces {number}: {name}"
        if self.doubts:
            yield f"  near the threshold of {SAME_PERSON:g}, to be checked by eye: {counted(len(self.doubts), 'pair')}"
        for doubt in self.doubts[:most_doubts]:
            people = "one person" if doubt.joined else "two"
            yield f"    {doubt.cosine:.3f} taken for {people}: {doubt.first}  {doubt.second}"


def find_people(
    config: BuildConfig, out: Path, *, progress: bool = True, make: ModelsFactory = PeopleModels
) -> PeopleSummary:
    """Look at every input of a build and write who is who; go on where a killed run stopped.

    Args:
        out: the people file; the journal of looks lies beside it, as ``<out>.looks``.

    Raises:
        UserError: a folder, model or directory is missing, a file is damaged, or another run writes the same file.
        OSError: the disk is full. What was looked at is kept.
    """
    check_output(out)
    earlier = {name: record.person for name, record in read_people(out).items()} if out.is_file() else {}
    inputs = [made for _, made in list_files(config.sources)]
    config = config.model_copy(update={"device": "cpu", "part": "1/1"})
    with open_journal(out.with_name(out.name + ".looks")) as journal:
        with open_pool(config, make) as pool:
            looked_with = _looked_with(config, pool.records())
            states = {made.name: file_state(made.path) for made in inputs}
            todo = [made for made in inputs if not journal.known(made.name, states[made.name], looked_with)]
            _look(todo, pool, journal, states, looked_with, len(inputs), progress)
        entries = [journal.entries[made.name] for made in inputs]
        records, doubts, faces = who_is_who(inputs, entries, earlier)
        write_people(out, records)
    return _summary(out, records, len(todo), doubts, faces)


def who_is_who(
    inputs: Sequence[Input], entries: Sequence[LookEntry], earlier: Mapping[str, str | None]
) -> tuple[list[PersonRecord], tuple[Doubt, ...], np.ndarray]:
    """Return a record for each input, the doubtful links, and the groups that the faces alone make, int64 [N].

    Inputs are one person if their cosine is above 0.6, if the source lists them as one, or if a chain of such pairs
    connects them: for a split it is worse to have one person on both sides than to count two people as one.

    Args:
        entries: of the same inputs in the same order.
        earlier: the names that inputs had before.
    """
    vectors = [entry.vector_D() for entry in entries]
    seen = [index for index, vector in enumerate(vectors) if vector is not None]
    found = np.stack([vector for vector in vectors if vector is not None]) if seen else np.zeros((0, 1), np.float32)
    forest = strongest_links(found, DOUBTFUL[0])
    links = [Link(seen[link.a], seen[link.b], link.cosine) for link in forest.links]
    by_face, groups = Groups(len(inputs)), Groups(len(inputs))
    for link in links:
        if link.cosine > SAME_PERSON:
            by_face.join(link.a, link.b)
            groups.join(link.a, link.b)
    listed = _listed(inputs)
    for members in listed.values():
        for other in members[1:]:
            groups.join(members[0], other)
    labels = groups.labels()
    records = _records(inputs, entries, labels, _names(inputs, vectors, labels, earlier), seen, forest)
    doubts = (
        Doubt(inputs[link.a].name, inputs[link.b].name, link.cosine, joined=link.cosine > SAME_PERSON)
        for link in links
        if DOUBTFUL[0] <= link.cosine <= DOUBTFUL[1] and not _told(inputs[link.a], inputs[link.b])
    )
    nearest_first = sorted(doubts, key=lambda doubt: abs(doubt.cosine - SAME_PERSON))
    return records, tuple(nearest_first), by_face.labels()


def _look(
    todo: list[Input],
    pool: WorkerPool,
    journal: LookJournal,
    states: Mapping[str, FileState],
    looked_with: str,
    total: int,
    progress: bool,
) -> None:
    vectors: dict[str, bytes] = {}
    counts: Counter[str] = Counter()
    with tqdm(total=total, initial=total - len(todo), desc="videos", unit="video", disable=not progress) as bar:
        for made, outcome in pool.run(todo):
            if isinstance(outcome, MadeSample):
                vectors[made.name] = outcome.members[VECTOR]
                continue
            vector, agreement = vectors.pop(made.name, None), outcome.scores.get("agreement")
            failed = outcome.status == "failed"
            state = states[made.name]
            entry = LookEntry(
                input=made.name,
                bytes=state.bytes,
                mtime_ns=state.mtime_ns,
                looked_with=looked_with,
                vector=None if vector is None or failed else encode_vector(vector),
                faces=int(outcome.scores.get("faces", 0)),
                agreement=None if agreement is None else round(agreement, 4),
                reason="failed" if failed else outcome.reason,
                detail=outcome.error if failed else outcome.detail,
            )
            journal.record(entry)
            counts[entry.reason or "face"] += 1
            bar.set_postfix_str(", ".join(f"{number} {what}" for what, number in counts.most_common()))
            bar.update()


def _looked_with(config: BuildConfig, records: Mapping[str, EncoderRecord]) -> str:
    """Return a hash of all that decides the vectors: the two models and the settings of a look."""
    models = {role: record.sha256 for role, record in sorted(records.items())}
    settings = [LOOK, FRAMES, SAME_FACE, config.stages.faces.other_face]
    return hashlib.sha256(json.dumps([models, settings]).encode()).hexdigest()[:16]


def _listed(inputs: Sequence[Input]) -> dict[str, list[int]]:
    """Return the inputs of each person that a source names."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, made in enumerate(inputs):
        if made.listed:
            found[made.identity].append(index)
    return found


def _told(a: Input, b: Input) -> bool:
    """Whether the lists themselves say that two inputs show one person."""
    return a.listed and b.listed and a.identity == b.identity


def _names(
    inputs: Sequence[Input],
    vectors: Sequence[np.ndarray | None],
    labels: np.ndarray,
    earlier: Mapping[str, str | None],
) -> dict[int, str]:
    """Return the name of each input's person, of those who have one: a face, or a name in the lists."""
    known = [i for i, made in enumerate(inputs) if made.listed or vectors[i] is not None]
    names = name_groups(
        [int(labels[i]) for i in known],
        [(inputs[i].identity if inputs[i].listed else None, inputs[i].identity, inputs[i].key) for i in known],
        [earlier.get(inputs[i].name) for i in known],
    )
    return {i: names[int(labels[i])] for i in known}


def _records(
    inputs: Sequence[Input],
    entries: Sequence[LookEntry],
    labels: np.ndarray,
    names: Mapping[int, str],
    seen: Sequence[int],
    forest: Forest,
) -> list[PersonRecord]:
    near = {i: (int(forest.nearest[k]), float(forest.cosine[k])) for k, i in enumerate(seen) if forest.nearest[k] >= 0}
    records = []
    for index, (made, entry) in enumerate(zip(inputs, entries)):
        other, cosine = near.get(index, (None, None))
        records.append(
            PersonRecord(
                input=made.name,
                bytes=entry.bytes,
                person=names.get(index),
                reason=entry.reason,
                detail=entry.detail,
                listed=made.identity if made.listed else None,
                faces=entry.faces,
                agreement=entry.agreement,
                nearest=None if other is None else inputs[seen[other]].name,
                cosine=None if cosine is None else round(cosine, 4),
            )
        )
    return records


def _summary(
    out: Path, records: Sequence[PersonRecord], looked: int, doubts: tuple[Doubt, ...], faces: np.ndarray
) -> PeopleSummary:
    sizes = Counter(record.person for record in records if record.person is not None)
    listed: dict[str, set[str]] = defaultdict(set)
    looks: dict[str, set[int]] = defaultdict(set)
    for record, face in zip(records, faces.tolist()):
        if record.listed is not None and record.person is not None:
            listed[record.person].add(record.listed)
            if record.faces:
                looks[record.listed].add(face)
    return PeopleSummary(
        out=out,
        inputs=len(records),
        looked=looked,
        people=len(sizes),
        reasons=dict(Counter(record.reason for record in records if record.reason is not None).most_common()),
        largest=tuple(sizes.most_common(MOST_NAMED)),
        one_person={name: tuple(sorted(names)) for name, names in sorted(listed.items()) if len(names) > 1},
        unlike={name: len(found) for name, found in sorted(looks.items()) if len(found) > 1},
        doubts=doubts,
    )
