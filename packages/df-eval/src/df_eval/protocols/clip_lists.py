"""The two disjoint clip lists of a protocol: *dev*, which settings are chosen on, and *test*, which is quoted.

A dataset's held-out clips belong to one or the other by a hash of their name, and stand in the order of that hash: the
lists depend on the names alone, not on how a dataset was built, and a clip that is dev in one protocol is dev in all.
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

ClipSplit = Literal["dev", "test"]


def clip_hash(key: str) -> str:
    """What orders the clips of a dataset, and decides which list each is in."""
    return hashlib.sha256(f"df-eval clip {key}".encode()).hexdigest()


def split_of_clip(key: str) -> ClipSplit:
    """The list that a dataset's clip belongs to."""
    return "dev" if int(clip_hash(key)[0], 16) % 2 == 0 else "test"


def stored_digest(keys: Iterable[str]) -> str:
    """Hash of a list of a dataset's clips."""
    return _digest(list(keys))


def rendered_digest(config: SynthConfig) -> str:
    """Hash of a list of rendered clips: what decides each of them, but not the size in pixels."""
    return _digest([GENERATOR, [[job.key, job.seed, job.identity, job.frames] for job in jobs_of(config, "val")]])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
