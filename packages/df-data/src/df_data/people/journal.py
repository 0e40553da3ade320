"""What looking at videos has found so far, so that a killed run goes on and a larger one looks only at what is new.

One JSON line per look, appended and fsynced; the last line of an input counts, a last line torn by a kill is cut off.
The vectors tell people apart: keep the file as you would keep the videos.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from df_data.sources.listing import FileState
from df_models.errors import UserError
from df_models.settings import FrozenModel


class LookEntry(FrozenModel):
    """What one look at one input found.

    Attributes:
        input: its stable name.
        bytes, mtime_ns: size and time of its file; with another one it is looked at again.
        looked_with: hash of the models and settings.
        vector: the unit vector, float32 little-endian in base64; None where there is none, for the ``reason``.
        faces, agreement: as in :class:`~df_data.people.look.Look`.
        reason, detail: why there is no vector; ``failed`` is tried again by every run.
    """

    input: str
    bytes: int
    mtime_ns: int
    looked_with: str
    vector: str | None = None
    faces: int = 0
    agreement: float | None = None
    reason: str | None = None
    detail: str | None = None

    def vector_D(self) -> np.ndarray | None:
        """Return the vector, float32 ``[D]``."""
        return None if self.vector is None else np.frombuffer(base64.b64decode(self.vector), dtype="<f4")


def encode_vector(data: bytes) -> str:
    """Return the bytes of a float32 vector as an entry holds them."""
    return base64.b64encode(data).decode("ascii")


class LookJournal:
    """The file of looks; made by :func:`open_journal`, which lets in one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, LookEntry] = {}
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = LookEntry.model_validate_json(line)
            except ValidationError as error:
                raise UserError(f"{path}: line {number} is damaged; delete that line") from error
            self.entries[entry.input] = entry
        if len(whole) < len(data):
            os.truncate(path, len(whole))

    def record(self, entry: LookEntry) -> None:
        """Append one entry, with an fsync."""
        with open(self.path, "ab") as file:
            file.write(entry.model_dump_json(exclude_none=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries[entry.input] = entry

    def known(self, name: str, state: FileState, looked_with: str) -> bool:
        """Whether an input, as its file is now, was looked at with these models, and the look did not fail."""
        found = self.entries.get(name)
        wanted = (state.bytes, state.mtime_ns, looked_with)
        return (
            found is not None
            and (found.bytes, found.mtime_ns, found.looked_with) == wanted
            and found.reason != "failed"
        )


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[LookJournal]:
    """Open or make a journal and hold its one writer's place.

    Raises:
        UserError: another process holds it, or a line other than the last is damaged.
    """
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is writing {path}; wait for it or give another --out") from error
        yield LookJournal(path)
