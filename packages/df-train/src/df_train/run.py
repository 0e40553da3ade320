"""One run from its configuration to its exported model: preflight, data, training, samples, plot."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from df_data.format.manifest import Manifest
from df_infer.rollout import latency_note
from df_infer.run_dir import RunDir, open_run
from df_models import DualForceConfig
from df_models.flow import ErrorBank
from df_models.locks import one_writer
from df_models.machine import choose_precision, describe_device
from df_models.settings import load_config
from df_models.text import Prompt
from df_models.time import SLOTS, SPATIAL_STRIDE
from df_train import begin
from df_train.adapter import check_head, check_same_base, start_adapter
from df_train.budget import Clock, Pace, as_chosen, fit_clips, wants_clock, with_clips
from df_train.compiling import allow_lengths
from df_train.config import TrainConfig
from df_train.data.contract import audio_note, check_continued, check_fit, check_frozen, decided_by
from df_train.data.dataset import (
    calibrate_flame_head,
    check_lengths,
    check_same_dataset,
    look_at,
    make_reader,
    own_statistics_note,
    prepare_data,
    set_statistics,
    skipped_samples,
)
from df_train.data.text import unread_text
from df_train.ema import ParameterAverage
from df_train.engine import Stop, Trainer
from df_train.figures import planned
from df_train.figures.meter import LossMeter
from df_train.figures.metrics import open_sinks, plot_losses
from df_train.noising import Banks
from df_train.objective import FlameScale, Objective
from df_train.optimizer import build_optimizer
from df_train.preflight import known_manifest, preflight, shown_in
from df_train.processes import peers
from df_train.processes.distributed import World, open_world
from df_train.processes.sharding import spread
from df_train.sampling import Sampler
from df_train.saving import state
from df_train.saving.aside import forget, put_back, recover, set_aside
from df_train.saving.changes import changes_noted
from df_train.saving.checkpoint import CheckpointInfo, newest_info, read_info
from df_train.saving.export import Milestones, write_averaged
from df_train.saving.start import (
    Wish,
    check_start,
    choose_start,
    clear,
    digests_known,
    go_back,
    located,
    record_of,
    write_config,
)
from df_train.saving.state import TrainState
from df_train.skips import Skips
from df_train.sync.loss import pinned
from df_train.validation.clips import read_clips
from df_train.validation.measure import Validation


@dataclass(frozen=True)
class Result:
    """What a run left behind, for the summary on the screen.

    Attributes:
        measurable: whether df-eval can measure it on its own dataset: videos of faces.
        far: the dataset is behind a URL or a pipe, where df-eval does not read.
    """

    stop: Stop
    step: int
    seconds: float
    videos: Sequence[Path] = ()
    contact_sheet: Path | None = None
    example: tuple[Path, Path] | None = None
    loss_plot: Path | None = None
    crops_faces: bool = False
    full_steps: int | None = None
    measurable: bool = True
    far: bool = False


def say(message: str) -> None:
    """Tell the user something without breaking the progress bar; only the first process speaks."""
    if peers.own_rank() == 0:
        tqdm.write(message)


def train(
    config: TrainConfig, wish: Wish = "default", began: float | None = None, said: Collection[str] = ()
) -> Result:
    """Run a configuration to its end and export the model.

    Args:
        began: `time.monotonic()` at which a time budget starts to count; now by default.
        said: settings that the command line names; of a run that goes on, a time budget's choice does not undo them.

    Raises:
        UserError: anything a user can mend, before work begins wherever that is possible.
        NotFinite: the loss is no longer a number.
    """
    clock = None if config.budget.minutes is None else Clock(config.budget.minutes, began or time.monotonic())
    config = prepare(config, wish)
    run = RunDir(config.directory)
    opened = open_world(config.device, patience(config), replicate=config.sharding.replicate)
    with opened as world, _only_writer(run, world):
        if world.is_main:
            recover(run, say)
        start = _agree_on_start(config, wish, world)
        if start is not None:
            config = as_chosen(config, load_config(TrainConfig, run.config, recorded=True), said)
        if not wants_clock(config.budget):
            clock = None
        say(introduction(config, world))
        config, manifest = _make_data(config, world, clock)
        for line in planned.of_every_step(config, manifest.count):
            say(line)
        known = digests_known(run, start)
        saved = None if start is None else start.values.get("model")
        training, objective, prompt = build(config, world, manifest, known, saved)
        validation = _held_out(config, training, objective, manifest, world)
        if start is not None:
            _resume(training, objective, start, world, config)
        if world.is_main:
            _begin(run, config, wish, known, 0 if start is None else start.step, keep=clock is not None)
        try:
            result = _train_and_export(config, training, objective, prompt, world, run, clock, validation)
            measurable = manifest.has_faces and training.model.config.has_video
            result = replace(result, measurable=measurable, far=config.data.remote)
        except BaseException:
            if world.is_main:
                put_back(run)
            raise
        if world.is_main:
            forget(run)
    if clock is not None:
        say(f"time budget: {clock.minutes - clock.left / 60:.1f} of {clock.minutes:g} minutes were used")
    return result


def patience(config: TrainConfig) -> timedelta | None:
    """How long collectives wait: torch's 30 minutes, and until `df_train.processes.watch` has spoken."""
    return None if config.hang_minutes is None else timedelta(minutes=max(30.0, 2.0 * config.hang_minutes))


def introduction(config: TrainConfig, world: World) -> str:
    """One line: the machine, the precision with its reason, and how long it will take."""
    processes = f", {world.size} processes" if world.size > 1 else ""
    precision = choose_precision(config.precision.name, world.device)
    minutes = config.budget.minutes
    told = "the progress bar tells how long it takes"
    if wants_clock(config.budget):
        told = f"all of it within {minutes:g} minutes (budget.minutes)"
    elif minutes is not None:
        told = f"{config.optim.steps} steps, as a budget of {minutes:g} minutes chose when the run began"
    return f"machine: {describe_device(world.device)}{processes}; computing in {precision}; {told}"


def _make_data(config: TrainConfig, world: World, clock: Clock | None) -> tuple[TrainConfig, Manifest]:
    """The data made, with as many clips as a time budget allows, and the configuration that says how many."""
    synth = config.data.synth
    if clock is None or synth is None:
        return config, prepare_data(config, world)
    if world.is_main and (there := known_manifest(config)) is not None:
        say(
            f"{config.data.root} holds {there.count} of {synth.clips} training clips already and is taken as it is; "
            "name another data.root to have more made"
        )
    manifest = prepare_data(config, world, fit_clips(config, clock, say))
    return with_clips(config, manifest.count), manifest


def _only_writer(run: RunDir, world: World) -> AbstractContextManager[None]:
    """Hold the run's directory; the first process holds it for all."""
    return one_writer(run.root, "df-train") if world.is_main else nullcontext()


def prepare(config: TrainConfig, wish: Wish = "default") -> TrainConfig:
    """The configuration as it will be run, with its dataset found, checked against this machine.

    Raises:
        UserError: the first thing that will not work, and how to mend it.
    """
    config = with_expert(located(config, wish, say))
    check_start(config, wish)
    begun = None if wish == "fresh" else newest_info(RunDir(config.directory).checkpoints)
    preflight(config, None if begun is None else begun.values.get("model"))
    return config


def check(config: TrainConfig, wish: Wish = "default") -> list[str]:
    """Do what :func:`prepare` does, and return lines about what of the configuration will not be, or comes first.

    Raises:
        UserError: as there.
    """
    config = prepare(config, wish)
    begun = None if wish == "fresh" else newest_info(RunDir(config.directory).checkpoints)
    manifest, first, step = known_manifest(config), list[str](), 0 if begun is None else begun.step
    if manifest is None:
        assert config.data.synth is not None, "or the preflight had refused it"
        clips = config.data.synth.clips
        fewer = ", or as many as the time budget allows" if wants_clock(config.budget) else ""
        first = [f"{config.data.root}: the corpus is made first, {clips} clips{fewer}"]
    else:
        clips = manifest.count
    return [*first, *planned.of_every_step(config, clips), *planned.at_the_start(config, step)]


def with_expert(config: TrainConfig) -> TrainConfig:
    """The configuration with the identity of its lip-sync expert, by which a run that goes on knows it."""
    objective = config.objective.model_copy(update={"sync": pinned(config.objective.sync)})
    return config.model_copy(update={"objective": objective})


def _agree_on_start(config: TrainConfig, wish: Wish, world: World) -> CheckpointInfo | None:
    """The first process verifies the checkpoints and decides; the others follow."""

    def choose() -> int | None:
        chosen = choose_start(config, wish, say)
        return None if chosen is None else chosen.step

    step = world.first_alone(choose)
    return None if step is None else read_info(RunDir(config.directory).checkpoints / f"step-{step}")


def _begin(
    run: RunDir, config: TrainConfig, wish: Wish, known: Mapping[str, str], step: int, *, keep: bool = False
) -> None:
    """Every check has passed: make room if that was asked for, and write what makes the directory a run.

    Args:
        step: that it goes on from.
        keep: a time budget has still to be checked: what was there is set aside until then (`df_train.saving.aside`).
    """
    if wish == "fresh":
        set_aside(run) if keep else clear(run)
    if gone := go_back(run, step):
        say(
            f"milestones that the run takes again, since it goes on from step {step}, are removed: of steps "
            f"{', '.join(map(str, gone))}"
        )
    run.write_record(replace(record_of(config, known), changes=changes_noted(run, config, step, say) if step else ()))
    write_config(run, config)


def _latency_note(config: TrainConfig, model: DualForceConfig) -> str | None:
    """A line if samples hear less ahead than is trained, or a student less than its teacher was."""
    teacher = config.model.start_from
    if config.task != "distill" or teacher is None:
        return latency_note(model, config.rollout, shown_in(config))
    if not Path(teacher).is_dir():
        return None
    note = latency_note(model, config.rollout, open_run(teacher).trained)
    return None if note is None else f"the teacher, {teacher}: {note}"


def build(
    config: TrainConfig,
    world: World,
    manifest: Manifest,
    known: Mapping[str, str] | None = None,
    saved: Mapping[str, Any] | None = None,
) -> tuple[TrainState, Objective, Prompt | None]:
    """Everything at step 0: the data checked, the model sharded, optimizer, reader and objective; and the
    prompt that the model is handed on with, if it reads text.

    Args:
        known: digests of the dataset's splits that the run was begun with, if it goes on.
        saved: the configuration of the model that it goes on from (`df_train.begin.build_model`).
    """
    check_same_dataset(config, manifest, known or {})
    tell = (lambda line: None) if saved is not None else say
    model = begin.build_model(config, decided_by(config, manifest), tell, saved)
    check_fit(model.config, manifest, config.data.structure)
    heard = _latency_note(config, model.config)
    for line in (unread_text(model.config, manifest), audio_note(manifest), heard):
        if line is not None:
            say(line)
    check_lengths(config.data, manifest)
    look = look_at(config.data, model.config)
    scale = look.flame
    if model.config.has_structure and not model.has_structure_statistics:
        set_statistics(model, manifest, look.structure)
    elif config.validation.every and (note := own_statistics_note(model, manifest)):
        say(note)
    if scale is not None and begin.is_new_head(model):
        check_head(config)
        if config.adapter.kind == "none":
            calibrate_flame_head(model, scale)
    adapter = start_adapter(model, config)
    objective = build_objective(config, model.config, manifest, scale, world)
    if config.data.buckets is not None and world.device.type == "cuda":
        allow_lengths(len(config.data.buckets))
    model.to(world.device).train()
    spread(model, config, world, say)
    training = TrainState(
        model=model,
        optimizer=build_optimizer(model, config.optim),
        average=ParameterAverage(model),
        reader=make_reader(config, model.config, world),
        banks=_banks(config, model.config, manifest),
        meter=LossMeter(objective.names, world.device),
        skips=Skips(next(model.parameters()).device),
        adapter=adapter,
    )
    return training, objective, look.prompt


def build_objective(
    config: TrainConfig, model: DualForceConfig, manifest: Manifest, scale: FlameScale | None, world: World
) -> Objective:
    """What the model is to learn; a task's own imports come with it."""
    if config.task == "distill":
        from df_train.distill.objective import Distillation
        from df_train.distill.teacher import load_teacher

        decided = decided_by(config, manifest)
        return Distillation(config, model, *load_teacher(config, decided, world))
    return Objective(config, model, scale)


def _banks(config: TrainConfig, model: DualForceConfig, manifest: Manifest) -> Banks | None:
    history = config.objective.history
    if history.mode != "error_recycling":
        return None
    cells = manifest.height // SPATIAL_STRIDE, manifest.width // SPATIAL_STRIDE
    return Banks(
        ErrorBank((model.stream_channels, *cells), history.error_bank),
        ErrorBank((SLOTS, model.stream_entries), history.error_bank),
    )


def _held_out(
    config: TrainConfig, training: TrainState, objective: Objective, manifest: Manifest, world: World
) -> Validation | None:
    """The measurement of held-out clips, which are read here; None if there is none."""
    settings = config.validation
    if not settings.every:
        return None
    clips = read_clips(config, manifest, training.model.config)
    if len(clips) < settings.clips:
        say(
            f"validation.clips={settings.clips}, but {config.data.split('val')} gives {len(clips)}: all of them are "
            "measured"
        )
    return Validation(clips, settings.histories, objective, world)


def _resume(
    training: TrainState, objective: Objective, start: CheckpointInfo, world: World, config: TrainConfig
) -> None:
    check_continued(start.values.get("model"), training.model.config)
    check_frozen(start.values.get("frozen", {}), objective.frozen)
    check_same_base(start.values.get("adapter_base"), training.adapter)
    state.restore(training, start, world)
    say(f"resuming {config.directory} at step {start.step} of {config.optim.steps}")


def _fitted(run: RunDir, config: TrainConfig) -> None:
    """The run fits its time budget: its configuration is written, and what was there before it is no longer kept."""
    write_config(run, config)
    forget(run)


def _tell_skipped(training: TrainState, world: World) -> None:
    """One line at the end if damaged samples were left out; every process must call it."""
    skipped = skipped_samples(training.reader, world)
    if skipped:
        shards = ", ".join(f"{name} ({count})" for name, count in skipped.items())
        say(f"{sum(skipped.values())} damaged samples were left out (data.on_error=skip): {shards}; build them again")


def _train_and_export(
    config: TrainConfig,
    training: TrainState,
    objective: Objective,
    prompt: Prompt | None,
    world: World,
    run: RunDir,
    clock: Clock | None = None,
    validation: Validation | None = None,
) -> Result:
    for line in planned.at_the_start(config, training.step):
        say(line)
    tree = config.model_dump(mode="json")
    sinks = open_sinks(run, config.log, tree, training.step) if world.is_main else []
    sampler = Sampler(config, world, run)
    pace = None
    if clock is not None:
        record = partial(_fitted, run) if world.is_main else lambda changed: None
        pace = Pace(config, clock, world, say, record, step=training.step)
    try:
        milestones = Milestones(run, prompt, world)
        stop = Trainer(config, training, objective, world, sinks, sampler, pace, milestones, validation).fit()
    finally:
        for sink in sinks:
            sink.close()
    _tell_skipped(training, world)
    if stop.goes_on:
        return Result(stop, training.step, training.seconds)
    for line in planned.at_the_end(config, training.step):
        say(line)
    averaged = state.averaged(training, world)
    videos, sheet = sampler.write(training.step, averaged)
    example = sampler.example()
    plotted = world.is_main and plot_losses(run.metrics, run.loss_plot)
    loss_plot = run.loss_plot if plotted else None
    crops_faces = training.model.config.face_crop != "none"
    if averaged is not None:  # last of all: a run that has a model is finished, and one that is killed before goes on
        write_averaged(run.model, training, averaged, prompt)
    full_steps = config.budget.full_steps or config.optim.steps
    return Result(stop, training.step, training.seconds, videos, sheet, example, loss_plot, crops_faces, full_steps)
