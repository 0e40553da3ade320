"""What a reader is asked for, held against what its split holds: what does not fit is told before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from df_data.format.manifest import Manifest
from df_data.reading.batch import AudioPool, CropStart, Recipe, StructureSource
from df_data.reading.order import SHARDS_MIXED
from df_models.errors import UserError
from df_models.time import latent_length

OnError = Literal["stop", "skip"]
_CHOICES = (("start", CropStart), ("audio_pool", AudioPool), ("structure", StructureSource), ("on_error", OnError))


@dataclass(frozen=True)
class ReaderOptions:
    """How a split is read.

    Attributes:
        batch_size: clips per batch and rank.
        seed: of the order and of all choices below.
        num_frames: latent frames per clip; None takes clips whole (all must be equal then).
        buckets: latent frames of several lengths instead; each clip is cut to the longest that it fills.
        start: ``anchored`` crops begin at their clip's start; ``marked`` ones anywhere (:mod:`df_data.reading.batch`).
        shuffle: permute each epoch; otherwise the order of the manifest.
        audio_pool: how two audio features become one slot.
        structure: which vectors of a clip are its structure: its own, or the motion part of its FLAME vectors.
        drop_audio, drop_reference: share of the clips whose condition is replaced by zeros, for training without
            df-train (whose objective drops conditions itself).
        loop: go on with the next epoch; otherwise an iteration ends with the epoch, and the next one is the next epoch.
        on_error: ``stop`` with an error at the first damaged sample or shard, or ``skip`` it with a warning
            (:mod:`df_data.reading.reader`) and count it in ``ShardReader.skipped``.
        verify: check the sha256 of each shard of a directory or a cache when it is opened.
        num_workers: threads that read ahead (0: read when asked).
        cache_bytes: decoded clips kept in memory, the oldest forgotten first.
        cache_dir, cache_dir_bytes: where the shards of a URL are kept, and how much of them.
        stream_bytes: memory for shards of a URL without a `cache_dir`, which are read through.

    Raises:
        UserError: a value is outside its range, or two do not fit together.
    """

    batch_size: int
    seed: int
    num_frames: int | None = None
    buckets: Sequence[int] | None = None
    start: CropStart = "anchored"
    shuffle: bool = True
    audio_pool: AudioPool = "concat"
    structure: StructureSource = "structure"
    drop_audio: float = 0.0
    drop_reference: float = 0.0
    loop: bool = True
    on_error: OnError = "stop"
    verify: bool = False
    num_workers: int = 0
    cache_bytes: int = 2 << 30
    cache_dir: Path | str | None = None
    cache_dir_bytes: int = 256 << 30
    stream_bytes: int = 8 << 30

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}: give 1 or more")
        for name in ("num_workers", "cache_bytes", "cache_dir_bytes", "stream_bytes"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: give 0 or more")
        for name in ("drop_audio", "drop_reference"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name}={getattr(self, name)} is not a share in 0..1")
        for name, choices in _CHOICES:
            if getattr(self, name) not in get_args(choices):
                known = " or ".join(repr(choice) for choice in get_args(choices))
                raise UserError(f"{name}={getattr(self, name)!r}; use {known}")
        if self.num_frames is not None and self.buckets is not None:
            raise UserError("num_frames and buckets both say how long clips are; give one of them")
        if self.start == "marked" and not (self.num_frames or self.buckets):
            raise UserError("start='marked' needs num_frames or buckets: a whole clip has only one start")

    @property
    def recipe(self) -> Recipe:
        """How clips become batches."""
        return Recipe(self.seed, self.audio_pool, self.start, self.drop_audio, self.drop_reference, self.structure)


def checked_place(state: Mapping[str, Any], num_buckets: int) -> tuple[int, ...]:
    """Return how many samples of each bucket a saved state says were given.

    Raises:
        UserError: it does not say so, or no such numbers.
    """
    name = "given" if num_buckets > 1 else "position"
    found: object = state.get(name)
    listed = found if num_buckets > 1 else [found]
    given = [n for n in listed if type(n) is int and n >= 0] if isinstance(listed, list | tuple) else []
    if not isinstance(listed, list | tuple) or not len(given) == len(listed) == num_buckets:
        wanted = f"a list of {num_buckets} whole numbers from 0" if num_buckets > 1 else "a whole number from 0"
        raise UserError(
            f"the saved place is damaged: {name} is {found!r} instead of {wanted}; take another checkpoint, or start a "
            "new run"
        )
    return tuple(given)


def checked_manifest(manifest: Manifest, where: str) -> Manifest:
    """Return a manifest that is complete and not empty."""
    if not manifest.complete:
        raise UserError(f"{where} is not complete: its build was interrupted; run the build again")
    if not manifest.count:
        raise UserError(f"{where} holds no samples")
    return manifest


def checked_lengths(
    manifest: Manifest, where: str, num_frames: int | None, buckets: Sequence[int] | None
) -> tuple[int | None, ...]:
    """The length of each bucket's crops in latent frames; one bucket without `buckets` (None: whole clips)."""
    shortest = latent_length(min(entry.shortest for entry in manifest.shards))
    if num_frames is not None and not 1 <= num_frames <= shortest:
        raise UserError(
            f"num_frames={num_frames} latent frames, but the shortest clip of {where} has {shortest}: "
            f"use 1 to {shortest}"
        )
    if buckets is None:
        return (num_frames,)
    lengths = tuple(sorted(set(buckets)))
    if not lengths or lengths[0] < 1:
        raise UserError(f"buckets={list(buckets)}: give lengths of at least one latent frame")
    if lengths[0] > shortest:
        raise UserError(
            f"the shortest bucket has {lengths[0]} latent frames, but the shortest clip of {where} has {shortest}: "
            f"add a bucket of at most {shortest}, so that no clip is lost"
        )
    return lengths


def _mixed_bytes(manifest: Manifest, shuffle: bool) -> list[int]:
    """Sizes of the shards that are read at a time, if they are the largest."""
    return sorted((entry.bytes for entry in manifest.shards), reverse=True)[: SHARDS_MIXED if shuffle else 1]


def check_room(manifest: Manifest, shuffle: bool, option: str, room: int) -> None:
    """Refuse to fetch the same shards again and again within an epoch."""
    mixed = _mixed_bytes(manifest, shuffle)
    if sum(mixed) > room:
        raise UserError(
            f"{option}={room}, but the samples of {len(mixed)} shards are mixed, which take up to {sum(mixed)} bytes: "
            f"raise {option}" + ("" if option == "cache_dir_bytes" else " or give a cache_dir")
        )


def places_ahead(manifest: Manifest, shuffle: bool, room: int | None) -> int:
    """How many places before their turn shards are opened: half of those that are mixed.

    0, not at all, where the next shards would drive out those in use (``room`` in bytes; None: a directory).
    """
    mixed = _mixed_bytes(manifest, shuffle)
    if room is not None and 2 * sum(mixed) > room:
        return 0
    return max(1, len(mixed) * manifest.count // (2 * len(manifest.shards)))
