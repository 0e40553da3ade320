"""The people file: one JSON line per input of a build, saying which person it shows and what that rests on.

``df-data people`` writes it; a source with ``identity: people:FILE`` reads it (:mod:`df_data.sources.listing`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import FrozenModel

HOW_TO_MEND = "delete it and run df-data people again; the journal keeps the looks, names are given anew"


class PersonRecord(FrozenModel):
    """Who one input shows.

    Attributes:
        input: the input's stable name, as in the ledger.
        bytes: size of its file; a build refuses a file that has another one since.
        person: the person, one name in all sources; None where no single face says who it is.
        reason: of a person None: ``no_face``, ``more_than_one_face``, ``different_people``, ``no_video_track``,
            ``failed``; also where the person is known from the lists alone.
        detail: the same in one line for a person.
        listed: who it is by the source's own rule (its list, its folder), where that names a person.
        faces: frames whose faces the vector is the mean of.
        agreement: least cosine of two of those faces; None for fewer than two.
        nearest: the input whose vector is nearest, of whatever person.
        cosine: that of the two vectors; persons are joined above 0.6 (:data:`df_data.stages.identity.SAME_PERSON`).
    """

    input: str
    bytes: int
    person: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,100}$")
    reason: str | None = None
    detail: str | None = None
    listed: str | None = None
    faces: int = 0
    agreement: float | None = None
    nearest: str | None = None
    cosine: float | None = None


def read_people(path: Path) -> dict[str, PersonRecord]:
    """Return the records of a people file by the inputs' names.

    Raises:
        UserError: there is none, or a line of it is damaged.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(
            f"no people file {path}; make it with: df-data people --config CONFIG --out {path}, "
            "or set another `identity`"
        ) from error
    found: dict[str, PersonRecord] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = PersonRecord.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{path}: line {number} is damaged; {HOW_TO_MEND}") from error
        if record.input in found:
            raise UserError(f"{path}: line {number}: {record.input} is a duplicate; {HOW_TO_MEND}")
        found[record.input] = record
    return found


def write_people(path: Path, records: Iterable[PersonRecord]) -> None:
    """Write a people file, whole or not at all; equal records give equal bytes."""
    lines = (
        json.dumps(record.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False) + "\n"
        for record in records
    )
    atomic_write(path, "".join(lines))
