"""Which files of a folder a pattern means: a glob with braces, without regard to case."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from df_models.errors import UserError

VIDEO_ENDINGS = (
    "3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogv", "ts", "webm", "wmv",
)  # fmt: skip
"""How the files of the containers that are read (`df_models.containers`) are commonly called."""
VIDEOS = f"**/*.{{{','.join(VIDEO_ENDINGS)}}}"
"""Every video in a folder and the folders in it."""
APPLE_DOUBLE = "._"
"""Begins the names of files in which macOS keeps a file's attributes on disks that have none; they hold no video."""
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_CLASS = re.compile(r"\[!?\]?[^\]]*\]")


def matching(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder that a glob matches, in order of their paths.

    ``{a,b}`` is either of the two, letters match in either case, ``**`` is any folders.

    Raises:
        UserError: none does, told with the videos that lie there; the pattern is none.
    """
    found: set[Path] = set()
    for plain in dict.fromkeys(map(any_case, without_braces(pattern))):
        try:
            found |= {path for path in folder.glob(plain) if not path.name.startswith(APPLE_DOUBLE)}
        except (ValueError, NotImplementedError) as error:
            raise UserError(
                f"pattern {pattern!r}: {error}; write a glob within the folder, such as **/*.mp4"
            ) from error
    files = sorted(path for path in found if not path.is_dir())
    if not files:
        wanted = "is a video by its name" if pattern == VIDEOS else f"matches {pattern!r}"
        raise UserError(f"no file in {folder} {wanted}{_others(folder)}")
    return files


def without_braces(pattern: str) -> Iterator[str]:
    """Yield the patterns that one with braces stands for."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    for choice in braces[1].split(","):
        yield from without_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])


def any_case(pattern: str) -> str:
    """Return a glob whose letters match in either case (``Path.glob`` can do so from Python 3.12 on alone)."""
    parts, end = [], 0
    for inside in _CLASS.finditer(pattern):
        parts += [_each_in_both(pattern[end : inside.start()]), _class_in_both(inside[0])]
        end = inside.end()
    return "".join([*parts, _each_in_both(pattern[end:])])


def _each_in_both(text: str) -> str:
    return "".join(
        f"[{low}{high}]" if (low := char.lower()) != (high := char.upper()) and len(low) == len(high) == 1 else char
        for char in text
    )


def _class_in_both(text: str) -> str:
    mark = "!" if text[1] == "!" else ""
    inside = text[1 + len(mark) : -1]
    return f"[{mark}{inside}{inside.swapcase()}]" if inside.swapcase() != inside else text


def _others(folder: Path) -> str:
    """Tell of the videos that lie in a folder."""
    endings = {f".{ending}" for ending in VIDEO_ENDINGS}
    there = Counter(p.suffix for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
    if not there:
        return ""
    told = ", ".join(f"{number} x {suffix}" for suffix, number in there.most_common())
    return f"; there are {told}: set pattern to '**/*' and an ending, or leave it out for all"
