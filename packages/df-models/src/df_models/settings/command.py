"""What the command lines of all applications share about their configuration."""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from df_models.settings.reference import default_of, kind_of, meaning_of, type_of
from df_models.settings.text import parse_yaml


def add_print_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-config``; the command then prints `dump_config` of its configuration and does nothing else."""
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings as they would be used, as YAML, then stop"
    )


def add_flags(group: argparse._ArgumentGroup, cls: type[BaseModel], section: str) -> None:
    """Add one flag for every setting of a section; their help is the settings' own description, bounds and default.

    Args:
        section: the section's key, such as ``rollout``: `given_flags` finds the values by it.
    """
    for name, field in cls.model_fields.items():
        named = "`" in type_of(field.annotation)  # the placeholder names the values
        kind = "" if named else f"{kind_of(field)}; "
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"{section}.{name}",
            metavar=_placeholder(field),
            help=f"{meaning_of(field).rstrip('.')} ({kind}default: {default_of(field)})".replace("%", "%%"),
        )


def _placeholder(field: FieldInfo) -> str:
    """What stands for a setting's value in its flag's help."""
    kind = type_of(field.annotation).removesuffix(" or null")
    names = {"whole number": "N", "number": "X", "text": "TEXT", "path": "PATH", "true or false": "true|false"}
    return names.get(kind, kind.replace("`", "").replace(" or ", "|"))


def given_flags(options: argparse.Namespace, section: str) -> dict[str, Any]:
    """The values that were given for a section's flags, by setting, parsed as YAML as in a configuration file."""
    prefix = f"{section}."
    given = {key.removeprefix(prefix): text for key, text in vars(options).items() if key.startswith(prefix)}
    return {
        name: parse_yaml(text, f"--{name.replace('_', '-')}={text}") for name, text in given.items() if text is not None
    }
