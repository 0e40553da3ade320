"""The ledger: one JSON line per input of a build, saying what became of it and why.

A line is appended and fsynced when an input has reached its end. A build that was killed reads the ledger and goes
on with what is not in it; a last line torn by the kill is cut off, and its input is done again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from df_models.errors import UserError
from df_models.settings import FrozenModel

LEDGER_NAME = "ledger.jsonl"
HALVED = "halved_"
"""Begins the name of the score that counts an input's samples which have half their weight for a fault."""
Status = Literal["accepted", "rejected", "failed"]


class StagedSample(FrozenModel):
    """A sample that stands in the staging directory: where it goes and how to know it is whole."""

    key: str
    shard: int
    bytes: int
    sha256: str


class InputFile(FrozenModel):
    """What an input's files were when it was taken: enough to see that they have been changed since.

    Attributes:
        bytes: size of the video.
        words: sha256 of the file with its words' times, if it has one.
    """

    bytes: int
    words: str | None = None


class LedgerEntry(FrozenModel):
    """What became of one input.

    Attributes:
        input: stable name of the input (a relative path, a URL, the key of a synthetic clip).
        status: `accepted` (has samples), `rejected` (has a reason), `failed` (has an error).
        reason: short machine-readable name of the filter that rejected it, with its value in `scores`.
        detail: of a rejected input, one line for a person.
        error: one line.
        samples: the samples made of it.
        seconds: time that its stages took, by name.
        file: what its files were.
    """

    input: str
    status: Status
    split: str | None = None
    reason: str | None = None
    detail: str | None = None
    error: str | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    samples: tuple[StagedSample, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    file: InputFile | None = None

    @model_validator(mode="after")
    def _complete(self) -> LedgerEntry:
        wanted = {"accepted": self.samples, "rejected": self.reason, "failed": self.error}[self.status]
        if not wanted:
            raise ValueError(f"a {self.status} input needs its samples, reason or error")
        return self


class Ledger:
    """An append-only JSONL file; the last line of an input counts.

    Raises:
        UserError: a line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, LedgerEntry] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = LedgerEntry.model_validate_json(line)
            except ValidationError as error:
                raise UserError(
                    f"{self.path}: line {number} is damaged; delete that line and its input will be done again"
                ) from error
            self.entries[entry.input] = entry
        if len(whole) < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
                os.fsync(file.fileno())

    def record(self, *entries: LedgerEntry) -> None:
        """Append the entries, in order, with one fsync."""
        lines = "".join(
            json.dumps(entry.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False) + "\n"
            for entry in entries
        )
        with open(self.path, "ab") as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        self.entries.update({entry.input: entry for entry in entries})

    def get(self, name: str) -> LedgerEntry | None:
        """The last entry of an input, or None."""
        return self.entries.get(name)

    def of_status(self, status: Status) -> list[LedgerEntry]:
        """The inputs that ended so."""
        return [entry for entry in self.entries.values() if entry.status == status]

    def counts(self) -> dict[str, int]:
        """Number of inputs by status, all three named."""
        found = Counter(entry.status for entry in self.entries.values())
        return {"accepted": found["accepted"], "rejected": found["rejected"], "failed": found["failed"]}

    def reasons(self) -> dict[str, int]:
        """Number of rejected inputs by reason, most frequent first."""
        found = Counter(entry.reason or "" for entry in self.of_status("rejected"))
        return dict(found.most_common())

    def halved(self) -> dict[str, int]:
        """Number of samples that have half their weight by fault, most frequent first; one may have several."""
        found: Counter[str] = Counter()
        for entry in self.of_status("accepted"):
            counts = {name: value for name, value in entry.scores.items() if name.startswith(HALVED)}
            found.update({name.removeprefix(HALVED): int(value) for name, value in counts.items()})
        return dict(found.most_common())

    def seconds(self) -> dict[str, float]:
        """Time of all inputs by stage, the longest first."""
        found: Counter[str] = Counter()
        for entry in self.entries.values():
            found.update(entry.seconds)  # pyright: ignore[reportCallIssue, reportArgumentType]  # a Counter of floats
        return dict(found.most_common())


def staged_samples(entries: Iterable[LedgerEntry], split: str) -> list[StagedSample]:
    """The samples of a split's accepted inputs, by key."""
    found = [s for entry in entries if entry.status == "accepted" and entry.split == split for s in entry.samples]
    return sorted(found, key=lambda staged: staged.key)
