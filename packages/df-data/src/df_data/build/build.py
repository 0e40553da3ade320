"""`df-data build`: videos to shards through the stages, with a ledger line for every input.

This process lists the inputs, hands them to a worker pool (:mod:`df_data.build.pool`), stages what it returns and
writes the ledger; a worker loads the models once and takes one input at a time. Whatever moment a build is killed at,
the next run goes on with the inputs that have no ledger line and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from df_data.build.config import BuildConfig, ClipConfig, ModelPaths
from df_data.build.devices import resolve_devices
from df_data.build.intake import Intake, check_unchanged
from df_data.build.part import refuse_other_part
from df_data.build.pool import WorkerPool, open_pool
from df_data.build.pool.messages import ModelsFactory
from df_data.build.prompt import caption_folder, encode_captions
from df_data.build.stand_in import StandIns, as_the_ledger_has_it
from df_data.build.workers import worker_models
from df_data.common.wording import counted
from df_data.format.fingerprint import fingerprints
from df_data.format.ledger import LEDGER_NAME, Ledger
from df_data.format.sample import EncoderRecord
from df_data.format.shards import SplitWriter, num_shards_for, shard_of
from df_data.sources.division import write_division
from df_data.sources.listing import Input, division_of, least_seconds, list_inputs
from df_models.encoders import encoder_id
from df_models.encoders.weights import split_spec
from df_models.files import atomic_write, check_output_directory, remove_leftovers
from df_models.locks import one_writer
from df_models.settings import dump_config
from df_models.time import FPS

__all__ = ["BuildConfig", "BuildSummary", "ClipConfig", "ModelPaths", "build"]

SPLITS = ("train", "val")
PIPELINE = "9"
"""Raised when a stage is changed so that its output differs: a dataset half made by the old one is then refused."""
NOT_IN_THE_BYTES = {"out", "models", "sources", "workers", "device", "executor", "timeout_s", "retries", "part"}
"""Settings that do not decide the bytes of the shards; models and inputs do, but not by their paths."""
ENCODERS = ("structure", "flame", "video_vae", "audio_encoder", "reference_encoder")
"""Settings that name an encoder, perhaps with the place of its weights (``text.text_encoder`` is one too)."""
WHAT_TO_DO = {
    "train": "there is nothing to train on: add videos, or loosen the limits that refused these, in another directory",
    "val": "training cannot be measured: add videos, loosen the limits that refused these, or set another split.salt, "
    "in another directory",
}
"""By the split that is empty."""
SLOWEST = 5
"""Stages that the summary names."""


@dataclass(frozen=True)
class BuildSummary:
    """What a build ended with.

    Attributes:
        out: the dataset's directory.
        counts: inputs by status.
        reasons: rejected inputs by reason.
        halved: samples that have half their weight by fault; one may have several.
        failures: input and error of each failed one.
        clips: samples by split.
        seconds: length of all samples, by split.
        stage_seconds: time that the inputs took, by stage, the longest first; of all runs of this build together.
        elapsed: seconds that this run took.
        empty: splits that inputs belong to, but no sample.
        stand_ins: accepted inputs that are held out in place of those that were to be, none of which was accepted.
        part: which part of the dataset this is, ``1/1`` for all of it.
    """

    out: Path
    counts: dict[str, int]
    reasons: dict[str, int]
    halved: dict[str, int]
    failures: tuple[tuple[str, str], ...]
    clips: dict[str, int]
    seconds: dict[str, float]
    stage_seconds: dict[str, float]
    elapsed: float
    empty: tuple[str, ...] = ()
    stand_ins: tuple[str, ...] = ()
    part: str = "1/1"

    def __str__(self) -> str:
        """Return the summary for a person."""
        lines = [
            f"{self.out}: " + ", ".join(f"{number} {status}" for status, number in self.counts.items()),
            *(f"  rejected: {number} x {reason}" for reason, number in self.reasons.items()),
            *(f"  halved: {counted(number, 'clip')}, {fault}" for fault, number in self.halved.items()),
            *(f"  failed: {name}: {error}" for name, error in self.failures[:10]),
            *(f"  {split}: {counted(self.clips[split], 'clip')}, {self.seconds[split]:.0f} s" for split in self.clips),
            *(f"  held out in place of inputs that were refused: {name}" for name in self.stand_ins),
            *(
                f"  warning: no input of {split} was accepted, so that split is empty; {WHAT_TO_DO[split]}"
                for split in self.empty
            ),
            *self._slowest(),
            f"  every input's reason and scores: {self.out / LEDGER_NAME} (this run took {self.elapsed:.0f} s)",
            *self._merge(),
        ]
        return "\n".join(lines)

    def _merge(self) -> list[str]:
        if self.part == "1/1":
            return []
        return [f"  this is part {self.part} of the dataset, not to be trained on alone: join all with df-data merge"]

    def _slowest(self) -> list[str]:
        total = sum(self.stage_seconds.values())
        if not total:
            return []
        shares = [f"{name} {time / total:.0%}" for name, time in list(self.stage_seconds.items())[:SLOWEST]]
        return [f"  slowest stages: {', '.join(shares)} of {total:.0f} s of work"]


def build(
    config: BuildConfig,
    *,
    retry_failed: bool = False,
    retry_damaged: bool = False,
    progress: bool = True,
    make: ModelsFactory = worker_models,
) -> BuildSummary:
    """Build the dataset, or go on with it where a killed build stopped.

    Shards that have gone, or are shorter or longer than they were, are made again from their inputs.

    Args:
        retry_failed: try inputs again that failed before.
        retry_damaged: read all shards, and make those again too whose bytes have changed.
        make: makes the models of a worker, :class:`df_data.build.workers.WorkerModels` or others that do as it does.

    Raises:
        UserError: a missing folder, model or encoder; a directory made with another configuration or in use; inputs
            that were changed since they were taken; a directory of another part.
        OSError: the disk is full. What was done is kept; run again when there is space.
    """
    started = time.monotonic()
    out = config.out.path
    check_output_directory(out, inputs=[source.folder.path for source in config.sources])
    inputs = list_inputs(config.sources, config.split, config.clips.val_frames, out)
    with one_writer(out, "df-data build"), open_pool(config, make) as pool:
        writers = _writers(config, out, inputs, pool.records())
        remove_leftovers(out)
        ledger = Ledger(out / LEDGER_NAME)
        check_unchanged(ledger, inputs)
        refuse_other_part(out, config.part)
        atomic_write(out / "config.yaml", dump_config(config))
        write_division(out, division_of(inputs, config.split, config.clips.val_frames))
        for writer in writers.values():
            writer.forget_damaged(verify=retry_damaged)
        stand_ins = StandIns(inputs, config.split, least_seconds(config.clips.val_frames))
        run = _Run(config, ledger, writers, pool, stand_ins, retry_failed)
        run.take(as_the_ledger_has_it(inputs, ledger, config.split), progress)
    summary = _summary(out, ledger, writers, time.monotonic() - started, config.part)
    planned = {made.name for made in inputs if made.split == "val"}
    held = (entry.input for entry in ledger.of_status("accepted") if entry.split == "val")
    return replace(summary, stand_ins=tuple(name for name in held if name not in planned))


def _encode_captions(
    config: BuildConfig, todo: list[Input], records: Mapping[str, EncoderRecord], progress: bool
) -> None:
    """Encode the captions of the inputs that are to be taken, for the workers to read."""
    captions = {made.caption for made in todo if made.caption is not None}
    if config.text is None or not captions:
        return
    folder = caption_folder(config.out.path, records["text"].sha256, config.dtype)
    device = resolve_devices(config.device)[0]
    encode_captions(config.text, config.dtype, device, captions, folder, progress)


def fingerprint(config: BuildConfig, inputs: list[Input], records: Mapping[str, EncoderRecord]) -> tuple[str, ...]:
    """Return the hash of everything that decides the bytes of the shards: settings, models, inputs and splits.

    After it comes that of a program that did not know all settings (:mod:`df_data.format.fingerprint`).
    """

    def made_by(settings: dict[str, Any]) -> dict[str, Any]:
        return {
            "pipeline": PIPELINE,
            "settings": _without_locations(settings),
            "models": {role: record.sha256 for role, record in sorted(records.items())},
            "inputs": [
                (made.name, made.identity, made.licence, made.split, dict(made.provenance))
                + (() if made.caption is None else (made.caption,))
                for made in inputs
            ],
        }

    return fingerprints(config, NOT_IN_THE_BYTES, config.out.path, made_by)


def _without_locations(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose encoders have names alone: where their weights lie decides nothing, their hashes do."""
    named = {key: split_spec(settings[key])[0] for key in ENCODERS if settings.get(key) is not None}
    if "audio_encoder" in settings:
        named["audio_encoder"] = encoder_id("audio", settings["audio_encoder"])
    text = settings.get("text")
    prompt = {} if text is None else {"text": text | {"text_encoder": split_spec(text["text_encoder"])[0]}}
    return settings | named | prompt


def _writers(
    config: BuildConfig, out: Path, inputs: list[Input], records: Mapping[str, EncoderRecord]
) -> dict[str, SplitWriter]:
    made_by, *older = fingerprint(config, inputs, records)
    counts = {split: sum(made.split == split for made in inputs) for split in SPLITS}
    return {
        split: SplitWriter(
            out,
            split,
            num_shards=num_shards_for(count, config.clips_per_shard),
            build=made_by,
            older=older,
            encoders=records,
            crop=config.crop_rule,
            faces=config.faces,
        )
        for split, count in counts.items()
    }


@dataclass(frozen=True)
class _Run:
    """One run of a build: its inputs to their ends, the held-out ones first."""

    config: BuildConfig
    ledger: Ledger
    writers: Mapping[str, SplitWriter]
    pool: WorkerPool
    stand_ins: StandIns
    retry_failed: bool

    def take(self, inputs: list[Input], progress: bool) -> None:
        """Take the held-out inputs, others in their place if none of them is accepted, and then all the rest."""
        total, left = len(self._mine(inputs)), self._intake(inputs, self.retry_failed).todo()
        _encode_captions(self.config, left, self.pool.records(), progress)
        with tqdm(total=total, initial=total - len(left), desc="videos", unit="video", disable=not progress) as bar:
            self._pass(inputs, "val", bar, self.retry_failed)
            while (more := self._with_stand_in(inputs)) is not None:
                inputs = more
                self._pass(inputs, "val", bar)
            self._pass(inputs, "train", bar, self.retry_failed)
        self._intake(inputs).finish()

    def _with_stand_in(self, inputs: list[Input]) -> list[Input] | None:
        if self.config.part != "1/1":  # what becomes of the held-out inputs of other parts is not known here
            return None
        return self.stand_ins.next_held_out(inputs, self.ledger)

    def _mine(self, inputs: list[Input]) -> list[Input]:
        shards = {split: writer.manifest.num_shards for split, writer in self.writers.items()}
        return [made for made in inputs if self.config.takes(shard_of(made.key, shards[made.split]))]

    def _intake(self, inputs: list[Input], retry_failed: bool = False) -> Intake:
        return Intake(self.ledger, self.writers, self._mine(inputs), retry_failed=retry_failed)

    def _pass(self, inputs: list[Input], split: str, bar: tqdm[Any], retry_failed: bool = False) -> None:
        intake = self._intake([made for made in inputs if made.split == split], retry_failed)
        for made, outcome in self.pool.run(intake.todo()):
            if intake.take(made, outcome):
                counts = self.ledger.counts().items()
                bar.set_postfix_str(", ".join(f"{number} {status}" for status, number in counts))
                bar.update()


def _summary(out: Path, ledger: Ledger, writers: Mapping[str, SplitWriter], elapsed: float, part: str) -> BuildSummary:
    counts = {split: writer.manifest.count for split, writer in writers.items()}
    wanted = {entry.split for entry in ledger.entries.values()}
    return BuildSummary(
        out=out,
        counts=ledger.counts(),
        reasons=ledger.reasons(),
        halved=ledger.halved(),
        failures=tuple((entry.input, entry.error or "") for entry in ledger.of_status("failed")),
        clips=counts,
        seconds={split: writer.manifest.pixel_frames / FPS for split, writer in writers.items()},
        stage_seconds=ledger.seconds(),
        elapsed=elapsed,
        empty=tuple(split for split, count in counts.items() if split in wanted and not count),
        part=part,
    )
