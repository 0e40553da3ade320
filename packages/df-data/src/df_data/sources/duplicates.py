"""Files that are the same, byte for byte, under several names."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path

from df_data.common.wording import patiently
from df_data.sources.access import unreadable
from df_models.files import sha256_file

ENDS = 1 << 16
"""Bytes of a file's beginning and end that are compared before the whole of it is read."""


def same_contents(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return, for every file that holds what an earlier one holds, that one.

    Only files of one size are read, one at a time, and only those whose ends are alike as a whole, so it costs little
    where all files differ. Empty ones, and names without a file, are like nothing.

    Raises:
        UserError: a file cannot be read that may be another's copy.
    """
    alike = [list(paths)]
    for known_by in (_size, _ends, _whole):
        among = patiently([path for group in alike for path in group], "looking for copies", "file")
        keys = {path: _key(path, known_by) for path in among}
        alike = [group for several in alike for group in _groups(several, keys) if len(group) > 1]
    return {path: group[0] for group in alike for path in group[1:]}


def _key(path: Path, known_by: Callable[[Path], Hashable]) -> Hashable:
    try:
        return known_by(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def _groups(paths: list[Path], keys: Mapping[Path, Hashable]) -> list[list[Path]]:
    found: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        if keys[path] is not None:
            found[keys[path]].append(path)
    return list(found.values())


def _size(path: Path) -> int | None:
    return (path.stat().st_size or None) if path.is_file() else None


def _ends(path: Path) -> bytes:
    with open(path, "rb") as file:
        begin = file.read(ENDS)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - ENDS))
        return hashlib.sha256(begin + file.read()).digest()


def _whole(path: Path) -> str:
    return sha256_file(path)
