"""Which inputs are held out for validation."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from df_data.common.wording import counted
from df_data.sources.config import MOST_HELD_OUT, SplitConfig
from df_models.containers import open_media
from df_models.errors import UserError

_log = logging.getLogger(__name__)
MICROSECONDS = 1_000_000
"""FFmpeg's unit of a container's duration, per second."""


def held_out(groups: Mapping[str, Sequence[Path]], split: SplitConfig, least_s: float) -> set[str]:
    """Return the names of the groups (persons, or single inputs) that are held out.

    Those with the smallest hashes are, of which an input lasts ``least_s`` at least by its container's word; where
    there are too few of them, shorter ones too.

    Args:
        groups: the files of each, by name.
        least_s: seconds that a validation clip lasts; 0 looks into no file.

    Raises:
        UserError: the files are all one person's, so that holding out persons leaves nothing.
    """
    if len(groups) == 1 and split.by == "identity" and sum(map(len, groups.values())) > 1:
        raise UserError(
            f"split.by=identity holds out persons, and all inputs are of one ({next(iter(groups))}); use "
            "split.by=sentence, which holds out single inputs"
        )
    wanted = _number(len(groups), split)
    ordered = sorted(groups, key=lambda name: hashlib.sha256(f"{split.salt}:{name}".encode()).hexdigest())
    found = _first(ordered, wanted, lambda name: least_s <= 0 or any(lasts(path) >= least_s for path in groups[name]))
    return set(found + [name for name in ordered if name not in found][: wanted - len(found)])


def lasts(path: Path) -> float:
    """Return a file's length in seconds as its container tells it; 0 where it does not or cannot be opened."""
    import av

    try:
        with open_media(path) as container:
            return float(container.duration or 0) / MICROSECONDS
    except (av.FFmpegError, OSError, ValueError):
        return 0.0


def _number(count: int, split: SplitConfig) -> int:
    """How many of ``count`` are held out: a tenth if none is told, never more than half."""
    if split.val is None:
        number = min(max(1, round(count / 10)), MOST_HELD_OUT, count // 2)
        if not number:
            _log.warning("there is one input alone, so none is held out: the dataset has no validation split")
        return number
    number = min(split.val, count // 2)
    if number < split.val:
        what = "inputs" if split.by == "sentence" else "persons"
        _log.warning(
            "split.val=%d, but there are %d %s: %s held out (half of them at most)", split.val, count, what,
            "none is" if not number else counted(number, "is", "are"),
        )  # fmt: skip
    return number


def _first(names: Iterable[str], wanted: int, good: Callable[[str], bool]) -> list[str]:
    """Return the first ``wanted`` good ones, looking no further."""
    found: list[str] = []
    for name in names:
        if len(found) == wanted:
            break
        if good(name):
            found.append(name)
    return found


def by_group(members: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Return the files of each group by its name."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for name, path in members:
        groups[name].append(path)
    return dict(groups)
