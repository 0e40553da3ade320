"""A reference of configuration keys, generated from the models: key, type, default, meaning."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from df_models.settings.base import Location
from df_models.settings.keys import item_classes, model_classes

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Location: "path"}
_BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))


class Key(NamedTuple):
    """One key of a configuration, as the reference tells it; a section's `default` is empty."""

    dotted: str
    type: str
    default: str
    meaning: str


def keys_of(cls: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every key of a configuration, sections before their members; members of a list's items as `key[].member`."""
    for name, field in cls.model_fields.items():
        dotted = prefix + name
        sections, items = model_classes(field.annotation), item_classes(field.annotation)
        meaning = meaning_of(field) or (_first_sentence(items[0]) if items else "")
        yield Key(dotted, kind_of(field), _default(field, bool(sections)), meaning)
        for section in items:
            yield from keys_of(section, f"{dotted}." if sections else f"{dotted}[].")


def meaning_of(field: FieldInfo) -> str:
    """A field's description, in Markdown: docstrings' roles and double backticks become single ones."""
    return re.sub(r"(?::\w+:)?(`+)~?([^`]+)\1", r"`\2`", field.description or "")


def kind_of(field: FieldInfo) -> str:
    """A field's type and bounds in plain words, such as ``whole number, at least 1``."""
    return type_of(field.annotation) + _bounds(field)


def default_of(field: FieldInfo) -> str:
    """A field's default as one would write it in a command, or ``required``."""
    default = field.get_default(call_default_factory=True, validated_data={})
    return f"{default:g}" if isinstance(default, float) else _default(field, section=False).strip('`"')


def type_of(annotation: Any) -> str:
    """A field's type in plain words, such as ``whole number or null``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_of(argument) for argument in arguments))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (tuple, list):
        return _sequence(arguments)
    if origin is dict or annotation is dict:
        return "mapping"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _sequence(arguments: tuple[Any, ...]) -> str:
    inner = [argument for argument in arguments if argument is not Ellipsis]
    kinds = " or ".join(dict.fromkeys(type_of(argument) for argument in inner))
    count = "" if Ellipsis in arguments or len(inner) == len(arguments) == 1 else f"{len(inner)} "
    return f"list of {count}{kinds}"


def _bounds(field: FieldInfo) -> str:
    told = [
        f"{words} {getattr(bound, attribute):g}"
        for kind, attribute, words in _BOUNDS
        for bound in field.metadata
        if isinstance(bound, kind)
    ]
    told += [f"a multiple of {bound.multiple_of}" for bound in field.metadata if isinstance(bound, MultipleOf)]
    told += [f"{bound.min_length} or more" for bound in field.metadata if isinstance(bound, MinLen)]
    return f", {', '.join(told)}" if told else ""


def _default(field: FieldInfo, section: bool) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel) and section:
        return ""
    return f"`{json.dumps(_plain(default), ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Location):
        return value.written
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _first_sentence(cls: type[BaseModel]) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def markdown(title: str, cls: type[BaseModel]) -> str:
    """A section of the reference: a heading and a table of all keys of a configuration."""
    rows = [
        f"| `{key.dotted}` | {_cell(key.type)} | {_cell(key.default)} | {_cell(key.meaning)} |" for key in keys_of(cls)
    ]
    return "\n".join([f"## {title}", "", "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
