"""The training data of a run: made if need be, checked against the model, read by every process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from df_data.format.manifest import Manifest, features_of
from df_data.format.sample import FEATURE_TENSORS
from df_data.reading import ReaderOptions, ShardReader
from df_data.reading.cache import ShardCache
from df_data.reading.peek import first_samples, manifest_of
from df_data.reading.same import digests_of, other_clips
from df_data.reading.shard import RawSample
from df_data.synth.config import SynthConfig
from df_models import DualForce, DualForceConfig
from df_models.encoders import AudioPool
from df_models.errors import UserError
from df_models.structure import flame_motion
from df_models.text import Prompt
from df_models.time import latent_length
from df_train.config import DataConfig, TrainConfig
from df_train.data.text import prompt_of
from df_train.objective import FlameScale
from df_train.processes.distributed import World

if TYPE_CHECKING:
    from df_data.synth.corpus import Fit

_SCALE_CLIPS = 64
"""Clips that the FLAME head's scale is taken from: some 2000 frames, enough for a mean and a spread."""
_SMALLEST_SPREAD = 1e-4
"""A field that varies less never changes (a constant of the dataset), and is not divided by its spread."""


_OTHER_STATISTICS = 0.01
"""Of an entry's spread: beyond it a model's statistics are another dataset's, not the same numbers rounded."""


def prepare_data(config: TrainConfig, world: World, fit: Fit | None = None) -> Manifest:
    """Make the synthetic corpus if it is described (one process makes it), and read the training manifest.

    Args:
        fit: settles the number of clips (:func:`df_data.synth.corpus.build_corpus`).
    """
    return made_data(config.data, world, fit)


def made_data(data: DataConfig, world: World, fit: Fit | None = None) -> Manifest:
    """The same of a data section alone."""
    synth = data.synth
    if synth is not None:
        world.first_alone(lambda: _make_corpus(synth, Path(data.root), fit))
    return training_manifest(data)


def _make_corpus(synth: SynthConfig, root: Path, fit: Fit | None) -> None:
    from df_data.synth.corpus import build_corpus  # loads numba

    root.parent.mkdir(parents=True, exist_ok=True)
    build_corpus(synth, root, fit=fit)


def training_manifest(data: DataConfig) -> Manifest:
    """The training split's manifest; what one of before widths were recorded lacks is measured on the first clip.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    manifest = manifest_of(data.split("train"))
    if not manifest.shards and data.synth is None:
        raise UserError(f"{data.split('train')} holds no shard: its build is not finished, or kept nothing")
    if manifest.features or not manifest.shards:
        return manifest
    sample = next(stored(data), None)
    if sample is None:
        return manifest
    found = {role: sample.tensors[name].shape[-1] for role, name in FEATURE_TENSORS.items() if name in sample.tensors}
    return manifest.model_copy(update={"features": features_of(found, manifest.encoders)})


def stored(data: DataConfig, split: str = "train") -> Iterator[RawSample]:
    """The samples of a split, one at a time, in their stored order.

    A damaged one ends it, or is left out where `data.on_error` says so; but of held-out clips none is ever left out:
    others would take their places, and the figures would be those of other clips.
    """
    cache = None if data.cache_dir is None else ShardCache(data.cache_dir, data.cache_dir_bytes, verify=data.verify)
    skip = data.on_error == "skip" and split == "train"
    return first_samples(data.split(split), cache=cache, verify=data.verify, skip_damaged=skip)


def check_same_dataset(config: TrainConfig, manifest: Manifest, known: Mapping[str, str]) -> None:
    """Refuse to go on with other clips than a run was begun with.

    A split that is not there, or was not when the run was begun, says nothing.

    Args:
        manifest: of the training split.
        known: digests by split (`df_data.reading.same`), empty if nothing is known.

    Raises:
        UserError: a split is another one.
    """
    if not known:
        return
    found = digests_of(config.data.root, manifest)
    for split in found:
        if split in known and found[split] != known[split]:
            place = config.data.split(split)
            other = other_clips(manifest if split == "train" else manifest_of(place), known[split], place)
            raise UserError(
                f"the run was begun on another dataset: {other}; name its own with --data DIR, or take another name="
            )


def check_lengths(data: DataConfig, manifest: Manifest) -> None:
    """Refuse clips that are too short for `data.num_frames` or `data.buckets`, or of several lengths without either.

    Raises:
        UserError: with the number of latent frames that would do.
    """
    if not manifest.shards:
        return  # the reader says what is wrong with it
    shortest = min(latent_length(shard.shortest) for shard in manifest.shards)
    longest = max(latent_length(shard.longest) for shard in manifest.shards)
    check_cuts(data, shortest, longest)
    if data.num_frames is None and data.buckets is None and shortest != longest:
        raise UserError(
            f"the clips have {shortest} to {longest} latent frames; set data.num_frames to at most {shortest}, or "
            f"data.buckets to several lengths such as [{max(shortest, 2)}, {longest}]"
        )


def check_cuts(data: DataConfig, shortest: int, longest: int) -> None:
    """Refuse cuts that clips of `shortest` to `longest` latent frames cannot be given.

    Raises:
        UserError: with the number of latent frames that would do.
    """
    wanted = data.num_frames if data.buckets is None else data.buckets[0]
    if wanted is not None and wanted > shortest:
        raise UserError(f"{data.cut}, but the shortest clip has {shortest} latent frames; begin with at most that")
    if data.buckets is not None and data.buckets[-1] > longest:
        raise UserError(f"{data.cut}, but the longest clip has {longest} latent frames; leave out longer ones")


def set_statistics(model: DualForce, manifest: Manifest, flame: FlameScale | None = None) -> None:
    """Put the dataset's structure statistics into the model; entries that never change are only centred.

    Args:
        flame: of the FLAME vectors, for a model whose structure is their motion part; None: it is the dataset's own.

    Raises:
        UserError: the manifest has none.
    """
    statistics = manifest.structure_statistics
    if flame is not None:
        mean, std = flame_motion(flame.mean), flame_motion(flame.std)
    elif statistics is not None:
        mean, std = torch.tensor(statistics.mean), torch.tensor(statistics.std)
    else:
        raise UserError("the dataset's manifest has no structure statistics; build the dataset again")
    model.set_structure_statistics(mean, _spread(std))


def _spread(std: Tensor) -> Tensor:
    return torch.where(std > _SMALLEST_SPREAD, std, torch.ones_like(std))


def own_statistics_note(model: DualForce, manifest: Manifest) -> str | None:
    """Return a line for the user if a trained model keeps structure statistics that are not the dataset's."""
    found, mean, std = manifest.structure_statistics, model.structure_mean, model.structure_std
    if found is None or mean is None or std is None or len(found.mean) != len(mean):
        return None
    shift_V = (torch.tensor(found.mean) - mean) / std
    stretch_V = _spread(torch.tensor(found.std)) / std - 1.0
    if not bool((torch.cat([shift_V, stretch_V]).abs() > _OTHER_STATISTICS).any()):
        return None
    return (
        "the model of model.start_from keeps its own structure statistics, which differ from the dataset's: compare "
        "val/loss and val/loss/structure only with runs that started from it"
    )


class FirstLook(NamedTuple):
    """What the first clips tell.

    Attributes:
        flame: scale of FLAME vectors, if all of these clips have one and the model has a head for them.
        structure: the same, if the model's structure is their motion part (`data.structure=flame`).
        prompt: the first clip's, encoded, if the model reads text; `df-data build` gives all clips one prompt.
    """

    flame: FlameScale | None
    prompt: Prompt | None = None
    structure: FlameScale | None = None


def look_at(data: DataConfig, model: DualForceConfig, clips: int = _SCALE_CLIPS) -> FirstLook:
    """Look at the first clips as they are stored: at one, or at more where FLAME vectors are read.

    Args:
        clips: how many those are.

    Raises:
        UserError: they cannot be read.
    """
    prompt = None
    flames: list[Tensor | None] = []
    reads_flame = model.has_structure and (model.flame_dim > 0 or data.structure == "flame")
    for sample in itertools.islice(stored(data), clips if reads_flame else 1):
        prompt = prompt or prompt_of(sample)
        flame_PF = sample.tensors.get("flame")
        flames.append(None if flame_PF is None else torch.tensor(flame_PF))  # a copy: the sample's bytes are let go
    if not flames:
        raise UserError(f"{data.split('train')} holds no sample that can be read; build the dataset again")
    scale = _flame_scale(flames) if reads_flame else None
    if reads_flame and data.structure == "flame" and scale is None:
        raise UserError(
            "data.structure=flame, but clips of the dataset hold no FLAME vectors; build it with `flame: ...`"
        )
    return FirstLook(
        scale if model.reads_flame else None,
        prompt if model.text_dim else None,
        scale if data.structure == "flame" else None,
    )


def _flame_scale(vectors: list[Tensor | None]) -> FlameScale | None:
    known = [vector for vector in vectors if vector is not None]
    if len(known) < len(vectors):
        return None
    flame_PF = torch.cat(known)
    return FlameScale(flame_PF.mean(dim=0), flame_PF.std(dim=0))


@torch.no_grad()
def calibrate_flame_head(model: DualForce, scale: FlameScale) -> None:
    """Start the FLAME head at the dataset's mean and spread, since its entries differ in size by orders."""
    assert model.flame is not None
    last = model.flame[-1]
    assert isinstance(last, torch.nn.Linear) and last.bias is not None
    last.weight.mul_(scale.std[:, None])
    last.bias.copy_(scale.mean)


def skipped_samples(reader: ShardReader, world: World) -> dict[str, int]:
    """Damaged samples left out so far, by the name of their shard; every process must call it.

    Of a shard it is the largest number that one process met: processes read other parts of it, so that there may be
    more single damaged samples, but of damaged shards it is all.
    """
    names = [entry.name for entry in reader.manifest.shards]
    counts = world.max(torch.tensor([reader.skipped.get(name, 0) for name in names], device=world.device))
    return {name: count for name, count in zip(names, counts.tolist()) if count}


def make_reader(config: TrainConfig, model: DualForceConfig, world: World) -> ShardReader:
    """The training reader of this process."""
    assert model.audio_pool is not None
    return open_reader(config.data, config.seed, model.audio_pool, world)


def open_reader(data: DataConfig, seed: int, pool: AudioPool, world: World) -> ShardReader:
    """This process's reader of the training split."""
    options = ReaderOptions(
        batch_size=data.batch_size // (world.size * data.accumulate),
        seed=seed,
        num_frames=data.num_frames,
        buckets=data.buckets,
        start=data.start,
        audio_pool=pool,
        structure=data.structure,
        on_error=data.on_error,
        verify=data.verify,
        num_workers=data.num_workers,
        cache_bytes=data.cache_bytes,
        cache_dir=data.cache_dir,
        cache_dir_bytes=data.cache_dir_bytes,
        stream_bytes=data.stream_bytes,
    )
    return ShardReader(data.split("train"), options, rank=world.rank, world_size=world.size)
