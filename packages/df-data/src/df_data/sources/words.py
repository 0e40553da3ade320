"""Word times of GRID's sentences."""

from __future__ import annotations

from pathlib import Path

from df_models.errors import UserError

GRID_TICKS_PER_SECOND = 25_000
LARGEST_ALIGNMENT = 1 << 20
"""Bytes of an ``.align`` file; a sentence has some hundred."""


def read_words(path: Path) -> list[tuple[str, float, float]]:
    """Read GRID's word times as (word, start, end) in seconds, silences left out.

    Raises:
        UserError: no such file, or lines that are not ``start end word`` in 1/25000 s.
    """
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > LARGEST_ALIGNMENT):
            raise ValueError("no file of words")
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        words = [
            (word, int(start) / GRID_TICKS_PER_SECOND, int(end) / GRID_TICKS_PER_SECOND) for start, end, word in rows
        ]
    except FileNotFoundError as error:
        raise UserError(f"no word times {path.name}; set alignments: null to do without") from error
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path.name} is not a GRID alignment (lines of: start end word)") from error
    return [entry for entry in words if entry[0] not in ("sil", "sp")]
