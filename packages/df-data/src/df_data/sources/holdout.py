"""Which inputs are held out for validation."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from df_data.common.wording import counted, patiently
from df_data.sources.access import check_readable
from df_data.sources.config import MOST_HELD_OUT, SplitConfig
from df_models.containers import open_media
from df_models.errors import UserError

_log = logging.getLogger(__name__)
MICROSECONDS = 1_000_000
"""FFmpeg's unit of a container's duration, per second."""
MOST_LOOKED_INTO = 1000
"""Files that are opened at most for their length: some seconds on a disk, a minute over a network."""


def held_out(groups: Mapping[str, Sequence[Path]], split: SplitConfig, least_s: float) -> set[str]:
    """Return the names of the groups (persons, or single inputs) that are held out.

    Args:
        groups: the files of each, by name.
        least_s: seconds that a validation clip lasts; 0 looks into no file.

    Raises:
        UserError: the files are all one person's, so that holding out persons leaves nothing; one cannot be read.
    """
    if len(groups) == 1 and split.by == "identity" and sum(map(len, groups.values())) > 1:
        raise UserError(
            f"split.by=identity holds out persons, and all inputs are of one ({next(iter(groups))}); use "
            "split.by=sentence, which holds out single inputs"
        )
    return set(itertools.islice(in_turn(groups, split, least_s), _number(len(groups), split)))


def in_turn(groups: Mapping[str, Sequence[Path]], split: SplitConfig, least_s: float) -> Iterator[str]:
    """Yield the groups in the order in which they are held out: by their hash, those first that last long enough.

    That is those of which an input lasts ``least_s`` at least by its container's word. No more than
    :data:`MOST_LOOKED_INTO` files are opened, one at a time; whoever is not looked into counts as shorter.

    Raises:
        UserError: a file cannot be read.
    """
    ordered = sorted(groups, key=lambda name: hashlib.sha256(f"{split.salt}:{name}".encode()).hexdigest())
    if least_s <= 0:
        yield from ordered
        return
    shorter, left = [], MOST_LOOKED_INTO
    for name in patiently(ordered, "looking for those to hold out", "group"):
        files = groups[name][:left]
        long = next((index for index, path in enumerate(files) if lasts(path) >= least_s), None)
        left -= len(files) if long is None else long + 1
        if long is None:
            shorter.append(name)
        else:
            yield name
    yield from shorter


def lasts(path: Path) -> float:
    """Return a file's length in seconds as its container tells it; 0 where it does not, or there is no such file.

    Raises:
        UserError: it cannot be read now, so that its length is unknown.
    """
    import av

    try:
        with open_media(path) as container:
            return float(container.duration or 0) / MICROSECONDS
    except (av.FFmpegError, OSError, ValueError):
        check_readable(path)  # what is in it decides, never whether it could be read at this moment
        return 0.0


def _number(count: int, split: SplitConfig) -> int:
    """How many of ``count`` are held out: a tenth if none is told, never more than half."""
    if split.val is None:
        number = min(max(1, round(count / 10)), MOST_HELD_OUT, count // 2)
        if not number:
            _log.warning(
                "there is one input alone, so none is held out: the dataset has no validation split; give more files "
                "(a long video cut into pieces will do, with split.by=sentence), or train with sample.clips=0"
            )
        return number
    number = min(split.val, count // 2)
    if number < split.val:
        what = "inputs" if split.by == "sentence" else "persons"
        _log.warning(
            "split.val=%d, but there are %d %s: %s held out (half of them at most)", split.val, count, what,
            "none is" if not number else counted(number, "is", "are"),
        )  # fmt: skip
    return number
