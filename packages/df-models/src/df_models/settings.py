"""Configuration of the applications: frozen pydantic models, YAML files, dotted overrides.

The value of every key comes from, in rising order of strength: the defaults of the model class, the YAML file named
by `extends:`, the YAML file itself, the overrides of the command line (`optim.lr=3e-4`).
"""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from df_models.errors import UserError

M = TypeVar("M", bound=BaseModel)


class FrozenModel(BaseModel):
    """Base of every configuration section: immutable, unknown keys forbidden, defaults validated too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


# -------------------- YAML

_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers (`3e-4`) and booleans (only true and false) of YAML 1.2; duplicate keys are errors."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back equal."""


def _install_resolvers() -> None:
    changed = {"tag:yaml.org,2002:float", "tag:yaml.org,2002:bool"}
    for cls in (_Loader, _Dumper):
        cls.yaml_implicit_resolvers = {
            first: [(tag, regexp) for tag, regexp in resolvers if tag not in changed]
            for first, resolvers in cls.yaml_implicit_resolvers.items()
        }
        cls.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
        cls.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str | int | float | bool) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is a duplicate", key_node.start_mark)
        if isinstance(key, str | int | float | bool):
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_install_resolvers()
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(list(value)))


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it does not parse"
        raise UserError(f"{where}: not valid YAML{line}: {problem}") from error


def _read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping of a YAML file on top of the one it extends (a path relative to the file itself)."""
    resolved = path.resolve()
    if resolved in seen:
        raise UserError(f"{path}: `extends:` runs in a circle: {' -> '.join(p.name for p in (*seen, resolved))}")
    if not path.is_file():
        hint = f" (named by `extends:` in {seen[-1]})" if seen else ""
        raise UserError(f"config file not found: {path}{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8") from error
    tree = _parse(text, str(path))
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config file holds `key: value` lines, this one holds a {type(tree).__name__}")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: `extends:` takes one path to another config file, got {base!r}")
    return merge(_read_tree(path.parent / base, (*seen, resolved)), tree)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` overlaid by `high`, mapping by mapping; anything else (lists too) is replaced as a whole."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _override_tree(overrides: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for text in overrides:
        dotted, equals, value = text.partition("=")
        keys = dotted.strip().lstrip("-").split(".")
        if not equals or not all(keys):
            raise UserError(f"override '{text}': write key=value, with dots between nested keys, like optim.lr=3e-4")
        nested = _parse(value, f"override '{text}'")
        for key in reversed(keys):
            nested = {key: nested}
        tree = merge(tree, nested)
    return tree


# -------------------- the shape of a model


def _model_classes(annotation: Any) -> list[type[BaseModel]]:
    """The model classes that a field of this annotation may hold directly (unions and Annotated looked through)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _model_classes(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for argument in typing.get_args(annotation) for found in _model_classes(argument)]
    return []


def _item_classes(annotation: Any) -> list[type[BaseModel]]:
    """The model classes inside a list, tuple or dict annotation."""
    found = _model_classes(annotation)
    if not found:
        for argument in typing.get_args(annotation):
            found = found + _item_classes(argument)
    return found


def _section_tree(section: BaseModel) -> dict[str, Any]:
    """A section's values by key, its own sections as mappings in turn (choices between classes are left whole)."""
    tree: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        nested = isinstance(value, BaseModel) and _model_classes(field.annotation) == [type(value)]
        tree[name] = _section_tree(value) if nested else value
    return tree


def _defaults(cls: type[BaseModel]) -> dict[str, Any]:
    """Default sections as mappings, so that an override of one key of a section keeps the section's other defaults."""
    tree: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel) and _model_classes(field.annotation) == [type(default)]:
            tree[name] = _section_tree(default)
    return tree


def all_keys(cls: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a configuration class, sections before their members."""
    keys: list[str] = []
    for name, field in cls.model_fields.items():
        keys.append(prefix + name)
        for section in _model_classes(field.annotation):
            keys += all_keys(section, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


# -------------------- errors


def _walk(cls: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys a user would write for a pydantic location (union tags dropped) and the classes that stand there."""
    path: list[str] = []
    classes: list[type[BaseModel]] = [cls]
    for part in location:
        fields = [c.model_fields[part] for c in classes if isinstance(part, str) and part in c.model_fields]
        if fields:
            path.append(str(part))
            classes = [found for field in fields for found in _item_classes(field.annotation)]
        elif isinstance(part, int):
            path.append(str(part))
        elif part in {c.__name__ for c in classes}:
            classes = [c for c in classes if c.__name__ == part]
    return path, classes


def _unknown_key(cls: type[BaseModel], location: Sequence[str | int]) -> str:
    path, classes = _walk(cls, location[:-1])
    name = str(location[-1])
    siblings = list(dict.fromkeys(key for c in classes for key in c.model_fields))
    dotted = ".".join([*path, name])
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.6)
    if near:
        return f"unknown key '{dotted}' (did you mean '{'.'.join([*path, near[0]])}'?)"
    elsewhere = {key.rsplit(".", 1)[-1]: key for key in reversed(all_keys(cls))}
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.8)
    if near:
        return f"unknown key '{dotted}' (did you mean '{elsewhere[near[0]]}'?)"
    return f"unknown key '{dotted}'; the keys there are: {', '.join(sorted(siblings)) or 'none'}"


def _problem(cls: type[BaseModel], error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown_key(cls, error["loc"])
    dotted = ".".join(_walk(cls, error["loc"])[0])
    if error["type"] == "missing":
        return f"{dotted}: a value is required"
    message = str(error["msg"]).removeprefix("Value error, ").replace("\n", " ")
    message = message[:1].lower() + message[1:]
    given = error.get("input")
    shown = "" if isinstance(given, Mapping | BaseModel) else f", got {_short(given)}"
    return f"{dotted}: {message}{shown}" if dotted else message


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def validate_config(cls: type[M], tree: Mapping[str, Any], where: str = "config") -> M:
    """An instance of `cls` from a nested mapping.

    Raises:
        UserError: one line per wrong key, each with the key's full dotted name.
    """
    try:
        return cls.model_validate(merge(_defaults(cls), tree))
    except ValidationError as error:
        lines = dict.fromkeys(_problem(cls, item) for item in error.errors())
        raise UserError("\n".join(f"{where}: {line}" for line in lines)) from error


def load_config(cls: type[M], path: str | Path | None, overrides: Sequence[str] = ()) -> M:
    """Defaults of `cls` < the file's `extends:` < the YAML file at `path` < dotted overrides such as `optim.lr=3e-4`.

    Override values are parsed as YAML, so `betas=[0.9,0.95]`, `name=null` and `data={root: out}` all work.

    Raises:
        UserError: a missing file, text that is no YAML, a misspelt key (with the nearest right one), a wrong value.
    """
    tree = {} if path is None else _read_tree(Path(path))
    where = "config" if path is None else str(path)
    return validate_config(cls, merge(tree, _override_tree(overrides)), where)


def dump_config(model: BaseModel) -> str:
    """The configuration as YAML text; `load_config` of that text gives an equal model."""
    tree = model.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


# -------------------- paths

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


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
