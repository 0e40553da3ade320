"""What a worker pool makes, brought to disk: samples are staged, ends written to the ledger, full shards joined."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from df_data.build.pool.messages import InputResult, MadeSample, Outcome
from df_data.build.rejects import store_image
from df_data.format.ledger import InputFile, Ledger, LedgerEntry, StagedSample
from df_data.format.shards import SplitWriter, shard_of
from df_data.sources.listing import Input, file_state
from df_models.errors import UserError
from df_models.files import sha256_file


@dataclass
class _Shard:
    """A shard in the making: its inputs, and the names of those that have not ended."""

    split: str
    index: int
    inputs: list[Input] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)


def input_file(made: Input) -> InputFile:
    """Return what an input's files are now."""
    words = made.alignment
    return InputFile(
        bytes=file_state(made.path).bytes, words=sha256_file(words) if words is not None and words.is_file() else None
    )


def check_unchanged(ledger: Ledger, inputs: Iterable[Input]) -> None:
    """Refuse to go on with inputs that have been changed since a sample was made of them, or they were rejected.

    (One that failed may be mended, and is then tried again if that is asked for.)

    Raises:
        UserError: naming the first of them.
    """
    entries = ((made, ledger.get(made.name)) for made in inputs)
    changed = [
        made.name
        for made, entry in entries
        if entry is not None and entry.status != "failed" and entry.file not in (None, input_file(made))
    ]
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{changed[0]}{others}: the video or its word times were changed since this build took them (their sizes, "
            f"or `alignments`, are others than in {ledger.path}); put them back, or build into another directory"
        )


class Intake:
    """Keeps the order in which a killed build loses nothing: staged sample, ledger line, shard, manifest.

    Args:
        inputs: all inputs that this build is to bring to an end.
        retry_failed: inputs that failed before are tried again.
    """

    def __init__(
        self, ledger: Ledger, writers: Mapping[str, SplitWriter], inputs: Iterable[Input], *, retry_failed: bool = False
    ) -> None:
        self._ledger, self._writers = ledger, writers
        self._shards: dict[tuple[str, int], _Shard] = {}
        self._staged: dict[str, dict[str, StagedSample]] = defaultdict(dict)
        self._seconds: dict[str, float] = defaultdict(float)
        for made in inputs:
            place = self._place(made)
            self._shards.setdefault(place, _Shard(*place)).inputs.append(made)
        for shard in self._shards.values():
            shard.waiting = self._unfinished(shard, retry_failed)

    def todo(self) -> list[Input]:
        """Return the inputs that have not ended, shard by shard, so that shards are finished along the way."""
        shards = sorted(self._shards.values(), key=lambda shard: (shard.split, shard.index))
        return [made for shard in shards for made in shard.inputs if made.name in shard.waiting]

    def take(self, made: Input, outcome: Outcome) -> bool:
        """Bring to disk what a worker pool made of an input; return whether the input has ended with it."""
        if isinstance(outcome, MadeSample):
            began = time.perf_counter()
            staged = self._writers[made.split].stage_members(outcome.key, outcome.members, made.key)
            self._staged[made.name][outcome.key] = staged
            self._seconds[made.name] += time.perf_counter() - began
            return False
        store_image(self._ledger.path.parent, made.name, outcome.image)
        self._ledger.record(self._entry(made, outcome))
        shard = self._shards[self._place(made)]
        shard.waiting.discard(made.name)
        if not shard.waiting:
            self._join(shard)
        return True

    def finish(self) -> None:
        """Join what a killed build left to join, and close the splits."""
        for shard in self._shards.values():
            self._join(shard)
        for writer in self._writers.values():
            writer.finish()

    def _place(self, made: Input) -> tuple[str, int]:
        return made.split, shard_of(made.key, self._writers[made.split].manifest.num_shards)

    def _unfinished(self, shard: _Shard, retry_failed: bool) -> set[str]:
        again = {staged.key for staged in self._writers[shard.split].missing(shard.index, self._samples(shard))}
        names = set()
        for made in shard.inputs:
            entry = self._ledger.get(made.name)
            retried = retry_failed and entry is not None and entry.status == "failed"
            if entry is None or retried or any(staged.key in again for staged in entry.samples):
                names.add(made.name)
        return names

    def _samples(self, shard: _Shard) -> list[StagedSample]:
        entries = (self._ledger.get(made.name) for made in shard.inputs)
        return [staged for entry in entries if entry is not None for staged in entry.samples]

    def _join(self, shard: _Shard) -> None:
        self._writers[shard.split].finish_shard(shard.index, self._samples(shard))

    def _entry(self, made: Input, result: InputResult) -> LedgerEntry:
        staged, write = self._staged.pop(made.name, {}), self._seconds.pop(made.name, 0.0)
        seconds = result.seconds | ({"write": write} if staged else {})
        return LedgerEntry(
            input=made.name,
            status=result.status,
            split=made.split,
            reason=result.reason,
            detail=result.detail,
            error=result.error,
            scores={name: round(value, 6) for name, value in result.scores.items()},
            samples=tuple(staged[key] for key in result.samples),
            seconds={name: round(value, 4) for name, value in seconds.items()},
            file=input_file(made),
        )
