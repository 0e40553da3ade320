"""The base of every configuration section, and the type of the settings that name a place."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from df_models.errors import UserError
from df_models.paths import expand_path, expand_variables

RECORDED = "recorded"
"""Key of pydantic's validation context: true while a run's or dataset's own config is read back."""

_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*): (?P<text>.*)$")


class FrozenModel(BaseModel):
    """Base of every configuration section: immutable, unknown keys forbidden, defaults validated too.

    What the `Attributes:` of a class's docstring say of a field is the field's description, unless it has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``clips: true`` is a mistake, not 1, and so is ``seeds: [true]``."""
        if _has_truth_as_a_number(value, _kinds(cls.model_fields[str(info.field_name)].annotation)):
            what = "input" if isinstance(value, bool) else "each item"
            raise PydanticCustomError("number_type", f"{what} should be a number")
        return value

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, text in _attributes(cls.__doc__ or "").items():
            if name in cls.model_fields and cls.model_fields[name].description is None:
                cls.model_fields[name].description = text


def _kinds(annotation: Any) -> Sequence[Any]:
    """The types that an annotation allows: those of a union, or itself."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _has_truth_as_a_number(value: Any, kinds: Sequence[Any]) -> bool:
    """Whether a value, or an item of it at any depth, is true or false where numbers are wanted."""
    if isinstance(value, bool):
        return (int in kinds or float in kinds) and bool not in kinds
    items = [kind for of in kinds if get_origin(of) in (tuple, list) for arg in get_args(of) for kind in _kinds(arg)]
    return isinstance(value, list | tuple) and any(_has_truth_as_a_number(item, items) for item in value)


def _attributes(docstring: str) -> dict[str, str]:
    """The entries of a docstring's `Attributes:` section."""
    _, _, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(section).splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry["names"].split(", ")
            found |= dict.fromkeys(names, entry["text"])
        elif line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return found


def _written(location: str) -> str:
    return getattr(location, "written", location)


class Location(str):
    """A path, URL, pipe or `NAME:PATH` in a configuration: `~` and `${NAME}` are replaced when it is read.

    The string itself is the expanded one, to be used; `written` is what the user wrote, and what a recorded
    configuration keeps, so that a run stays portable. Relative paths start at the cwd.
    """

    written: str

    def __new__(cls, text: str | os.PathLike[str]) -> Location:
        """Raises UserError: a variable in it is not set and has no default."""
        written = os.fspath(text)
        return cls._of(os.path.expanduser(expand_variables(written)), written)

    @classmethod
    def _of(cls, expanded: str, written: str) -> Location:
        location = super().__new__(cls, expanded)
        location.written = written
        return location

    @classmethod
    def recorded(cls, text: str | os.PathLike[str]) -> Location:
        """One that a run or build wrote, perhaps elsewhere: it stays as it is if a variable of it is not set here."""
        try:
            return cls(text)
        except UserError:
            return cls._of(os.fspath(text), os.fspath(text))

    @property
    def path(self) -> Path:
        """As a path on this machine; raises UserError if one of its variables is still not set."""
        return expand_path(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.with_info_plain_validator_function(cls._validate, serialization=written)

    @classmethod
    def _validate(cls, value: Any, info: ValidationInfo) -> Location:
        value = value.written if isinstance(value, Location) else value  # a default: its variables as they are now
        if not isinstance(value, str | os.PathLike):
            raise PydanticCustomError("location_type", "write a path as text")
        if not os.fspath(value):
            raise PydanticCustomError("location_type", "this path is empty; write one, or . for the current directory")
        return cls.recorded(value) if info.context and info.context.get(RECORDED) else cls(value)
