"""From run directories and folders of videos to the written evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from df_data.format.manifest import (
    SYNTHETIC,
    flame_layout,
    read_manifest,
    source_of,
    structure_layout,
    structure_of,
)
from df_eval.clips import EvalClip, structure_encoder_of
from df_eval.compare import differences
from df_eval.config import EvalConfig
from df_eval.dataset import dataset_of
from df_eval.measure import GENERATED, ROWS
from df_eval.protocols.held_out import held_out_clips, person_of
from df_eval.reading.measured_as import measured_as
from df_eval.reading.networks import Networks
from df_eval.reading.reader_files import (
    absent_landmarker,
    check_readers,
    reader_files,
    stored_landmarker,
    unused_readers,
)
from df_eval.reading.readers import choose_reader
from df_eval.reports.facts import protocol_facts, protocol_lines
from df_eval.reports.goals import goals_of
from df_eval.reports.output import EvalOutcome, check_place, write_outcome
from df_eval.reports.table import HEADLINE
from df_eval.rows.baseline import FolderSystem
from df_eval.rows.folders import check_folders, read_folders
from df_eval.rows.generation import check_size, fitting_lengths
from df_eval.rows.systems import RunSystem, System
from df_eval.suite import Suite
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig, warn_of_latency
from df_infer.run_dir import RunDir, open_run_dir
from df_infer.sampling.drive import check_makes_structure, check_saw_clean
from df_infer.sampling.guidance import check_guidance
from df_infer.sampling.whole_clip import check_levels
from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.locks import one_writer
from df_models.structure import StructureLayout, require_same
from df_models.time import pixel_length


def evaluate(
    runs: Sequence[str | Path],
    config: EvalConfig,
    out: Path,
    *,
    baselines: Mapping[str, Path] | None = None,
    quiet: bool = False,
) -> tuple[EvalOutcome, Path]:
    """Measure runs and folders of videos on the same clips and write ``out``; return the results and report.html.

    Args:
        runs: run directories; with several systems, the others are compared with the first one.
        baselines: folders of other systems' videos, by the systems' names.

    Raises:
        UserError: no run, no held-out data, runs of different data, settings that do not fit, or a place that cannot
            be written, is being written, or holds something else under the names of what is written.
    """
    opened = [open_run_dir(run, config.checkpoint) for run in runs]
    check_folders(baselines or {})
    with one_writer(out, "df-eval"):
        check_place(out)
        return _evaluate(opened, baselines or {}, config, out, quiet)


def _evaluate(
    runs: Sequence[RunDir], baselines: Mapping[str, Path], config: EvalConfig, out: Path, quiet: bool
) -> tuple[EvalOutcome, Path]:
    rows = system_rows(runs, list(baselines))
    root = common_dataset(runs, config)
    encoder = structure_encoder(root)
    generators = [_generator(run, row, root, config) for run, row in zip(runs, rows)]
    first = generators[0].pipeline
    files = reader_files(config.readers, root)
    check_readers(config.protocol, files)
    unused = unused_readers(config.readers, encoder)
    for line in () if quiet else unused:  # also now: who gave a file waits for nothing that it would change
        print(line, file=sys.stderr)
    reader = choose_reader(encoder, files, stored_landmarker(root), absent_landmarker(root))
    networks = Networks(files, next(first.model.parameters()).device)
    clips, listed = held_out_clips(root, config, encoder, first.size, common_person(runs, root), quiet=quiet)
    lengths, missing = _lengths(generators, clips, config)
    folders = read_folders(baselines, clips, lengths, config.baseline)
    systems: list[System] = [*generators, *folders]
    suite = Suite(systems, reader, clips, config, quiet, networks)
    results = suite.run(lengths)
    facts = protocol_facts(systems, reader, networks, config, encoder, listed, clips)
    seeded = {"seed": config.seed, "resamples": config.resamples}
    several = len(systems) > 1
    outcome = EvalOutcome(
        run=", ".join(rows) if several else runs[0].name,
        config=config,
        clips=clips,
        results=results,
        tables={frames: res.table(**seeded) for frames, res in results.items()},
        goals=[] if several else [goal for res in results.values() for goal in goals_of(res, **seeded)],
        videos=suite.videos,
        protocol=protocol_lines(facts, reader),
        facts=facts,
        missing=missing,
        metrics_jsonl=None if several else runs[0].metrics,
        seconds=suite.seconds,
        differences=differences(results, rows, HEADLINE, **seeded) if several else [],
        drift=suite.drift,
        interventions=suite.interventions,
        sync_codecs=suite.sync_codecs,
        measured_as="" if several else measured_as(runs[0], config, root, files),
        told=[*unused, *_unlike(runs, folders, config), *(line for folder in folders for line in folder.lines())],
    )
    return outcome, write_outcome(outcome, out, quiet)


def system_rows(runs: Sequence[RunDir], baselines: Sequence[str]) -> list[str]:
    """The systems' rows: `generated` for a single run; else their names, of runs the shortest end of the path that
    tells them apart.

    Raises:
        UserError: two are the same, or one is named as a control's row.
    """
    if len(runs) + len(baselines) == 1:
        return [GENERATED]
    places = [run.root.resolve() for run in runs]
    if len(set(places)) < len(places):
        raise UserError("the same run is given twice; give each once")
    depth = 1
    while len({path.parts[-depth:] for path in places}) < len(places):
        depth += 1
    rows = [*("/".join(path.parts[-depth:]) for path in places), *baselines]
    for row in rows:
        if row in ROWS or ": " in row or rows.count(row) > 1:
            taken = "two systems have it" if rows.count(row) > 1 else "it is that of a row of the table"
            raise UserError(f"the name {row!r} cannot be a system's: {taken}; choose another")
    return rows


def common_dataset(runs: Sequence[RunDir], config: EvalConfig) -> Path | None:
    """The dataset that all runs are measured on; None: rendered clips.

    Raises:
        UserError: they were trained on different ones.
    """
    roots = [dataset_of(run, config) for run in runs]
    digests = {None if root is None else read_manifest(root / "val").digest for root in roots}
    if len(digests) > 1:
        shown = ", ".join(f"{run.root}: {root or 'rendered clips'}" for run, root in zip(runs, roots))
        raise UserError(f"the runs have different held-out clips ({shown}); compare runs of one dataset")
    return roots[0]


def common_person(runs: Sequence[RunDir], root: Path | None) -> int | None:
    """The one person that all runs were trained on; None: many.

    Raises:
        UserError: they were trained on different people.
    """
    people = [person_of(run, root) for run in runs]
    if len(set(people)) > 1:
        told = ", ".join(f"{run.root}: {'many' if who is None else who}" for run, who in zip(runs, people))
        raise UserError(f"the runs were trained on different people ({told}); compare runs of the same")
    return people[0]


def _generator(run: RunDir, row: str, root: Path | None, config: EvalConfig) -> RunSystem:
    """A run's model, ready, if it can make what is measured."""
    pipeline = Pipeline.from_run(run.root, config.device, config.dtype, checkpoint=config.checkpoint)
    rollout = config.rollout.applied_to(pipeline.rollout)
    own = pipeline.model.config
    check_makable(own, rollout)
    check_guidance(own, rollout, pipeline.trained)
    warn_of_latency(own, rollout, pipeline.trained)
    if rollout.structure_from is not None:
        check_saw_clean(pipeline.trained)
    if own.has_structure:
        there = structure_there(root, own)
        require_same(own.structure_layout, there, ("the model", f"the dataset {root or 'to render'}"))
    return RunSystem(row, pipeline, rollout, config)


def _lengths(
    generators: Sequence[RunSystem], clips: Sequence[EvalClip], config: EvalConfig
) -> tuple[list[int], dict[int, str]]:
    """The lengths that can be measured, and why not the others."""
    for generator in generators:
        check_size(generator.pipeline, clips)
    limits = [g.pipeline.model.config.one_level_frames for g in generators]
    most = min((pixel_length(limit) for limit in limits if limit), default=None)
    lengths, missing = fitting_lengths(config.frames, clips, most)
    if not lengths:
        raise UserError(f"no length of {list(config.frames)} can be measured: {missing[config.frames[0]]}")
    return lengths, missing


def check_makable(model: DualForceConfig, rollout: RolloutConfig) -> None:
    """Refuse, before any work, a rollout that the model cannot follow.

    Raises:
        UserError: with the setting that would do, or that the model makes no video.
    """
    if not model.has_video:
        raise UserError("the model makes structure alone (streams=structure), and videos are measured")
    if rollout.structure_from is not None and not model.has_structure:
        raise UserError("rollout.structure_from gives structure, and the model has none (streams=video); leave it out")
    check_levels(model, rollout)
    if rollout.structure_from is None:
        check_makes_structure(model)


def structure_there(root: Path | None, model: DualForceConfig) -> StructureLayout | None:
    """What the dataset's vectors mean, of the kind that the model's structure is; no root: rendered clips."""
    source = source_of(model.structure_layout)
    if root is None:
        return flame_layout(None) if source == "flame" else structure_layout(None)
    return structure_of(read_manifest(root / "val"), source)


def structure_encoder(root: Path | None) -> str:
    """Id of the encoder that made a dataset's structure; it decides the reader."""
    return SYNTHETIC if root is None else structure_encoder_of(root)


def _unlike(runs: Sequence[RunDir], folders: Sequence[FolderSystem], config: EvalConfig) -> list[str]:
    """What makes runs and folders of videos unlike before anything is measured."""
    if not runs or not folders or config.codec != "raw":
        return []
    return [
        "runs are measured as they are made and the folders' videos as their files hold them, behind a codec, which "
        "softens them; with codec=h264 the runs' videos pass through one, too"
    ]
