"""Errors that a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A user's mistake, told in one line: what is wrong and how to fix it.

    Command-line programs print the message without a traceback and exit with 2
    (:mod:`df_models.cli_support`). It is a ``ValueError``, so callers of the Python API need not know of it.
    """


def nearest(name: str, options: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the option closest to ``name``, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
