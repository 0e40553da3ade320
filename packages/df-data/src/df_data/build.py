"""`df-data build`: videos to shards through the stages, with a ledger line for every input.

The parent process lists the inputs, hands them to a few workers, stages what they return and writes the ledger; a
worker loads the models once and takes one input at a time. Whatever moment a build is killed at, the next run goes
on with the inputs that have no ledger line and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from df_data.build_config import BuildConfig, ClipConfig, ModelPaths
from df_data.config import dump_config
from df_data.ledger import LEDGER_NAME, Ledger, LedgerEntry, dataset_lock, staged_samples
from df_data.sample import EncoderRecord, from_members
from df_data.shards import SplitWriter, num_shards_for, staged_shards
from df_data.sources import Input, list_inputs
from df_data.workers import Crew, InputResult
from df_models.files import atomic_write
from df_models.time import FPS

__all__ = ["BuildConfig", "BuildSummary", "ClipConfig", "ModelPaths", "build"]

SPLITS = ("train", "val")
PIPELINE = "3"
"""Raised when a stage is changed so that its output differs: a dataset half made by the old one is then refused."""


@dataclass(frozen=True)
class BuildSummary:
    """What a build ended with.

    Attributes:
        out: the dataset's directory.
        counts: inputs by status.
        reasons: rejected inputs by reason.
        failures: input and error of each failed one.
        clips: samples by split.
        seconds: length of all samples, by split.
        elapsed: seconds that this run took.
    """

    out: Path
    counts: dict[str, int]
    reasons: dict[str, int]
    failures: tuple[tuple[str, str], ...]
    clips: dict[str, int]
    seconds: dict[str, float]
    elapsed: float

    def __str__(self) -> str:
        """Return the summary for a person."""
        lines = [
            f"{self.out}: " + ", ".join(f"{number} {status}" for status, number in self.counts.items()),
            *(f"  rejected: {number} x {reason}" for reason, number in self.reasons.items()),
            *(f"  failed: {name}: {error}" for name, error in self.failures[:10]),
            *(f"  {split}: {self.clips[split]} clips, {self.seconds[split]:.0f} s" for split in self.clips),
            f"  every input's reason and scores: {self.out / LEDGER_NAME} (this run took {self.elapsed:.0f} s)",
        ]
        return "\n".join(lines)


def build(config: BuildConfig, *, progress: bool = True) -> BuildSummary:
    """Build the dataset, or go on with it where a killed build stopped.

    Raises:
        UserError: a missing folder, model or encoder; a directory made with another configuration or in use; a
            worker process that died.
    """
    started = time.monotonic()
    inputs = list_inputs(config.sources, config.split)
    out = Path(config.out)
    with dataset_lock(out), Crew(config) as crew:
        writers = _writers(config, out, inputs, crew.records())
        atomic_write(out / "config.yaml", dump_config(config))
        ledger = Ledger(out / LEDGER_NAME)
        todo = [made for made in inputs if not _is_done(ledger.get(made.name), writers)]
        _run(todo, len(inputs), crew, ledger, writers, progress)
        for split, writer in writers.items():
            staged = staged_samples([e for made in inputs if (e := ledger.get(made.name))], split)
            for shard in staged_shards(staged):
                writer.finish_shard(shard, staged)
            writer.finish()
    return _summary(out, ledger, writers, time.monotonic() - started)


def fingerprint(config: BuildConfig, inputs: list[Input], records: Mapping[str, EncoderRecord]) -> str:
    """Return the sha256 of everything that decides the bytes of the shards: settings, models, inputs and splits."""
    settings = config.model_dump(mode="json", exclude={"out", "workers", "models", "sources"})
    document = {
        "pipeline": PIPELINE,
        "settings": settings,
        "models": {role: record.sha256 for role, record in sorted(records.items())},
        "inputs": [(made.name, made.identity, made.licence, made.split) for made in inputs],
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _writers(
    config: BuildConfig, out: Path, inputs: list[Input], records: Mapping[str, EncoderRecord]
) -> dict[str, SplitWriter]:
    made_by = fingerprint(config, inputs, records)
    counts = {split: sum(made.split == split for made in inputs) for split in SPLITS}
    return {
        split: SplitWriter(
            out,
            split,
            num_shards=num_shards_for(count, config.clips_per_shard),
            build=made_by,
            encoders=records,
            crop=config.stages.crop,
        )
        for split, count in counts.items()
    }


def _is_done(entry: LedgerEntry | None, writers: Mapping[str, SplitWriter]) -> bool:
    if entry is None:
        return False
    if entry.status != "accepted":
        return True
    writer = writers.get(entry.split or "")
    return writer is not None and all(writer.has(staged) for staged in entry.samples)


def _run(
    todo: list[Input],
    total: int,
    crew: Crew,
    ledger: Ledger,
    writers: Mapping[str, SplitWriter],
    progress: bool,
) -> None:
    done = total - len(todo)
    with tqdm(total=total, initial=done, desc="videos", unit="video", disable=not progress) as bar:
        for made, result in crew.run(todo):
            ledger.record(_entry(made, result, writers))
            bar.set_postfix_str(", ".join(f"{number} {status}" for status, number in ledger.counts().items()))
            bar.update()


def _entry(made: Input, result: InputResult, writers: Mapping[str, SplitWriter]) -> LedgerEntry:
    samples = [from_members(key, members, made.name) for key, members in result.samples.items()]
    staged = tuple(writers[made.split].stage(sample, group=made.key) for sample in samples)
    return LedgerEntry(
        input=made.name,
        status=result.status,
        split=made.split,
        reason=result.reason,
        error=result.error,
        scores={name: round(value, 6) for name, value in result.scores.items()},
        samples=staged,
    )


def _summary(out: Path, ledger: Ledger, writers: Mapping[str, SplitWriter], elapsed: float) -> BuildSummary:
    return BuildSummary(
        out=out,
        counts=ledger.counts(),
        reasons=ledger.reasons(),
        failures=tuple((entry.input, entry.error or "") for entry in ledger.of_status("failed")),
        clips={split: writer.manifest.count for split, writer in writers.items()},
        seconds={split: writer.manifest.pixel_frames / FPS for split, writer in writers.items()},
        elapsed=elapsed,
    )
