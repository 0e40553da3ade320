"""What crosses the border between a build and its workers: plain values and bytes, never arrays or models.

To a worker goes an :class:`~df_data.sources.listing.Input`. Back come its samples, each as soon as it is made, so that
neither side holds more than a few of them however long a video is, and then how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from df_data.build.config import BuildConfig
from df_data.format.sample import EncoderRecord
from df_data.sources.listing import Input


@dataclass(frozen=True)
class MadeSample:
    """One sample of an input: its members' bytes by file name."""

    key: str
    members: dict[str, bytes]


@dataclass(frozen=True)
class InputResult:
    """How an input ended.

    Attributes:
        scores: what the filters looked at.
        reason: of a rejected input, the name of the filter.
        detail: of a rejected input, one line for a person.
        image: of a rejected input, some of its frames as a JPEG, if it can be decoded.
        error: of a failed input, one line.
        samples: keys of the samples that were made of it, all sent before.
        seconds: time that its stages took, by name.
    """

    status: Literal["accepted", "rejected", "failed"]
    scores: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    detail: str | None = None
    image: bytes | None = None
    error: str | None = None
    samples: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


Outcome = MadeSample | InputResult


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life, from a long video of which nothing comes: a worker that is silent for too long hangs."""


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its models: id and hash of each by role."""

    records: dict[str, EncoderRecord]


@dataclass(frozen=True)
class WorkerFailure:
    """A worker cannot go on, and no other could: a model is missing, the disk is full."""

    error: Exception


Message = Outcome | Heartbeat | Ready | WorkerFailure


class Models(Protocol):
    """What a worker works with."""

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash of every model by role."""
        ...

    def process(self, made: Input) -> Iterator[Outcome | Heartbeat]:
        """Yield the samples of an input as they are made, signs of life between, and, once, last, how it ended."""
        ...

    def close(self) -> None:
        """Free what the models hold."""
        ...


ModelsFactory = Callable[[BuildConfig], Models]
"""Makes the models, in the process that needs them; a class or function that can be imported by its name."""


class WorkerPool(Protocol):
    """The workers that do a build's work."""

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash of every model by role.

        Raises:
            UserError: a model is missing or cannot be loaded.
        """
        ...

    def run(self, todo: list[Input]) -> Iterator[tuple[Input, Outcome]]:
        """Process inputs; yield what is made of each, of several inputs in any order, each ended by an InputResult."""
        ...

    def close(self, *, now: bool) -> None:
        """End all workers, ``now`` without waiting for what they are doing."""
        ...
