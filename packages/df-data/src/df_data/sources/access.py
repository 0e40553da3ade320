"""Whether a file can be read at this moment: what it holds decides about a build, never a passing fault."""

from __future__ import annotations

from pathlib import Path

from df_models.errors import UserError

PIECE = 1 << 16
"""Bytes that are read to see that a file can be."""


def check_readable(path: Path) -> None:
    """Do nothing if a file can be read, or there is none of that name (a dangling link), which will not pass.

    Raises:
        UserError: it cannot.
    """
    try:
        if not path.is_file():
            return
        with open(path, "rb") as file:
            file.read(PIECE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """Return what a user is told of a file that cannot be read while a build is being planned."""
    reason = error.strerror or type(error).__name__
    return UserError(
        f"{path} cannot be read ({reason}), and who is held out depends on what it holds; mend that or move the file "
        "away, then start again"
    )
