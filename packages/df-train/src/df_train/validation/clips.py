"""The held-out clips of validation: the first of the `val` split, cut as training cuts its own, at their start."""

from __future__ import annotations

import itertools

from df_data.format.manifest import Manifest
from df_data.reading import Batch
from df_data.reading.batch import Recipe, clip_of, collate
from df_data.reading.options import checked_manifest
from df_data.reading.peek import manifest_of
from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.time import latent_length
from df_train.config import DataConfig, TrainConfig
from df_train.dataset import stored
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
        shortest, held = _shortest(manifest), _shortest(_held_out(config))
    wanted = training_lengths(config.data, shortest)[0]
    if held < wanted:
        raise UserError(
            f"validation.every={config.validation.every}, but the shortest clip of {config.data.split('val')} has "
            f"{held} latent frames, and training takes {wanted}; {OFF}, or lower data.num_frames"
        )


def _shortest(manifest: Manifest) -> int:
    return min((latent_length(shard.shortest) for shard in manifest.shards), default=0)


def _held_out(config: TrainConfig) -> Manifest:
    location = config.data.split("val")
    try:
        return checked_manifest(manifest_of(location), location)
    except UserError as error:
        raise UserError(
            f"validation.every={config.validation.every} measures held-out clips, but {error}; {OFF}"
        ) from error


def read_clips(config: TrainConfig, manifest: Manifest, model: DualForceConfig) -> list[Batch]:
    """The clips, a batch of one each, on the CPU; fewer than asked for where the split holds fewer.

    Each is cut to the longest of training's lengths that it fills, and its reference image is the same in every run.

    Args:
        manifest: of the training split.

    Raises:
        UserError: they cannot be read, or one is too short.
    """
    check_held_out(config, manifest)
    lengths = training_lengths(config.data, _shortest(manifest))
    assert model.audio_pool is not None
    recipe = Recipe(SEED, model.audio_pool, structure=config.data.structure)
    clips = []
    for sample in itertools.islice(stored(config.data, "val"), config.validation.clips):
        have = len(sample.tensors["video_latent"])
        fits = [length for length in lengths if length <= have]
        clips.append(collate([clip_of(sample, max(fits, default=lengths[0]))], [0], None, recipe))
    if not clips:
        raise UserError(f"{config.data.split('val')} holds no sample that can be read; build it again, or {OFF}")
    return clips
