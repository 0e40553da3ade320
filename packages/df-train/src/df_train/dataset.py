"""The training data of a run: made if need be, checked against the model, read by every process."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import torch

from df_data.manifest import Manifest, read_manifest
from df_data.reader import ShardReader
from df_data.shards import iter_samples
from df_data.synth.corpus import build_corpus
from df_models import DualForce, DualForceConfig
from df_models.encoders import VideoVAE, load_video_vae
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.time import latent_length
from df_train.config import TrainConfig
from df_train.distributed import World
from df_train.objective import FlameScale

_SCALE_CLIPS = 64
_SMALLEST_SPREAD = 1e-4


def prepare_data(config: TrainConfig, world: World) -> Manifest:
    """Make the synthetic corpus if it is described (one process makes it), and read the training manifest."""
    root = config.data.root
    if config.data.synth is not None and world.is_main:
        root.parent.mkdir(parents=True, exist_ok=True)
        build_corpus(config.data.synth, root)
    world.barrier()
    return read_manifest(root / "train")


def taken_over(manifest: Manifest) -> dict[str, Any]:
    """The fields of a model's configuration that its dataset decides: video VAE, size of the pictures, crop.

    `model.overrides` wins over them; `check_fit` then refuses what does not fit.
    """
    fields = {"video_size": manifest.height, "face_crop": manifest.crop}
    vae = manifest.encoders.get("video_vae")
    return fields if vae is None else fields | {"video_vae": vae.id}


def check_vae(vae: VideoVAE, manifest: Manifest) -> None:
    """Refuse a video VAE that bears the name of the one that made the dataset's latents and is another.

    Raises:
        UserError: their hashes differ.
    """
    record = manifest.encoders.get("video_vae")
    if record is not None and record.sha256 != vae.sha256:
        raise UserError(
            f"the dataset's latents were made by another {record.id} (sha256 {record.sha256[:12]}) than is there now "
            f"({vae.sha256[:12]}); build the dataset again"
        )


def check_fit(model: DualForceConfig, manifest: Manifest) -> None:
    """Refuse a dataset whose latents or features come from other frozen models than the ones the model is for.

    A video VAE under another name (a directory that was moved) is compared by its hash.

    Raises:
        UserError: naming the encoder that differs and both ways to mend it.
    """
    wanted = {"video_vae": model.video_vae, "audio": model.audio_encoder, "reference": model.reference_encoder}
    fields = {"video_vae": "video_vae", "audio": "audio_encoder", "reference": "reference_encoder"}
    for role, name in wanted.items():
        record = manifest.encoders.get(role)
        if record is None or record.id in (name, split_spec(name)[0]):
            continue
        if role != "video_vae" or load_video_vae(name).sha256 != record.sha256:
            raise UserError(
                f"the dataset's {role} encoder is {record.id}, the model is for {name}; build the dataset with {name}, "
                f"or set model.overrides.{fields[role]}={record.id}"
            )


def check_lengths(config: TrainConfig, manifest: Manifest) -> None:
    """Refuse clips that are too short for `data.num_frames`, or of several lengths without it.

    Raises:
        UserError: with the number of latent frames that would do.
    """
    shortest = min(latent_length(shard.shortest) for shard in manifest.shards)
    longest = max(latent_length(shard.longest) for shard in manifest.shards)
    wanted = config.data.num_frames
    if wanted is not None and wanted > shortest:
        raise UserError(f"data.num_frames={wanted}, but the shortest clip has {shortest} latent frames")
    if wanted is None and shortest != longest:
        raise UserError(
            f"the clips have {shortest} to {longest} latent frames; set data.num_frames to at most {shortest}"
        )


def set_statistics(model: DualForce, manifest: Manifest) -> None:
    """Put the dataset's structure statistics into the model; entries that never change are only centred.

    Raises:
        UserError: the manifest has none.
    """
    statistics = manifest.structure_statistics
    if statistics is None:
        raise UserError("the dataset's manifest has no structure statistics; build the dataset again")
    std = torch.tensor(statistics.std)
    model.set_structure_statistics(
        torch.tensor(statistics.mean), torch.where(std > _SMALLEST_SPREAD, std, torch.ones_like(std))
    )


def flame_scale(config: TrainConfig, model: DualForceConfig) -> FlameScale | None:
    """Mean and spread of the first clips' FLAME vectors; None if the model has no head or a clip has no FLAME."""
    if not model.flame_dim:
        return None
    samples = itertools.islice(iter_samples(config.data.root / "train", video=False), _SCALE_CLIPS)
    vectors = [sample.tensors.get("flame") for sample in samples]
    known = [vector for vector in vectors if vector is not None]
    if len(known) < len(vectors) or not known:
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


def audio_pooling(feature_dim: int, audio_dim: int) -> Literal["mean", "concat"]:
    """How stored audio features of one width become model inputs of another.

    Raises:
        UserError: neither the mean nor the pair of two features has the model's width.
    """
    if audio_dim == 2 * feature_dim:
        return "concat"
    if audio_dim == feature_dim:
        return "mean"
    raise UserError(
        f"the dataset's audio features are {feature_dim} wide, the model's audio_dim is {audio_dim}; "
        f"set model.overrides.audio_dim={2 * feature_dim}"
    )


def make_reader(config: TrainConfig, model: DualForceConfig, world: World) -> ShardReader:
    """The training reader of this process."""
    data = config.data
    first = next(iter_samples(data.root / "train", video=False))
    return ShardReader(
        data.root / "train",
        batch_size=data.batch_size // (world.size * data.accumulate),
        seed=config.seed,
        num_frames=data.num_frames,
        rank=world.rank,
        world_size=world.size,
        audio_pool=audio_pooling(first.tensors["audio"].shape[-1], model.audio_dim),
        num_workers=data.num_workers,
    )
