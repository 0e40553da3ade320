"""Configurations as nested mappings: a file on top of the one it extends, and dotted overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from df_models.errors import UserError, nearest
from df_models.paths import expand_path
from df_models.settings.text import parse_yaml


def read_tree(path: str | Path | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The mapping of a YAML file (none: empty) on top of the one it extends, below dotted overrides.

    Raises:
        UserError: a missing file, text that is no YAML, an `extends:` that runs in a circle, an override without `=`.
    """
    tree = {} if path is None else _read_file(Path(path), ())
    return merge(tree, _override_tree(overrides))


def _read_file(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping of a file on top of the one it extends, whose path is relative to the file itself."""
    resolved = path.resolve()
    if resolved in seen:
        raise UserError(f"{path}: `extends:` runs in a circle: {' -> '.join(p.name for p in (*seen, resolved))}")
    if not path.is_file():
        hint = f" (named by `extends:` in {seen[-1]})" if seen else ""
        beside = [file.name for file in path.parent.glob("*.y*ml")]
        raise UserError(f"config file not found: {path}{hint}{nearest(path.name, beside)}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8") from error
    tree = parse_yaml(text, str(path))
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config file holds `key: value` lines, this one holds a {type(tree).__name__}")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: `extends:` takes one path to another config file, got {base!r}")
    return merge(_read_file(path.parent / expand_path(base), (*seen, resolved)), tree)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` overlaid by `high`, mapping by mapping; anything else is replaced as a whole.

    A list's items are named by their numbers (:func:`by_index`): `{0: {folder: there}}` changes a key of the first one.

    Raises:
        UserError: an item that is not there and would not be the next one.
    """
    merged = dict(low)
    for key, value in high.items():
        merged[key] = _laid_over(merged.get(key), value, key)
    return merged


def by_index(value: Any) -> bool:
    """Whether a value names items of a list by their numbers, as the override `sources.0.folder=there` does."""
    return isinstance(value, Mapping) and bool(value) and all(isinstance(k, str) and k.isdecimal() for k in value)


def _laid_over(old: Any, value: Any, key: str) -> Any:
    if isinstance(old, Mapping) and isinstance(value, Mapping):
        return merge(old, value)
    if not (isinstance(old, Sequence) and not isinstance(old, str) and by_index(value)):
        return value
    items = list(old)
    for number, item in sorted((int(number), item) for number, item in value.items()):
        if number > len(items):
            there = "is empty" if not items else f"has items 0 to {len(items) - 1}"
            raise UserError(f"{key}.{number}: the list {key} {there}")
        items[number:] = [_laid_over(items[number] if number < len(items) else None, item, key), *items[number + 1 :]]
    return items


def _override_tree(overrides: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for text in overrides:
        _, equals, value = text.partition("=")
        keys = _keys(text)
        if not equals or not all(keys):
            raise UserError(f"{_told(text)}: write key=value, with dots between nested keys, like optim.lr=3e-4")
        nested = parse_yaml(value, _told(text))
        for key in reversed(keys):
            nested = {key: nested}
        tree = merge(tree, nested)
    return tree


def overridden(key: str, overrides: Iterable[str], line: str = "") -> str:
    """The last override that gave a dotted key or what it stands in, in the words of errors; else the last that gave
    something within it that the error's line names; empty if there is none."""
    path, given = key.split("."), [*overrides]
    around = [text for text in given if path[: len(_keys(text))] == _keys(text)]
    within = [keys[len(path)] for keys in map(_keys, given) if key and keys[: len(path)] == path < keys]
    named = [name for name in within if re.search(rf"\b{re.escape(name)}\b", line.removeprefix(f"{key}:"))]
    guilty = [text for text in given if named and _keys(text)[: len(path) + 1] == [*path, named[-1]]]
    return next((_told(text) for text in reversed(around or guilty)), "")


def _keys(override: str) -> list[str]:
    return override.partition("=")[0].strip().lstrip("-").split(".")


def _told(override: str) -> str:
    return f"override '{override}'"
