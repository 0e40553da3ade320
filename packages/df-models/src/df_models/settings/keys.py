"""The shape of a configuration class: its sections, keys and defaults."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from df_models.settings.tree import by_index


def model_classes(annotation: Any) -> list[type[BaseModel]]:
    """The model classes that a field of this annotation may hold directly (unions and Annotated looked through)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return model_classes(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for argument in typing.get_args(annotation) for found in model_classes(argument)]
    return []


def item_classes(annotation: Any) -> list[type[BaseModel]]:
    """The model classes inside a list, tuple or dict annotation."""
    found = model_classes(annotation)
    if not found:
        for argument in typing.get_args(annotation):
            found = found + item_classes(argument)
    return found


def _section_tree(section: BaseModel, over: Any) -> dict[str, Any]:
    """What a section was built with by key, its own sections as mappings in turn (choices between classes left whole).

    A value that its class gives anyway is left out, so that it does not count as given (`model_fields_set`).
    """
    over = over if isinstance(over, Mapping) else {}
    tree: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel) and model_classes(field.annotation) == [type(value)]:
            tree[name] = _section_tree(value, over.get(name))
        elif by_index(over.get(name)) and isinstance(value, list | tuple):
            tree[name] = _items(value)
        elif name in section.model_fields_set:
            tree[name] = value
    return tree


def default_tree(cls: type[BaseModel], over: Mapping[str, Any]) -> dict[str, Any]:
    """Default sections as mappings, so that an override of one key of a section keeps the section's other defaults.

    Args:
        over: what will be laid over it; lists of which it changes single items (:func:`by_index`) are there too.
    """
    tree: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel) and model_classes(field.annotation) == [type(default)]:
            tree[name] = _section_tree(default, over.get(name))
        elif by_index(over.get(name)) and isinstance(default, list | tuple):
            tree[name] = _items(default)
    return tree


def _items(values: Sequence[Any]) -> list[Any]:
    return [value.model_dump() if isinstance(value, BaseModel) else value for value in values]


def all_keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a configuration class, sections before their members."""
    keys: list[str] = []
    for name, field in cls.model_fields.items():
        keys.append(prefix + name)
        for section in model_classes(field.annotation):
            keys += all_keys(section, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))
