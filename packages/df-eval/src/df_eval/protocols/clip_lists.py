"""The two disjoint clip lists of a protocol: *dev*, which settings are chosen on, and *test*, which is quoted.

A dataset's held-out clips belong to one or the other by a hash of the recording that they were cut from, and stand in
the order of a hash of their own name: the lists depend on names alone, not on how a dataset was built, a clip that is
dev in one protocol is dev in all, and no recording is in both. A person may be, who has several recordings.
Rendered clips are told by the seed of their list: other seeds give other people and sentences.

A list's own hash says whether two machines measured the same clips.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Literal

from df_data.synth.config import SynthConfig
from df_data.synth.corpus import GENERATOR, jobs_of

SYNTH = "synth"
"""`source` of all rendered clips."""
ClipSplit = Literal["dev", "test"]


def clip_hash(name: str) -> str:
    """What orders the clips of a dataset by their names, and decides which list a recording is in."""
    return hashlib.sha256(f"df-eval clip {name}".encode()).hexdigest()


def split_of_recording(source: str, key: str) -> ClipSplit:
    """The list of the clip ``key`` that was cut from ``source`` (of its metadata); a rendered one is its own source."""
    return "dev" if int(clip_hash(key if source == SYNTH else source)[0], 16) % 2 == 0 else "test"


def stored_digest(keys: Iterable[str]) -> str:
    """Hash of a list of a dataset's clips."""
    return _digest(list(keys))


def rendered_digest(config: SynthConfig) -> str:
    """Hash of a list of rendered clips: what decides each of them, but not the size in pixels."""
    return _digest([GENERATOR, [[job.key, job.seed, job.identity, job.frames] for job in jobs_of(config, "val")]])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
