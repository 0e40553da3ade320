"""The files of a build's sources, each with its name, person, licence and split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from df_data.sources.catalogue import CatalogueClip, read_catalogue
from df_data.sources.catalogue.clip import one_line
from df_data.sources.config import SIDECAR, SourceConfig, SplitConfig
from df_data.sources.division import Division, fingerprint_of, read_division
from df_data.sources.duplicates import same_contents
from df_data.sources.holdout import held_out
from df_data.sources.matching import matching
from df_data.sources.names import marked, plain, printable, stem
from df_data.sources.person import PersonRecord, read_people
from df_data.sources.records import Sidecar, read_sidecar
from df_models.errors import UserError
from df_models.settings import expand_path
from df_models.time import FPS

LONGEST_CAPTION_FILE = 1 << 20
"""Bytes: what is longer is no caption."""
_STRETCH = re.compile(r"(.+)-s[0-9]{4,}")


Provenance = str | int | float | bool | list[float] | None
"""What a sample's metadata may hold of where it comes from."""


@dataclass(frozen=True)
class Input:
    """One video file of a build.

    Attributes:
        name: stable name in the ledger, ``source/relative/path``, with escapes for what cannot be printed.
        key: the same as letters, digits, ``_`` and ``-``, for sample keys.
        provenance: where a fetched clip was cut from, for the sample's metadata.
        caption: words that describe the video, or None: the build's prompt does.
        listed: whether the source names the person: by its list or its folders, not by one file or video.
        same_as: name of the earlier input whose file holds the very same bytes, if there is one.
    """

    name: str
    key: str
    path: Path
    identity: str
    licence: str
    split: str
    alignment: Path | None
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    caption: str | None = None
    listed: bool = False
    same_as: str | None = None


def list_inputs(
    sources: tuple[SourceConfig, ...], split: SplitConfig, val_frames: int | None = None, kept: Path | None = None
) -> list[Input]:
    """Return the inputs of all sources in order of name, each with its split.

    Args:
        val_frames: what is held out is chosen among files that last so many frames, as far as there are such.
        kept: directory of the dataset, which may keep how these inputs were divided when its build began.

    Raises:
        UserError: a folder is missing or holds no matching file, one file is matched twice, all inputs are of one
            person and persons are held out, a people file is missing or does not tell of an input, or a file cannot be
            read on which the split depends.
    """
    files = {source.people for source in sources if source.people is not None}
    people = {file: read_people(expand_path(file)) for file in sorted(files)}
    listed = list_files(sources)
    named = [made if source.people is None else _named(made, source, people) for source, made in listed]
    of = fingerprint_of(((made.name, made.identity) for made in named), split, least_seconds(val_frames))
    division = None if kept is None else read_division(kept, of, {made.name for made in named})
    if division is None:
        division = _divided(named, split, val_frames, of)
    val = set(division.val)
    return [
        replace(made, split="val" if made.name in val else "train", same_as=division.copies.get(made.name))
        for made in named
    ]


def division_of(inputs: Iterable[Input], split: SplitConfig, val_frames: int | None) -> Division:
    """Return how inputs are divided, to be kept."""
    inputs = list(inputs)
    return Division(
        of=fingerprint_of(((made.name, made.identity) for made in inputs), split, least_seconds(val_frames)),
        val=tuple(made.name for made in inputs if made.split == "val"),
        copies={made.name: made.same_as for made in inputs if made.same_as is not None},
    )


def least_seconds(val_frames: int | None) -> float:
    """Return how long an input lasts of which a whole validation clip can be made."""
    return (val_frames or 0) / FPS


def grouped(inputs: Sequence[Input], split: SplitConfig) -> dict[str, list[Input]]:
    """Return inputs by what is held out together: persons, or single files; copies go with what they are copies of."""
    of = {made.name: made.name if split.by == "sentence" else made.identity for made in inputs}
    groups: dict[str, list[Input]] = defaultdict(list)
    for made in inputs:
        groups[of[made.same_as or made.name]].append(made)
    return dict(groups)


def originals(groups: Mapping[str, Sequence[Input]]) -> dict[str, list[Path]]:
    """Return the files of groups, each once."""
    return {name: [made.path for made in members if made.same_as is None] for name, members in groups.items()}


def _divided(named: Sequence[Input], split: SplitConfig, val_frames: int | None, of: str) -> Division:
    """Look into the inputs: which are copies, and which groups are held out."""
    found = _told_from_copies(named)
    groups = grouped(found, split)
    val = held_out(originals(groups), split, least_seconds(val_frames))
    return Division(
        of=of,
        val=tuple(made.name for name in sorted(val) for made in groups[name]),
        copies={made.name: made.same_as for made in found if made.same_as is not None},
    )


def _told_from_copies(found: Sequence[Input]) -> list[Input]:
    """Return inputs of which those that are an earlier one's copy say so."""
    same = same_contents(dict.fromkeys(made.path for made in found))  # several sources may name one file
    first: dict[Path, str] = {}
    for made in found:
        first.setdefault(same.get(made.path, made.path), made.name)
    names = [first[same.get(made.path, made.path)] for made in found]
    return [made if made.name == name else replace(made, same_as=name) for made, name in zip(found, names)]


def list_files(sources: tuple[SourceConfig, ...]) -> list[tuple[SourceConfig, Input]]:
    """Return the inputs of all sources as their rules alone name them, people files and splits left out.

    Raises:
        UserError: a folder is missing or holds no matching file, or one file is matched twice.
    """
    listed = [(source, made) for source in sources for made in _inputs_of(source)]
    return list(zip((source for source, _ in listed), _told_apart([made for _, made in listed])))


class FileState(NamedTuple):
    """By what a changed file is known; zeros for one that cannot be read (a dangling link), which the build records."""

    bytes: int
    mtime_ns: int


def file_state(path: Path) -> FileState:
    """Return a file's size and time of change."""
    try:
        found = path.stat()
    except OSError:
        return FileState(0, 0)
    return FileState(found.st_size, found.st_mtime_ns)


def _named(made: Input, source: SourceConfig, people: Mapping[str, Mapping[str, PersonRecord]]) -> Input:
    """Return an input with the person that its source's people file names.

    One that the file leaves open (no face, several) keeps its rule's: the build itself refuses nearly all of those,
    and each must come to its ledger line.
    """
    assert source.people is not None
    record = people[source.people].get(made.name)
    again = f"run df-data people --config CONFIG --out {source.people} again (it looks only at what is new)"
    if record is None:
        raise UserError(f"{made.name} is not in the people file {source.people}; {again}")
    if file_state(made.path).bytes != record.bytes:
        raise UserError(f"{made.name} has another size than when people were looked for; {again}")
    return made if record.person is None else replace(made, identity=record.person)


def _inputs_of(source: SourceConfig) -> list[Input]:
    folder = source.folder.path
    if not folder.is_dir():
        raise UserError(f"source {source.name!r}: no folder {folder}; give another `folder`, or set the variable in it")
    alignments = source.alignments.path if source.alignments else None
    if source.layout is not None:
        clips = _catalogued(source, folder)[: source.limit]
        return [_input(source, folder, path, alignments, clip) for path, clip in clips]
    try:
        paths = matching(folder, source.pattern)[: source.limit]
    except UserError as error:
        raise UserError(f"source {source.name!r}: {error}") from error
    return [_input(source, folder, path, alignments) for path in paths]


def _catalogued(source: SourceConfig, folder: Path) -> list[tuple[Path, CatalogueClip]]:
    """The files of a source that lies as a dataset does.

    Raises:
        UserError: some do not lie so.
    """
    assert source.layout is not None
    found = read_catalogue(source.layout, folder)
    if found.bad:
        raise UserError(
            f"source {source.name!r}: {len(found.bad)} files do not lie as {source.layout} does, the first is "
            f"{found.bad[0]}; move them, or give pattern and identity in place of layout"
        )
    return [(clip.path, clip) for clip in found.clips if clip.path is not None]


def _input(
    source: SourceConfig, folder: Path, path: Path, alignments: Path | None, clip: CatalogueClip | None = None
) -> Input:
    relative = path.relative_to(folder)
    sidecar = read_sidecar(path) if SIDECAR in (source.rule, source.licence, source.captions) else None
    return Input(
        name=f"{source.name}/{printable(relative.as_posix())}",
        key=f"{source.name}-{printable(stem(relative))}",
        path=path,
        identity=source.name + printable(_person(source, relative, sidecar, clip)),
        licence=_licence(source, sidecar, clip),
        split="",
        alignment=alignments / f"{path.stem}.align" if alignments else None,
        provenance=_provenance(sidecar) if sidecar else {},
        caption=_caption(source, path, sidecar),
        listed=_person_listed(source, sidecar, clip),
    )


def _caption(source: SourceConfig, path: Path, sidecar: Sidecar | None) -> str | None:
    """The words beside a video, if its source has such and they are there.

    Raises:
        UserError: the file of words is no text, or holds none or too many.
    """
    if source.captions != "txt":
        return sidecar.caption if sidecar is not None and source.captions == SIDECAR else None
    words = path.with_suffix(".txt")
    if not words.is_file():
        return None
    try:
        if words.stat().st_size > LONGEST_CAPTION_FILE:
            raise ValueError(f"it has more than {LONGEST_CAPTION_FILE} bytes")
        return one_line(words.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{words}: {error}; mend or remove it, or leave `captions` out") from error


def _licence(source: SourceConfig, sidecar: Sidecar | None, clip: CatalogueClip | None) -> str:
    if sidecar is not None and source.licence == SIDECAR:
        return sidecar.licence
    licence = source.licence or (clip.licence if clip is not None else None)
    assert licence is not None
    return licence


def _person_listed(source: SourceConfig, sidecar: Sidecar | None, clip: CatalogueClip | None) -> bool:
    if clip is not None:
        return clip.person is not None
    return sidecar.person_listed if sidecar is not None and source.rule == SIDECAR else source.rule != "file"


def _told_apart(found: list[Input]) -> list[Input]:
    """Return inputs with keys and persons of plain letters; where two would then be one, both get a hash of their name.

    (Names in other scripts are all ``_`` in plain letters; ``a.mp4`` and ``a.mkv`` differ in what a key leaves out;
    ``a-s0001`` is what samples of a later stretch of ``a`` are called.)

    Raises:
        UserError: two sources match one file under one name.
    """
    keys = Counter(plain(made.key) for made in found)
    persons = Counter(plain(identity) for identity in {made.identity for made in found})
    twice = [name for name, count in Counter(made.name for made in found).items() if count > 1]
    if twice:
        raise UserError(f"{twice[0]} is matched twice; give the sources different names")

    def told(text: str, among: Counter[str], by: str) -> str:
        short = plain(text)
        return short if among[short] == 1 else marked(short, by)

    def key(made: Input) -> str:
        stretch = _STRETCH.fullmatch(plain(made.key))
        as_another = stretch is not None and stretch[1] in keys
        return marked(plain(made.key), made.name) if as_another else told(made.key, keys, made.name)

    return [replace(made, key=key(made), identity=told(made.identity, persons, made.identity)) for made in found]


def _person(source: SourceConfig, relative: Path, sidecar: Sidecar | None, clip: CatalogueClip | None) -> str:
    """What is added to the source's name to name the person."""
    if clip is not None and clip.person is not None:
        return "-" + clip.person
    if source.rule == "top" and len(relative.parts) < 2:
        raise UserError(
            f"source {source.name!r}: {relative} lies in no folder, so identity: top does not say who it is; "
            "give a pattern such as '*/*.mp4'"
        )
    return {
        "source": "",
        "folder": "-" + relative.parent.as_posix(),
        "top": "-" + relative.parts[0],
        "file": "-" + stem(relative),
        SIDECAR: "-" + sidecar.person if sidecar else "",
    }[source.rule]


def _provenance(sidecar: Sidecar) -> dict[str, Provenance]:
    """What a sample says of the clip that it was made from."""
    return {
        "dataset": sidecar.dataset,
        "url": sidecar.url,
        "source_start_s": sidecar.start_s,
        "source_end_s": sidecar.end_s,
        "source_crop": [float(v) for v in sidecar.crop] if sidecar.crop else None,
        "source_height": sidecar.source_height,
        "person_listed": sidecar.person_listed,
        "video_licence": sidecar.video_licence,
        "clip_sha256": sidecar.sha256,
        "fetched_with": sidecar.tool,
    }
