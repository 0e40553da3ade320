"""Panda-70M's lists: a CSV of videos, each with its clips' times and captions.

Source of the format: ``dataset_dataloading/README.md`` of snap-research/Panda-70M and the columns that its published
lists have: ``videoID``, ``url``, ``timestamp`` (``[['0:00:08.875', '0:00:19.185'], ...]``), ``caption`` (a list of as
many sentences), ``matching_score`` and, in the lists since October 2024, ``desirable_filtering`` (``desirable``, or
why a clip is none: ``1_still_foreground_image``, ...). Lists in a cell are written as Python writes them. The whole
image is used; who is seen is not published.
"""

from __future__ import annotations

import ast
import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from df_data.sources.catalogue.clip import Catalogue
from df_data.sources.catalogue.collector import Collector, read_text
from df_models.errors import UserError

NAME = "panda70m"
LICENCE = "Panda-70M: for informational purposes, no licence granted; each video stays under its owner's terms"
WANTED = ("videoID", "url", "timestamp", "caption")
DESIRABLE = "desirable"
LONGEST_CELL = 1 << 24
"""Characters of a cell; csv allows 131072, which the captions of a long video exceed."""
_TIME = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")


def read(path: Path) -> Catalogue:
    """Read a list, or all ``.csv`` files of a folder.

    Raises:
        UserError: no such file, or one without the columns.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .csv file; download (and unzip) a list of Panda-70M there")
    collector = Collector(NAME, LICENCE)
    for file in files:
        for line, row in _rows(file):
            _add_clips(collector, file.name, f"line {line}", row)
    return collector.catalogue()


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    text = read_text(file)
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in WANTED if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{file} is no list of Panda-70M: it has no column {missing[0]!r}")
        for row in reader:
            yield reader.line_num, {name: value for name, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; download the list again") from error
    finally:
        csv.field_size_limit(limit)


def _add_clips(collector: Collector, file: str, place: str, row: dict[str, str]) -> None:
    """Add a video's clips, each good or bad by itself."""
    columns = {name: _listed(row.get(name, "")) for name in ("timestamp", "caption", "matching_score")}
    times, verdicts = columns["timestamp"], _listed(row.get("desirable_filtering", ""))
    if times is None:
        collector.refuse(file, place, "timestamp is no list")
        return
    for index, span in enumerate(times):
        verdict = _entry(verdicts, index)
        if verdict not in (None, DESIRABLE):
            collector.refuse(file, place, f"clip {index} is not desirable ({str(verdict)[:60]})")
            continue
        said = (_entry(columns["caption"], index), _entry(columns["matching_score"], index))
        collector.add(file, f"{place}, clip {index}", lambda i=index, s=span, t=said: _fields(row, i, s, *t))


def _fields(row: dict[str, str], index: int, span: Any, caption: Any, score: Any) -> dict[str, Any]:
    start, end = span
    return {
        "clip": f"{row['videoID']}_{index:05d}",
        "url": row["url"],
        "start_s": seconds(start),
        "end_s": seconds(end),
        "caption": None if caption is None else str(caption),
        "provenance": {} if score is None else {"matching_score": _finite(score)},
    }


def seconds(text: str) -> float:
    """Return ``h:mm:ss.fff`` as seconds.

    Raises:
        ValueError: it is not written so.
    """
    found = _TIME.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{str(text)[:40]!r} is no time (h:mm:ss.fff)")
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])


def _finite(score: Any) -> float:
    value = float(score)
    if not math.isfinite(value):
        raise ValueError(f"matching_score is {value}")
    return value


def _listed(cell: str) -> list[Any] | None:
    """The list that a cell holds, by Python's literals alone; None if it holds none."""
    try:
        found = ast.literal_eval(cell)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _entry(values: list[Any] | None, index: int) -> Any:
    return None if values is None or index >= len(values) else values[index]
