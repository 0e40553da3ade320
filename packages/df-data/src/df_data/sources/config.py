"""Sources and hold-outs of a build, as its config names them."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from df_data.sources.catalogue.layouts import LAYOUTS, LocalName
from df_data.sources.matching import VIDEOS
from df_models.settings import FrozenModel, Location

_IDENTITY = re.compile(r"^(?P<rule>source|folder|top|file|sidecar)?(?:(?P<plus>\+)?people:(?P<people>.+))?$")
SIDECAR = "sidecar"
MOST_HELD_OUT = 16
"""Files or persons that a split without a number holds out at most: as many as df-train's validation measures."""


class SourceConfig(FrozenModel):
    """A folder of videos.

    Attributes:
        name: prefix of the samples' keys and of the persons' names.
        folder: where the files lie; ``${NAME}`` and ``${NAME:-default}`` are replaced from the environment.
        pattern: which files, as a glob relative to the folder: ``{mp4,mov}`` is either, letters match in either case.
            By default every video in it and in the folders in it.
        layout: a dataset that lies in folders as its module knows (``grid``, ``voxceleb2``, ``folder``:
            ``df_data.sources.catalogue.layouts``): its files and persons, and its licence unless another is written. It
            takes the place of ``pattern`` and ``identity``'s rule; ``people:FILE`` can still stand.
        identity: ``source`` (the whole folder shows one person), ``folder`` (one person per sub-folder), ``top``
            (one person per folder of the first level, as GRID and VoxCeleb2 lie), ``file``, or ``sidecar`` (the person
            that the record beside a fetched clip names). ``people:FILE`` takes the person from what ``df-data people``
            found, ``sidecar+people:FILE`` (or another rule before the plus) too: what the rule names as one person
            stays one, faces join more. An input whose person that file leaves open is named by the rule, ``file`` if
            none is given.
        licence: of the videos, kept with every sample; ``sidecar`` takes each clip's own.
        alignments: folder of GRID's ``.align`` files with the words of each sentence, or none.
        captions: words that describe each video, for the model's text: ``sidecar`` (beside a fetched clip) or ``txt``
            (the file of the same name that ends in ``.txt``); a video without has the build's prompt, ``text.prompt``.
        limit: use only the first so many files by name; none for all.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    folder: Location
    pattern: str = VIDEOS
    layout: LocalName | None = None
    identity: str = "file"
    licence: str | None = None
    alignments: Location | None = None
    captions: Literal["sidecar", "txt"] | None = None
    limit: int | None = Field(default=None, ge=1)

    @field_validator("identity")
    @classmethod
    def _is_rule(cls, value: str) -> str:
        match = _IDENTITY.match(value)
        if not value or match is None or (match["people"] and bool(match["rule"]) != bool(match["plus"])):
            raise ValueError(
                "write source, folder, top, file, sidecar, people:FILE, or a rule and a file: top+people:FILE"
            )
        return value

    @model_validator(mode="after")
    def _says_who_and_what(self) -> SourceConfig:
        if self.licence is None and (self.layout is None or LAYOUTS[self.layout].licence is None):
            raise ValueError("write the videos' licence")
        if self.layout is not None and (self.pattern != VIDEOS or self.rule != "file"):
            raise ValueError(
                f"layout={self.layout} says which files and who is in them; leave out pattern and identity"
            )
        return self

    @property
    def rule(self) -> str:
        """The rule of ``identity``, without the people file."""
        match = _IDENTITY.match(self.identity)
        return (match["rule"] if match else None) or "file"

    @property
    def people(self) -> str | None:
        """The people file of ``identity``."""
        match = _IDENTITY.match(self.identity)
        return match["people"] if match else None


class SplitConfig(FrozenModel):
    """Which inputs are held out for validation.

    Attributes:
        by: ``sentence`` holds out single files (the persons are then seen in training), ``identity`` all files of
            some persons.
        val: how many files or persons are held out, half of them at most: those with the smallest sha256 of ``salt``
            and name, of files that last ``clips.val_frames`` where there are such. Null: a tenth, 1 to 16.
        salt: another one gives another choice.
    """

    by: Literal["sentence", "identity"] = "identity"
    val: int | None = Field(default=1, ge=1)
    salt: str = "dualforce"
