"""A run's log, `metrics.jsonl`: one JSON object per line, each with the `step` it was written after.

The names of the figures are the writer's (`loss`, `loss/video`, `time/step_seconds`, ...). A line is on its way to the
disk when `write` returns; one that a crash cut short is passed over by every reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from df_models.files import atomic_write


class RunLog:
    """Writes a log, going on with what is there."""

    def __init__(self, path: Path, resume_step: int) -> None:
        """Append to `path`; lines of steps after `resume_step` (they will be taken again) are dropped first."""
        if path.exists():
            kept = [line for line in read_log(path) if line["step"] <= resume_step]
            atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log, in their order; none if there is no such file."""
    if not path.is_file():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    lines = [_read(text) for text in texts]
    return [line for line in lines if line is not None]


def _read(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours, a tenth of the curve wide, for a plot; it does not lag behind."""
    reach = max(1, len(values) // 20)
    around = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return [sum(near) / len(near) for near in around]
