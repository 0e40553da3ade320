"""Paths as users write them: `~`, `${NAME}` and `${NAME:-default}`. Everything that takes one expands it here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from df_models.errors import UserError

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def expand_path(text: str | os.PathLike[str]) -> Path:
    """Return a path with its variables (:func:`expand_variables`) and `~` replaced; relative ones start at the cwd."""
    return Path(expand_variables(os.fspath(text))).expanduser()


def expand_variables(text: str) -> str:
    """Replace ``${NAME}`` and ``${NAME:-default}`` by environment variables; an empty one counts as not set.

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
