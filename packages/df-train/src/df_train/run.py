"""One run from its configuration to its exported model: preflight, data, training, samples, plot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from df_data.manifest import Manifest, read_manifest
from df_data.reader import ShardReader
from df_data.synth.corpus import build_corpus
from df_models import DualForce
from df_models.encoders import load_video_vae
from df_models.errors import UserError
from df_models.time import latent_length
from df_train import state
from df_train.config import TrainConfig
from df_train.distributed import World, launched_by_torchrun, open_world, pick_device
from df_train.ema import ParameterAverage
from df_train.engine import Stop, Trainer
from df_train.errors_bank import ErrorBank
from df_train.metrics import open_sinks, plot_losses
from df_train.objective import Objective
from df_train.run_dir import RunDir, Wish, choose_start
from df_train.sampling import Sampler
from df_train.state import TrainState

_TENSORS_PER_CHECKPOINT = 4
_SPARE_BYTES = 200_000_000


@dataclass(frozen=True)
class Result:
    """What a run left behind, for the summary on the screen."""

    stop: Stop
    step: int
    seconds: float
    videos: Sequence[Path] = ()
    contact_sheet: Path | None = None
    example: tuple[Path, Path] | None = None
    loss_plot: Path | None = None


def say(message: str) -> None:
    """Tell the user something without breaking the progress bar; only the first process speaks."""
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(message)


# ------------------------------------------------------------------------------------------------------------ preflight


def preflight(config: TrainConfig) -> None:
    """Check what can be checked before any work: device, processes, model, data, disk.

    Raises:
        UserError: the first thing that will not work, and how to mend it.
    """
    device = pick_device(config.device)
    model = state.build_model(config)
    size = sum(parameter.numel() for parameter in model.parameters())
    if config.precision.bf16 == "on" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("precision.bf16=on, but this GPU has no bfloat16; use precision.bf16=off")
    _check_data(config, model)
    _check_batch(config)
    _check_disk(config, size)
    if config.sample.clips:
        load_video_vae(model.config.video_vae)


def _check_data(config: TrainConfig, model: DualForce) -> None:
    root = config.data.root
    if (root / "train").is_dir():
        return
    if config.data.synth is None:
        raise UserError(
            f"data.root: {root} holds no train/ directory; make the dataset with `df-data synth` or `df-data build`, "
            "or give data.synth to have the synthetic corpus made there"
        )
    wanted = config.data.num_frames
    if wanted is not None and wanted > latent_length(config.data.synth.frames):
        raise UserError(
            f"data.num_frames is {wanted} latent frames, but data.synth.frames={config.data.synth.frames} pixel frames "
            f"give only {latent_length(config.data.synth.frames)}"
        )


def _check_batch(config: TrainConfig) -> None:
    size = int(os.environ.get("WORLD_SIZE", "1")) if launched_by_torchrun() else 1
    if config.data.batch_size % (size * config.data.accumulate):
        raise UserError(
            f"data.batch_size={config.data.batch_size} does not divide among {size} processes x "
            f"{config.data.accumulate} passes (data.accumulate)"
        )


def _check_disk(config: TrainConfig, parameters: int) -> None:
    where = config.directory
    while not where.exists():
        where = where.parent
    need = 4 * parameters * (_TENSORS_PER_CHECKPOINT * (config.checkpoint.keep + 1) + 1) + _SPARE_BYTES
    free = shutil.disk_usage(where).free
    if free < need:
        raise UserError(
            f"the run needs about {need / 1e9:.1f} GB in {config.directory}, {free / 1e9:.1f} GB are free; free some "
            "space, lower checkpoint.keep or set run_dir to another disk"
        )


# ----------------------------------------------------------------------------------------------------------------- data


def prepare_data(config: TrainConfig, world: World) -> Manifest:
    """Make the synthetic corpus if it is asked for (one process makes it), and read the training manifest."""
    root = config.data.root
    if config.data.synth is not None:
        if world.is_main:
            root.parent.mkdir(parents=True, exist_ok=True)
            build_corpus(config.data.synth, root)
        world.barrier()
    return read_manifest(root / "train")


def check_fit(model: DualForce, manifest: Manifest) -> None:
    """Refuse a dataset whose latents or features come from other frozen models than the ones the model is for."""
    wanted = {
        "video_vae": model.config.video_vae,
        "audio": model.config.audio_encoder,
        "reference": model.config.reference_encoder,
    }
    for role, name in wanted.items():
        record = manifest.encoders.get(role)
        if record is not None and record.id != name:
            raise UserError(
                f"the dataset's {role} encoder is {record.id}, the model is for {name}; build the dataset with {name}, "
                f"or set the model's to {record.id} under model.overrides"
            )


def make_reader(config: TrainConfig, world: World) -> ShardReader:
    """The training reader of this process."""
    data = config.data
    return ShardReader(
        data.root / "train",
        batch_size=data.batch_size // (world.size * data.accumulate),
        seed=config.seed,
        num_frames=data.num_frames,
        rank=world.rank,
        world_size=world.size,
        num_workers=data.num_workers,
    )


# ------------------------------------------------------------------------------------------------------------- the run


def build_state(config: TrainConfig, world: World) -> TrainState:
    """Model, average, optimizer and reader at step 0."""
    manifest = prepare_data(config, world)
    model = state.build_model(config)
    check_fit(model, manifest)
    statistics = manifest.structure_statistics
    if statistics is None:
        raise UserError(f"{config.data.root / 'train'}: the manifest has no structure statistics; build the data again")
    model.set_structure_statistics(torch.tensor(statistics.mean), torch.tensor(statistics.std))
    model.to(world.device).train()
    state.shard(model, config, world)
    history = config.objective.history
    bank = ErrorBank(history.error_bank) if history.mode == "error_recycling" else None
    optimizer = state.build_optimizer(model, config.optim)
    return TrainState(model, optimizer, ParameterAverage(model), make_reader(config, world), bank)


def train(config: TrainConfig, wish: Wish = "default") -> Result:
    """Run a configuration to its end and export the model.

    Raises:
        UserError: anything a user can mend, before work begins wherever that is possible.
    """
    preflight(config)
    run = RunDir(config.directory)
    with open_world(config.device) as world:
        start = choose_start(config, wish, say)
        world.barrier()
        if world.is_main:
            if wish == "fresh":
                run.clear()
            run.root.mkdir(parents=True, exist_ok=True)
        training = build_state(config, world)
        if start is not None:
            state.restore(training, start, world)
            say(f"resuming {run.root} at step {start.step} of {config.optim.steps}")
        if world.is_main:
            run.write_config(config)
        return _train_and_export(config, training, world, run)


def _train_and_export(config: TrainConfig, training: TrainState, world: World, run: RunDir) -> Result:
    tree = config.model_dump(mode="json")
    sinks = open_sinks(run.root, config.log, tree, training.step) if world.is_main else []
    sampler = Sampler(config, world, run)
    try:
        objective = Objective(config, training.model.config)
        stop = Trainer(config, training, objective, world, sinks, sampler).fit()
    finally:
        for sink in sinks:
            sink.close()
    if stop is Stop.INTERRUPTED:
        return Result(stop, training.step, training.seconds)
    model = state.averaged_model(training)
    if world.is_main:
        model.save_pretrained(run.model)
    shown = sampler.write(training.step, model)
    example = sampler.example()
    plotted = world.is_main and plot_losses(run.metrics, run.loss_plot)
    return Result(stop, training.step, training.seconds, *shown, example, run.loss_plot if plotted else None)
