"""The held-out clips of validation: the first of the `val` split, cut as training cuts its own, at their start."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from df_data.format.manifest import Manifest, ShardEntry
from df_data.reading import Batch
from df_data.reading.batch import Recipe, clip_of, collate
from df_data.reading.options import checked_manifest
from df_data.reading.peek import manifest_of
from df_data.reading.shard import RawSample
from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.time import latent_length
from df_train.config import DataConfig, TrainConfig
from df_train.data.dataset import stored
from df_train.objective import weight_of
from df_train.validation.showing import SEED

OFF = "set validation.every=0 to train without it"


def training_lengths(data: DataConfig, shortest: int) -> tuple[int, ...]:
    """The lengths that training cuts clips to, in latent frames, rising.

    Args:
        shortest: training clip, in latent frames: the length of all where they are taken whole.
    """
    if data.buckets is not None:
        return data.buckets
    return (shortest if data.num_frames is None else data.num_frames,)


def check_held_out(config: TrainConfig, manifest: Manifest | None) -> None:
    """Refuse validation on a dataset that holds nothing to measure, or clips shorter than training's.

    Args:
        manifest: of the training split; None for a synthetic corpus that may still have to be made.

    Raises:
        UserError: with the way to train without.
    """
    if not config.validation.every:
        return
    synth = config.data.synth
    if manifest is None:
        assert synth is not None
        shortest, held = latent_length(synth.frames), latent_length(synth.val_frames)
    else:
        shortest, held = (
            _shortest(manifest.shards),
            _shortest(_first(_held_out(config).shards, config.validation.clips)),
        )
    wanted = training_lengths(config.data, shortest)[0]
    if held < wanted:
        raise UserError(
            f"validation.every={config.validation.every}, but the shortest of the clips of {config.data.split('val')} "
            f"that are measured has {held} latent frames, and training takes {wanted}; {OFF}, or lower data.num_frames"
        )


def _shortest(shards: Iterable[ShardEntry]) -> int:
    return min((latent_length(shard.shortest) for shard in shards), default=0)


def _first(shards: Sequence[ShardEntry], clips: int) -> Sequence[ShardEntry]:
    """The shards that the first so many clips lie in."""
    before = itertools.accumulate((shard.count for shard in shards), initial=0)
    return [shard for shard, counted in zip(shards, before) if counted < clips]


def _held_out(config: TrainConfig) -> Manifest:
    location = config.data.split("val")
    try:
        return checked_manifest(manifest_of(location), location)
    except UserError as error:
        raise UserError(
            f"validation.every={config.validation.every} measures held-out clips, but {error}; {OFF}"
        ) from error


def _stored(config: TrainConfig) -> Iterator[RawSample]:
    try:
        yield from stored(config.data, "val")
    except UserError as error:
        raise UserError(f"held-out clips cannot be read: {error}; or {OFF}") from error


def _check_complete(sample: RawSample, config: TrainConfig, model: DualForceConfig) -> None:
    """Here, before the first step, and not at the first measurement."""
    for wanted, name, what in (
        (weight_of("flame", config.objective, 0) > 0, "flame", "FLAME vectors"),
        (model.text_dim > 0, "text_features", "text features"),
    ):
        if wanted and name not in sample.tensors:
            raise UserError(
                f"{config.data.split('val')}: clip {sample.key} holds no {what}, which training reads; build that "
                f"split again with them, or {OFF}"
            )


def read_clips(config: TrainConfig, manifest: Manifest, model: DualForceConfig) -> list[Batch]:
    """The clips, a batch of one each, on the CPU; fewer than asked for where the split holds fewer.

    Each is cut to the longest of training's lengths that it fills, and its reference image is the same in every run.

    Args:
        manifest: of the training split.

    Raises:
        UserError: they cannot be read, one is too short, or lacks what a loss or the model reads.
    """
    check_held_out(config, manifest)
    lengths = training_lengths(config.data, _shortest(manifest.shards))
    assert model.audio_pool is not None
    recipe = Recipe(SEED, model.audio_pool, structure=config.data.structure)
    clips = []
    for sample in itertools.islice(_stored(config), config.validation.clips):
        _check_complete(sample, config, model)
        have = len(sample.tensors["video_latent"])
        fits = [length for length in lengths if length <= have]
        clips.append(collate([clip_of(sample, max(fits, default=lengths[0]))], [0], None, recipe))
    if not clips:
        raise UserError(f"{config.data.split('val')} holds no sample that can be read; build it again, or {OFF}")
    return clips
