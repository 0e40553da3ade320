"""What a reader is asked for, held against what its split holds: what does not fit is told before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from df_data.format.manifest import Manifest
from df_data.reading.batch import AudioPool, Recipe, Start
from df_data.reading.order import SHARDS_MIXED
from df_models.errors import UserError
from df_models.time import latent_length


def checked_recipe(
    seed: int, audio_pool: AudioPool, start: Start, drop_audio: float, drop_reference: float, cropped: bool
) -> Recipe:
    """Return how clips become batches; UserError for a share outside 0 to 1, or a start that is not to be had.

    Args:
        cropped: whether clips are cut, so that there are several starts.
    """
    for name, share in (("drop_audio", drop_audio), ("drop_reference", drop_reference)):
        if not 0.0 <= share <= 1.0:
            raise UserError(f"{name}={share} is not a share in 0..1")
    if start not in ("anchored", "marked"):
        raise UserError(f"start={start!r}; use 'anchored' or 'marked'")
    if start == "marked" and not cropped:
        raise UserError("start='marked' needs num_frames or buckets: a whole clip has only one start")
    return Recipe(seed, audio_pool, start, drop_audio, drop_reference)


def check_amounts(**amounts: int) -> None:
    """Refuse options that count threads or bytes and are below 0."""
    for name, amount in amounts.items():
        if amount < 0:
            raise UserError(f"{name}={amount}: give 0 or more")


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
    if num_frames is not None and buckets is not None:
        raise UserError("num_frames and buckets both say how long clips are; give one of them")
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
