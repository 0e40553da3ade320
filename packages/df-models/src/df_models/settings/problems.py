"""What pydantic found wrong with a configuration, in one line per key, with the key's full dotted name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from df_models.settings.keys import all_keys, item_classes

_MOST_HINTS = 4
"""More than these say no more than the list of all keys does."""
_THERE_ARE = "; the keys there are: "
_PLAIN = dict.fromkeys(("tuple_type", "list_type"), "write a list: brackets, with commas between its items")
"""For what pydantic says in Python's terms."""


class Problem(NamedTuple):
    """What is wrong with a key, whose dotted name the line holds; empty for the configuration as a whole.

    Of a section that there is not, `key` is the first that was given in it: an override says where it came from.
    """

    key: str
    line: str


def problems(cls: type[BaseModel], error: ValidationError) -> list[Problem]:
    """One for each wrong key.

    A list that is "too short" because pydantic left a wrong item out is no mistake of its own.
    """
    items = error.errors()
    inside = {item["loc"][:depth] for item in items for depth in range(1, len(item["loc"]))}
    own = [item for item in items if item["type"] != "too_short" or item["loc"] not in inside]
    return _each_list_once(dict.fromkeys(_problem(cls, item) for item in own))


def _each_list_once(found: Iterable[Problem]) -> list[Problem]:
    """The problems; the keys of a section are listed with the first that needs them."""
    told: set[str] = set()
    kept = []
    for problem in found:
        line, listed, _ = problem.line.partition(_THERE_ARE)
        section = line.rpartition(".")[0]
        kept.append(problem._replace(line=line) if listed and section in told else problem)
        told |= {section} if listed else set()
    return kept


def _walk(cls: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys a user would write for a pydantic location (union tags dropped) and the classes that stand there."""
    path: list[str] = []
    classes: list[type[BaseModel]] = [cls]
    for part in location:
        fields = [c.model_fields[part] for c in classes if isinstance(part, str) and part in c.model_fields]
        if fields:
            path.append(str(part))
            classes = [found for field in fields for found in item_classes(field.annotation)]
        elif isinstance(part, int):
            path.append(str(part))
        elif part in {c.__name__ for c in classes}:
            classes = [c for c in classes if c.__name__ == part]
    return path, classes


def _unknown_key(cls: type[BaseModel], location: Sequence[str | int], inside: Any) -> Problem:
    path, classes = _walk(cls, location[:-1])
    name = str(location[-1])
    dotted = ".".join([*path, name])
    given, within = dotted, inside
    while isinstance(within, Mapping) and within:
        key, within = next(iter(within.items()))
        given += f".{key}"
    return Problem(given, f"unknown key '{dotted}'{_nearest_key(cls, path, classes, name, inside)}")


def _nearest_key(
    cls: type[BaseModel], path: Sequence[str], classes: Sequence[type[BaseModel]], name: str, inside: Any
) -> str:
    """A hint; `inside` is the key's value, which tells more where it is a section that there is not."""
    siblings = list(dict.fromkeys(key for c in classes for key in c.model_fields))
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    same = _of_that_name(cls, inside)
    if near and (not same or ".".join([*path, near[0], next(iter(inside))]) in same):
        return f" (did you mean '{'.'.join([*path, near[0]])}'?)"
    if same:
        return f" (did you mean {' or '.join(repr(key) for key in same)}?)"
    elsewhere = {key.rsplit(".", 1)[-1]: key for key in reversed(all_keys(cls))}
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.8)
    if near:
        return f" (did you mean '{elsewhere[near[0]]}'?)"
    return f"{_THERE_ARE}{', '.join(sorted(siblings)) or 'none'}"


def _of_that_name(cls: type[BaseModel], inside: Any) -> list[str]:
    """The keys that end in the only key of a section."""
    if not isinstance(inside, Mapping) or len(inside) != 1:
        return []
    same = [key for key in all_keys(cls) if key.endswith(f".{next(iter(inside))}")]
    return same if len(same) <= _MOST_HINTS else []


def _problem(cls: type[BaseModel], error: Any) -> Problem:
    if error["type"] == "extra_forbidden":
        return _unknown_key(cls, error["loc"], error.get("input"))
    dotted = ".".join(_walk(cls, error["loc"])[0])
    if error["type"] == "missing":
        return Problem(dotted, f"{dotted}: a value is required")
    message = _PLAIN.get(error["type"], str(error["msg"])).removeprefix("Value error, ").replace("\n", " ")
    message = message[:1].lower() + message[1:]
    given = error.get("input")
    shown = "" if isinstance(given, Mapping | BaseModel) else f", got {_short(given)}"
    return Problem(dotted, f"{dotted}: {message}{shown}" if dotted else message)


def _short(value: Any, limit: int = 60) -> str:
    """The value as a user would write it, cut to `limit` characters."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
