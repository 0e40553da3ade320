"""What the command lines of all applications share about their configuration."""

from __future__ import annotations

import argparse
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from df_models.errors import UserError
from df_models.settings.problems import problems
from df_models.settings.reference import default_of, kind_of, meaning_of, type_of
from df_models.settings.text import parse_yaml

M = TypeVar("M", bound=BaseModel)


def add_print_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-config``; the command then prints `dump_config` of its configuration and does nothing else."""
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings as they would be used, as YAML, then stop"
    )


def add_flags(group: argparse._ArgumentGroup, cls: type[BaseModel], section: str) -> None:
    """Add one flag for every setting of a section; their help is the settings' own description, bounds and default.

    Args:
        section: the section's key, such as ``rollout``: `config_from_flags` finds the values by it.
    """
    for name, field in cls.model_fields.items():
        named = "`" in type_of(field.annotation)  # the placeholder names the values
        kind = "" if named else f"{kind_of(field)}; "
        group.add_argument(
            _flag(name),
            dest=f"{section}.{name}",
            metavar=_placeholder(field),
            help=f"{meaning_of(field).rstrip('.')} ({kind}default: {default_of(field)})".replace("%", "%%"),
        )


def _placeholder(field: FieldInfo) -> str:
    """What stands for a setting's value in its flag's help."""
    kind = type_of(field.annotation).removesuffix(" or null")
    names = {"whole number": "N", "number": "X", "text": "TEXT", "path": "PATH", "true or false": "true|false"}
    return names.get(kind, kind.replace("`", "").replace(" or ", "|"))


def config_from_flags(cls: type[M], options: argparse.Namespace, section: str) -> M:
    """A section of the values that were given for its flags, parsed as YAML as in a configuration file.

    Raises:
        UserError: what is wrong with each value, with the flag as it is typed.
    """
    prefix = f"{section}."
    texts = {key.removeprefix(prefix): text for key, text in vars(options).items() if key.startswith(prefix)}
    given = {name: parse_yaml(text, f"{_flag(name)}={text}") for name, text in texts.items() if text is not None}
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        told = problems(cls, error)
        lines = [f"{_flag(key) if key in given else section}: {line.removeprefix(f'{key}: ')}" for key, line in told]
        raise UserError("; ".join(lines)) from error


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
