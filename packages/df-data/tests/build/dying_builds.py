"""A builder in small, and a process that dies in the middle of it; forked by a server that has no threads.

Lives in a module of its own, which those processes import by its name (conftest.py puts this folder on the path).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from fake_models import ENCODERS, fake_sample

from df_data.format.ledger import Ledger, LedgerEntry, staged_samples
from df_data.format.sample import EncoderRecord, Sample
from df_data.format.shards import SplitWriter, staged_shards
from df_data.sources.listing import Input

CLIPS, SHARDS = 6, 2
PATIENCE_S = 60.0


def build(
    root: Path,
    samples: Iterable[Sample] | None = None,
    encoders: Mapping[str, EncoderRecord] = ENCODERS,
) -> None:
    """What every builder does: stage what the ledger lacks, join, finish."""
    writer = SplitWriter(root, "train", num_shards=SHARDS, build="b", encoders=encoders)
    ledger = Ledger(root / "ledger.jsonl")
    for sample in small_samples() if samples is None else samples:
        entry = ledger.get(sample.key)
        if entry is None or not all(writer.has(staged) for staged in entry.samples):
            staged = writer.stage(sample)
            ledger.record(LedgerEntry(input=sample.key, status="accepted", split="train", samples=(staged,)))
    everything = staged_samples(ledger.entries.values(), "train")
    for shard in staged_shards(everything):
        writer.finish_shard(shard, everything)
    writer.finish()


def small_samples() -> Iterator[Sample]:
    """Samples that are equal in every process."""
    made = Input("clip", "clip", Path("clip"), "p", "CC0-1.0", "train", None)
    for index in range(CLIPS):
        yield replace(fake_sample(made, index), video=b"mp4 of %d" % index)


def killed_at(root: Path, moment: int) -> bool:
    """Build in a process that kills itself before (even) or after (odd) its moment/2-th change of the disk.

    Returns whether it was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["df_data.build.workers"])  # as a build does: the server is shared
    process = context.Process(target=_build_and_die, args=(root, moment))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode in (0, -signal.SIGKILL), f"it neither ended nor died: {process.exitcode}"
    return process.exitcode != 0


def _build_and_die(root: Path, moment: int) -> None:
    calls = [0]

    def dying(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **options: object) -> None:
            here = calls[0] == moment // 2
            calls[0] += 1
            if here and moment % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **options)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in ("replace", "fsync", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    build(root)
