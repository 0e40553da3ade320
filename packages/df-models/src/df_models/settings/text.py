"""YAML 1.2 text to plain values and back, by ruamel.yaml: duplicate keys are errors, and every error tells its line."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from df_models.errors import UserError

_WIDTH = 110
"""Columns of written text, so that it is read without scrolling."""


class _Constructor(SafeConstructor):
    """The values of YAML 1.2's core schema: a date (`2026-01-01`) and a lone `=` are strings, as they are there."""


class _Representer(SafeRepresenter):
    """Writes what `_Constructor` reads back equal."""


def _represent_text(representer: SafeRepresenter, text: str) -> ScalarNode:
    # Line breaks other than \n (U+0085, U+2028) survive in double quotes alone.
    style = None if text.isprintable() else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _tag in ("timestamp", "value"):
    _Constructor.add_constructor(f"tag:yaml.org,2002:{_tag}", SafeConstructor.construct_yaml_str)
_Representer.add_representer(str, _represent_text)
_Representer.add_representer(tuple, SafeRepresenter.represent_list)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor, yaml.Representer = _Constructor, _Representer
    yaml.default_flow_style, yaml.width = False, _WIDTH
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    return yaml


def parse_yaml(text: str, where: str) -> Any:
    """The plain values of a YAML document.

    Args:
        where: what the text is, for messages: a file's name.

    Raises:
        UserError: it is no YAML, or a key is a duplicate in a mapping; with the line.
    """
    try:
        return _yaml().load(text)
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" at line {error.problem_mark.line + 1}"
        problem = str(error.problem)
        hint = "; indent with spaces, not tabs" if "\\t" in problem else ""
        if "undefined alias" in problem:
            hint = "; a value that begins with * needs quotes of YAML's own, inside those of the shell: key='\"*.mp4\"'"
        raise UserError(f"{where}: not valid YAML{line}: {error.problem or error.context}{hint}") from error
    except (YAMLError, ValueError, TypeError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def dump_yaml(tree: Any) -> str:
    """YAML text of plain values, which `parse_yaml` reads back equal."""
    stream = io.StringIO()
    _yaml().dump(tree, stream)
    return stream.getvalue()
