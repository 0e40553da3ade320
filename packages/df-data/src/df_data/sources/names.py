"""Names of inputs as letters that a key, a ledger line and a person may have."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

LONGEST_NAME = 72
"""Letters of an input's key; the samples made of it add up to 16 to it, and a sample's key has 88 at most."""
_NOT_KEY = re.compile(r"[^A-Za-z0-9_-]+")


def stem(relative: Path) -> str:
    """Return a relative path without the last part's suffix (``with_suffix`` refuses names such as ``..mp4``)."""
    return relative.as_posix().removesuffix(relative.suffix)


def printable(text: str) -> str:
    """Return a text as one line of UTF-8, no two alike: what cannot be printed, and a backslash, is escaped."""
    return "".join(
        letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def plain(text: str) -> str:
    """Return a text as letters, digits, ``_`` and ``-``; a long one is cut, and told apart from its like by a hash."""
    short = _NOT_KEY.sub("_", text)
    return short if len(short) <= LONGEST_NAME else marked(short, text)


def marked(name: str, text: str) -> str:
    """Return a name that ends with a hash of a text."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{name[: LONGEST_NAME - 13]}-{digest}"
