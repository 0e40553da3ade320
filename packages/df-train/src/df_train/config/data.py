"""What it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from df_data.reading.batch import StructureSource
from df_data.reading.peek import split_location
from df_data.reading.source import is_remote
from df_data.synth.config import SynthConfig
from df_models.settings import FrozenModel, Location

MOST_BUCKETS = 8
"""Lengths of clips in one run (`df_models.attention.masks` keeps 32 masks, and a length takes up to four)."""


class DataConfig(FrozenModel):
    """Where the clips come from, how they are cut and how many make a step.

    Attributes:
        root: a directory that holds `train/` and `val/`, or a URL or pipe under which they are found, as
            `df_data.ShardReader` takes them (`https://host/data`, `pipe:aws s3 cp s3://bucket/data/{} -`).
        synth: the synthetic corpus to make in `root` if it is not there.
        batch_size: clips of one optimizer step over all processes, so a run on two processes takes the same steps as a
            run on one.
        accumulate: passes that each process's part of a step is split into to save memory.
        num_frames: latent frames that clips are cut to; null takes them whole.
        buckets: several such lengths instead. All clips of a pass have one of them, and each clip is cut to the longest
            that it fills. At most 8, since a model keeps its attention masks for that many.
        start: `anchored` clips begin at their stored clip's start, `marked` ones anywhere in it
            (`df_train.data.crops`).
        structure: which vectors of the clips the structure stream is: `structure`, the dataset's own, or `flame`, the
            motion part of its FLAME vectors (expression, rotation, jaw, camera).
        on_error: `stop` at a damaged shard or sample, or `skip` it and count it in `data/skipped`.
        verify: check the sha256 of shards that lie on a disk (those that are fetched always are checked).
        num_workers: threads of each process that read ahead.
        cache_bytes: memory of each process for clips that were read before.
        cache_dir: where the shards of a URL are kept on this machine.
        cache_dir_bytes: how much of them is kept there.
        stream_bytes: memory of each process for the shards of a URL without a `cache_dir`.
    """

    root: Location = Location("data/synth")
    synth: SynthConfig | None = None
    batch_size: int = Field(default=16, ge=1)
    accumulate: int = Field(default=1, ge=1)
    num_frames: int | None = Field(default=None, ge=2)
    buckets: tuple[int, ...] | None = Field(default=None, min_length=1, max_length=MOST_BUCKETS)
    start: Literal["anchored", "marked"] = "anchored"
    structure: StructureSource = "structure"
    on_error: Literal["stop", "skip"] = "stop"
    verify: bool = False
    num_workers: int = Field(default=0, ge=0)
    cache_bytes: int = Field(default=2 << 30, ge=0)
    cache_dir: Location | None = None
    cache_dir_bytes: int = Field(default=256 << 30, ge=1)
    stream_bytes: int = Field(default=8 << 30, ge=1)

    @field_validator("root", mode="before")
    @classmethod
    def _as_text(cls, root: object) -> object:
        return str(root).removeprefix("file://") if isinstance(root, str | Path) else root

    @field_validator("buckets")
    @classmethod
    def _lengths(cls, buckets: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if buckets is not None and (min(buckets) < 2 or list(buckets) != sorted(set(buckets))):
            raise ValueError("give rising lengths of at least 2 latent frames")
        return buckets

    @model_validator(mode="after")
    def _fit_together(self) -> DataConfig:
        if self.num_frames is not None and self.buckets is not None:
            raise ValueError("num_frames and buckets both say how long clips are; give one of them")
        if self.start == "marked" and self.num_frames is None and self.buckets is None:
            raise ValueError("start=marked needs num_frames or buckets: a whole clip has only one start")
        if self.remote and self.synth is not None:
            raise ValueError("synth makes a corpus in a directory, but root is a URL; set synth=null, or another root")
        if self.remote and self.root.startswith("pipe:") and "{}" not in self.root:
            raise ValueError("the pipe in root does not say where a file's name belongs; write {} there")
        if self.cache_dir is not None and not self.remote:
            raise ValueError("cache_dir is for URLs and pipes, and root is a directory; leave cache_dir out")
        return self

    @property
    def remote(self) -> bool:
        """Whether `root` is a URL or a pipe."""
        return is_remote(self.root)

    def split(self, name: str) -> str:
        """Where a split is: a directory, URL or pipe."""
        return split_location(self.root, name)

    @property
    def cut(self) -> str:
        """How clips are cut, in the words of the configuration, for messages."""
        return f"data.num_frames={self.num_frames}" if self.buckets is None else f"data.buckets={list(self.buckets)}"
