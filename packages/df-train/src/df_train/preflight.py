"""What can be checked before any work is done: device, processes, model, data, disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from df_data.format.manifest import MANIFEST_NAME, Manifest
from df_data.reading.peek import manifest_of
from df_data.synth.planned import planned_manifest
from df_data.synth.recorded import check_place
from df_infer.config import OTHERS
from df_infer.rollout import heard_ahead
from df_infer.run_dir import RunDir, Trained
from df_infer.sampling.drive import check_saw_clean
from df_infer.sampling.guidance import check_guidance
from df_infer.sampling.whole_clip import check_levels
from df_models import DualForce, DualForceConfig
from df_models.encoders import load_video_vae
from df_models.errors import UserError
from df_models.files import check_output_directory
from df_models.machine import choose_precision
from df_models.structure import FLAME_159
from df_models.time import latent_length
from df_train import begin
from df_train.adapter import start_adapter
from df_train.budget import wants_clock
from df_train.config import TrainConfig
from df_train.data.contract import check_fit, check_vae, decided_by
from df_train.data.dataset import check_cuts, check_lengths, look_at, training_manifest
from df_train.data.lengths import shortest_clip
from df_train.distill.objective import check as check_distillation
from df_train.figures.metrics import check_trackers
from df_train.float8 import check_float8
from df_train.given import given_structure
from df_train.hearing import check_hearing
from df_train.objective import FlameScale, check_losses
from df_train.optimizer import trained
from df_train.processes import peers
from df_train.processes.distributed import check_replicas, pick_device
from df_train.saving.checkpoint import bytes_held
from df_train.saving.export import milestones_to_write
from df_train.sync.loss import check_windows, open_judge
from df_train.validation.clips import check_held_out

_TENSORS_PER_CHECKPOINT = 4
_SPARE_BYTES = 200_000_000


def preflight(config: TrainConfig, saved: Mapping[str, Any] | None = None) -> None:
    """Check a configuration against this machine.

    Args:
        saved: the configuration of the model that the run goes on from (`df_train.begin.build_model`).

    Raises:
        UserError: the first thing that will not work, and how to mend it.
    """
    device = pick_device(config.device)
    check_replicas(config.sharding.replicate)
    if config.precision.float8:
        check_float8(device)
    check_trackers(config.log)
    if config.model.start_from is not None and saved is None:
        begin.refuse_untrained(config.model.start_from)  # the run to train first may make the data, too
    check_data(config)
    manifest = known_manifest(config)
    if manifest:
        check_lengths(config.data, manifest)
    expected = manifest or expected_manifest(config)
    check_held_out(config, manifest if config.data.synth is None else None)
    with nullcontext() if config.model.start_from else torch.device("meta"):  # its sizes are all that is asked
        model = begin.build_model(config, decided_by(config, expected), saved=saved)
    check_fit(model.config, expected, config.data.structure)
    given_structure(config.objective, model.config)
    start_adapter(model, config)
    check_hearing(config.objective, model.config)
    if config.task == "distill":
        check_distillation(config, model.config, manifest)
    check_losses(config.objective, model.config, first_flame(config, model.config, manifest))
    check_judge(config, model.config, manifest)
    heard_ahead(model.config, config.rollout)
    shown = shown_in(config)
    check_guidance(model.config, config.rollout, shown)
    check_samples(config, model.config, shown)
    choose_precision(config.precision.name, device)
    check_batch(config)
    check_profile(config)
    check_places(config)
    check_disk(config, model)
    if config.sample.clips:
        vae = load_video_vae(model.config.video_vae)
        if manifest and config.data.synth is None:
            check_vae(vae, manifest)


def expected_manifest(config: TrainConfig) -> Manifest:
    """What a synthetic corpus that is still to be made will say: it decides of the model what it will decide then.

    Raises:
        UserError: one of its encoders is missing.
    """
    assert config.data.synth is not None
    return planned_manifest(config.data.synth)


def first_flame(config: TrainConfig, model: DualForceConfig, manifest: Manifest | None) -> FlameScale | None:
    """The FLAME scale of the first clip, which tells that there is one; that of a corpus still to be made is unknown.

    Raises:
        UserError: the clip cannot be read.
    """
    if not model.reads_flame:
        return None
    if manifest is None:
        return FlameScale(torch.zeros(FLAME_159.dim), torch.ones(FLAME_159.dim))
    return look_at(config.data, model, clips=1).flame


def check_judge(config: TrainConfig, model: DualForceConfig, manifest: Manifest | None) -> None:
    """The lip-sync expert, where it is a loss, is of the model's encoders, and its windows fit into the clips."""
    settings = config.objective.sync
    open_judge(settings, model)
    if length := shortest_clip(config.data, manifest):
        check_windows(settings, length)


def known_manifest(config: TrainConfig) -> Manifest | None:
    """The training manifest; None while the synthetic corpus is still to be made, or to be finished."""
    train = config.data.split("train")
    if config.data.synth is None:
        return training_manifest(config.data)
    if not (Path(train) / MANIFEST_NAME).exists():
        return None
    return training_manifest(config.data) if manifest_of(train).complete else None


def check_data(config: TrainConfig) -> None:
    """There is a dataset, or a description of one to make."""
    data = config.data
    if data.synth is not None:
        length = latent_length(data.synth.frames)
        check_cuts(data, length, length)
        check_place(data.synth, Path(data.root), fitted=wants_clock(config.budget))
        return
    if not data.remote and not Path(data.split("train")).is_dir():
        raise UserError(
            f"data.root: {data.root} holds no train/ directory; make the dataset with `df-data synth` or `df-data "
            "build`, or give data.synth to have the synthetic corpus made there"
        )
    if config.sample.clips and not manifest_of(data.split("val")).shards:
        raise UserError(
            f"data.root: {data.split('val')} holds no clip to generate samples of (`df-data stats` tells what became "
            "of the inputs); hold out others (split.val of the build), or train without samples: sample.clips=0"
        )


def shown_in(config: TrainConfig) -> Trained:
    """What the run's training shows the model, as `df_infer.run_dir` will read it."""
    objective = config.objective
    heard = config.rollout.audio_future
    return Trained(config.task == "distill", objective.structure_tail, objective.shorten_audio, heard)


def check_samples(config: TrainConfig, model: DualForceConfig, shown: Trained) -> None:
    """Sample videos can be generated with the run's own rollout, where there are any.

    Raises:
        UserError: with the setting that is missing.
    """
    check_levels(model, config.rollout)
    if not config.sample.clips:
        return
    if not model.has_video:
        raise UserError(
            "sample.clips: sample videos are wanted, but the model makes structure alone; set sample.clips=0"
        )
    if config.rollout.structure_from is not None and not model.has_structure:
        raise UserError("rollout.structure_from gives structure, but the model has none (streams=video); leave it out")
    if config.rollout.structure_from is not None:
        check_saw_clean(shown)
    if config.rollout.structure_from == OTHERS:
        raise UserError(
            f"rollout.structure_from={OTHERS} is for df-eval (`df-eval RUN rollout.structure_from={OTHERS}`): samples "
            "of training show each clip alone; set it to `truth`, to a run whose model makes it, or sample.clips=0"
        )
    if model.structure_given == "always" and config.rollout.structure_from is None:
        raise UserError(
            "objective.give_structure=1: the model learns to make no structure, so samples need one; set "
            "rollout.structure_from to a run whose model makes it, or to `truth` for the clips' true structure"
        )
    check_levels(model, config.rollout, latent_length(config.sample.frames))


def check_places(config: TrainConfig) -> None:
    """Every directory that the run writes into can be written."""
    check_output_directory(config.directory)
    data = config.data
    if data.synth is not None and not known_manifest(config):
        check_output_directory(data.root)
    if data.cache_dir is not None:
        check_output_directory(data.cache_dir)


def check_batch(config: TrainConfig) -> None:
    """The clips of a step divide evenly among processes and passes."""
    size = peers.count()
    data = config.data
    if data.batch_size % (size * data.accumulate):
        raise UserError(
            f"data.batch_size={data.batch_size} does not divide among {size} processes x {data.accumulate} passes "
            "(data.accumulate)"
        )


def check_profile(config: TrainConfig) -> None:
    """The steps that are to be profiled begin within the run."""
    steps = config.optim.steps
    if config.profile is not None and config.profile.start > steps:
        raise UserError(
            f"profile.start: the profile begins at step {config.profile.start}, after the run's {steps} steps "
            "(optim.steps); lower it, or leave profile out"
        )


def check_disk(config: TrainConfig, model: DualForce) -> None:
    """There is room for the checkpoints (parameters, average, two moments of AdamW; one more while writing) and models.

    Those that are there count as room, since new ones take their place. A run that goes on needs no more than it needed
    when it began: what is spare is for the corpus, samples and logs that it has by now.
    """
    where = config.directory.absolute()
    while not where.exists():
        where = where.parent
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    size = 4 * sum(parameter.numel() for parameter in trained(model).values())
    run = RunDir(config.directory)
    models = 1 + milestones_to_write(run, config.checkpoint.milestones, config.optim.steps)
    need = size * _TENSORS_PER_CHECKPOINT * (config.checkpoint.keep + 1) + whole * models
    held = bytes_held(run.checkpoints)
    free = shutil.disk_usage(where).free + held
    if not held:
        need += _SPARE_BYTES
    if free < need:
        raise UserError(
            f"the run needs about {need / 1e9:.1f} GB in {config.directory}, {free / 1e9:.1f} GB are free or will be "
            "replaced; free some space, lower checkpoint.keep, take fewer checkpoint.milestones or set run_dir to "
            "another disk"
        )
