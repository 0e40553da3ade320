"""Where a build's videos come from: folders of files, their names, persons, licences and word times."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from df_data.config import FrozenModel
from df_models.errors import UserError

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_NOT_KEY = re.compile(r"[^A-Za-z0-9_-]+")
GRID_TICKS_PER_SECOND = 25_000


class SourceConfig(FrozenModel):
    """A folder of videos.

    Attributes:
        name: prefix of the samples' keys and of the persons' names.
        folder: where the files lie; ``${NAME}`` and ``${NAME:-default}`` are replaced from the environment.
        pattern: which files, as a glob relative to the folder.
        identity: ``source`` (the whole folder shows one person), ``folder`` (one person per sub-folder) or ``file``.
        licence: of the videos, kept with every sample.
        alignments: folder of GRID's ``.align`` files with the words of each sentence, or none.
        limit: use only the first so many files by name; none for all.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    folder: str
    pattern: str = "*.mp4"
    identity: Literal["source", "folder", "file"] = "file"
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
    """

    name: str
    key: str
    path: Path
    identity: str
    licence: str
    split: str
    alignment: Path | None


def expand_path(text: str) -> Path:
    """Replace ``${NAME}`` and ``${NAME:-default}`` by environment variables; relative paths start at the cwd.

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

    return Path(_VARIABLE.sub(value, text)).expanduser()


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
    return [
        Input(
            m.name,
            m.key,
            m.path,
            m.identity,
            m.licence,
            "val" if _group(m, split) in held_out else "train",
            m.alignment,
        )
        for m in found
    ]


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
    person = {"source": "", "folder": "-" + relative.parent.as_posix(), "file": "-" + stem}[source.identity]
    return Input(
        name=f"{source.name}/{relative.as_posix()}",
        key=_plain(f"{source.name}-{stem}"),
        path=path,
        identity=_plain(source.name + person),
        licence=source.licence,
        split="",
        alignment=alignments / f"{path.stem}.align" if alignments else None,
    )


def _plain(text: str) -> str:
    return _NOT_KEY.sub("_", text)[:120]


def _group(made: Input, split: SplitConfig) -> str:
    return made.name if split.by == "sentence" else made.identity


def _hash(salt: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()
