"""Where a build's videos come from: folders of files, their names, persons, licences and word times."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from df_data.config import FrozenModel
from df_data.fetch.records import Sidecar, read_sidecar
from df_models.errors import UserError

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_NOT_KEY = re.compile(r"[^A-Za-z0-9_-]+")
GRID_TICKS_PER_SECOND = 25_000
LONGEST_NAME = 72
"""Letters of an input's key; the samples made of it add up to 16 to it, and a sample's key has 88 at most."""
SIDECAR = "sidecar"

Provenance = str | int | float | bool | list[float] | None
"""What a sample's metadata may hold of where it comes from."""


class SourceConfig(FrozenModel):
    """A folder of videos.

    Attributes:
        name: prefix of the samples' keys and of the persons' names.
        folder: where the files lie; ``${NAME}`` and ``${NAME:-default}`` are replaced from the environment.
        pattern: which files, as a glob relative to the folder.
        identity: ``source`` (the whole folder shows one person), ``folder`` (one person per sub-folder), ``top``
            (one person per folder of the first level, as GRID and VoxCeleb2 lie), ``file``, or ``sidecar`` (the person
            that the record beside a fetched clip names).
        licence: of the videos, kept with every sample; ``sidecar`` takes each clip's own.
        alignments: folder of GRID's ``.align`` files with the words of each sentence, or none.
        limit: use only the first so many files by name; none for all.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    folder: str
    pattern: str = "*.mp4"
    identity: Literal["source", "folder", "top", "file", "sidecar"] = "file"
    licence: str
    alignments: str | None = None
    limit: int | None = Field(default=None, ge=1)


class SplitConfig(FrozenModel):
    """Which inputs are held out for validation.

    Attributes:
        by: ``sentence`` holds out single files (the persons are then seen in training), ``identity`` all files of
            some persons.
        val: how many files or persons are held out: those with the smallest sha256 of ``salt`` and name.
        salt: another one gives another choice.
    """

    by: Literal["sentence", "identity"] = "identity"
    val: int = Field(default=1, ge=1)
    salt: str = "dualforce"


@dataclass(frozen=True)
class Input:
    """One video file of a build.

    Attributes:
        name: stable name in the ledger, ``source/relative/path``.
        key: the same as letters, digits, ``_`` and ``-``, for sample keys.
        provenance: where a fetched clip was cut from, for the sample's metadata.
    """

    name: str
    key: str
    path: Path
    identity: str
    licence: str
    split: str
    alignment: Path | None
    provenance: Mapping[str, Provenance] = field(default_factory=dict)


def expand_path(text: str) -> Path:
    """Return a path with its variables replaced (:func:`expand_variables`); relative ones start at the cwd."""
    return Path(expand_variables(text)).expanduser()


def expand_variables(text: str) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}`` by environment variables.

    Raises:
        UserError: a variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise UserError(
                f"{text}: the environment variable {match['name']} is not set; set it or write the path out"
            )
        return found

    return _VARIABLE.sub(value, text)


def list_inputs(sources: tuple[SourceConfig, ...], split: SplitConfig) -> list[Input]:
    """Return the inputs of all sources in order of name, each with its split.

    Raises:
        UserError: a folder is missing or holds no matching file, two inputs have one key, or the hold-out takes all.
    """
    found = [made for source in sources for made in _inputs_of(source)]
    keys: dict[str, str] = {}
    for made in found:
        if made.key in keys:
            raise UserError(f"{keys[made.key]} and {made.name} would get the same key {made.key!r}; rename one")
        keys[made.key] = made.name
    groups = sorted({_group(made, split) for made in found}, key=lambda name: _hash(split.salt, name))
    if len(groups) <= split.val:
        raise UserError(f"split.val={split.val} would hold out all {len(groups)} of the inputs (by {split.by})")
    held_out = set(groups[: split.val])
    return [replace(made, split="val" if _group(made, split) in held_out else "train") for made in found]


def read_words(path: Path) -> list[tuple[str, float, float]]:
    """Read GRID's word times as (word, start, end) in seconds, silences left out.

    Raises:
        UserError: no such file, or lines that are not ``start end word`` in 1/25000 s.
    """
    try:
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        words = [
            (word, int(start) / GRID_TICKS_PER_SECOND, int(end) / GRID_TICKS_PER_SECOND) for start, end, word in rows
        ]
    except FileNotFoundError as error:
        raise UserError(f"no word times {path}; set alignments: null to do without") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a GRID alignment (lines of: start end word)") from error
    return [entry for entry in words if entry[0] not in ("sil", "sp")]


def _inputs_of(source: SourceConfig) -> list[Input]:
    folder = expand_path(source.folder)
    if not folder.is_dir():
        raise UserError(f"source {source.name!r}: no folder {folder}; give another `folder`, or set the variable in it")
    paths = sorted(path for path in folder.glob(source.pattern) if path.is_file())[: source.limit]
    if not paths:
        raise UserError(f"source {source.name!r}: no file in {folder} matches {source.pattern!r}")
    alignments = expand_path(source.alignments) if source.alignments else None
    return [_input(source, folder, path, alignments) for path in paths]


def _input(source: SourceConfig, folder: Path, path: Path, alignments: Path | None) -> Input:
    relative = path.relative_to(folder)
    stem = relative.with_suffix("").as_posix()
    sidecar = read_sidecar(path) if SIDECAR in (source.identity, source.licence) else None
    return Input(
        name=f"{source.name}/{relative.as_posix()}",
        key=_plain(f"{source.name}-{stem}"),
        path=path,
        identity=_plain(source.name + _person(source, relative, sidecar)),
        licence=sidecar.licence if sidecar and source.licence == SIDECAR else source.licence,
        split="",
        alignment=alignments / f"{path.stem}.align" if alignments else None,
        provenance=_provenance(sidecar) if sidecar else {},
    )


def _person(source: SourceConfig, relative: Path, sidecar: Sidecar | None) -> str:
    """What is added to the source's name to name the person."""
    if source.identity == "top" and len(relative.parts) < 2:
        raise UserError(
            f"source {source.name!r}: {relative} lies in no folder, so identity: top does not say who it is; "
            "give a pattern such as '*/*.mp4'"
        )
    return {
        "source": "",
        "folder": "-" + relative.parent.as_posix(),
        "top": "-" + relative.parts[0],
        "file": "-" + relative.with_suffix("").as_posix(),
        SIDECAR: "-" + sidecar.person if sidecar else "",
    }[source.identity]


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


def _plain(text: str) -> str:
    """Return a text as letters, digits, ``_`` and ``-``; a long one is cut, and told apart from its like by a hash."""
    plain = _NOT_KEY.sub("_", text)
    if len(plain) <= LONGEST_NAME:
        return plain
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{plain[: LONGEST_NAME - 13]}-{digest}"


def _group(made: Input, split: SplitConfig) -> str:
    return made.name if split.by == "sentence" else made.identity


def _hash(salt: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()
