"""From a run directory to the written evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from df_data.format.manifest import (
    SYNTHETIC,
    flame_layout,
    read_manifest,
    source_of,
    structure_layout,
    structure_of,
)
from df_data.synth.corpus import corpus_config
from df_eval.clips import EvalClip, render_clips, stored_clips, structure_encoder_of
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.dataset import dataset_of
from df_eval.generation import check_size, fitting_lengths
from df_eval.goals import goals_of
from df_eval.metrics.sets import SET_RESAMPLES
from df_eval.networks import Networks
from df_eval.output import EvalOutcome, check_place, write_outcome
from df_eval.readers import MEDIAPIPE, FaceReader, choose_reader
from df_eval.suite import Suite
from df_infer.config import TRUTH
from df_infer.drive import check_makes_structure
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig
from df_infer.run_dir import RunDir, open_run_dir
from df_infer.whole_clip import check_levels
from df_models import DualForceConfig
from df_models.encoders import AudioEncoder, VideoVAE
from df_models.errors import UserError
from df_models.locks import one_writer
from df_models.machine import describe_device
from df_models.settings import Location, expand_path, read_tree
from df_models.structure import StructureLayout, require_same
from df_models.time import covering_pixel_length, pixel_length


def evaluate(run_dir: str | Path, config: EvalConfig, out: Path, *, quiet: bool = False) -> tuple[EvalOutcome, Path]:
    """Measure a run and write ``out``; return the results and the path of report.html.

    Raises:
        UserError: no run, no held-out data, settings that do not fit, or a place that cannot be written, is being
            written, or holds something else under the names of what is written.
    """
    run = open_run_dir(run_dir, config.checkpoint)
    with one_writer(out, "df-eval"):
        check_place(out)
        return _evaluate(run, config, out, quiet)


def _evaluate(run: RunDir, config: EvalConfig, out: Path, quiet: bool) -> tuple[EvalOutcome, Path]:
    root = dataset_of(run, config)
    pipeline = Pipeline.from_run(run.root, config.device, config.dtype, checkpoint=config.checkpoint)
    rollout = config.rollout.applied_to(pipeline.rollout)
    encoder = structure_encoder(root)
    own = pipeline.model.config
    check_makable(own, rollout)
    if own.has_structure:
        there = structure_there(root, own)
        require_same(own.structure_layout, there, ("the model", f"the dataset {root or 'to render'}"))
    files = reader_files(config.readers, root)
    reader = choose_reader(encoder, files, stored_landmarker(root))
    networks = Networks(files, next(pipeline.model.parameters()).device)
    clips, source = held_out_clips(root, config, encoder, pipeline.size, person_of(run, root))
    check_size(pipeline, clips)
    most = pixel_length(own.one_level_frames) if own.one_level_frames else None
    lengths, missing = fitting_lengths(config.frames, clips, most)
    if not lengths:
        raise UserError(f"no length of {list(config.frames)} can be measured: {missing[config.frames[0]]}")
    suite = Suite(pipeline, reader, clips, config, rollout, quiet, networks)
    results = suite.run(lengths)
    tables = {frames: res.table(config.seed, config.resamples) for frames, res in results.items()}
    goals = [goal for res in results.values() for goal in goals_of(res, config.seed, config.resamples)]
    facts = protocol_facts(pipeline, reader, networks, rollout, config, encoder, source, clips)
    outcome = EvalOutcome(
        run=run.name,
        config=config,
        clips=clips,
        results=results,
        tables=tables,
        goals=goals,
        videos=suite.videos,
        protocol=protocol_lines(facts, reader),
        facts=facts,
        missing=missing,
        metrics_jsonl=run.metrics,
        seconds=suite.seconds,
    )
    return outcome, write_outcome(outcome, out, quiet)


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


def reader_files(files: ReadersConfig, root: Path | None) -> ReadersConfig:
    """The files of the readers; without a landmarker the one that the dataset's own config names, if it is there."""
    file = None if root is None else root / "config.yaml"
    if files.landmarker is not None or file is None or not file.is_file():
        return files
    models = read_tree(file).get("models")
    named = models.get("face_landmarker") if isinstance(models, dict) else None
    path = expand_path(named) if isinstance(named, str) else None
    if path is None or not path.is_file():
        return files
    return files.model_copy(update={"landmarker": Location(path)})


def stored_landmarker(root: Path | None) -> str:
    """SHA-256 of the landmarker whose readings a dataset stores as its clips' truth; empty: none."""
    encoders = {} if root is None else read_manifest(root / "val").encoders
    found = encoders.get("face_landmarker") or encoders.get("structure")
    return found.sha256 if found is not None and found.id == MEDIAPIPE else ""


def person_of(run: RunDir, root: Path | None) -> int | None:
    """The number of the person of a synthetic corpus of one person; None for other datasets."""
    if root is not None:
        made = corpus_config(root)
        return None if made is None else made.person
    synth = run.section("data").get("synth")
    return synth.get("person") if isinstance(synth, dict) else None


def held_out_clips(
    root: Path | None, config: EvalConfig, encoder: str, size: int, person: int | None = None
) -> tuple[list[EvalClip], str]:
    """The clips and where they come from.

    The val clips of the dataset are taken if there are enough of them, long enough for the longest length and, at the
    shortest, for the shifted-audio control. Otherwise synthetic ones are rendered (people and sentences of the val
    split, which training never draws); for real data what is there is used.

    Args:
        person: whom alone the rendered clips show (:func:`person_of`).

    Raises:
        UserError: real data without any usable val clip.
    """
    needed = max(config.frames[-1], config.frames[0] + config.shifts[0])
    stored = [] if root is None else stored_clips(root, config.clips, needed)
    if root is not None and len(stored) >= config.clips:
        return stored, _from(root, stored)
    if root is None or encoder == SYNTHETIC:
        frames = covering_pixel_length(max(config.frames[-1], config.frames[0] + config.shifts[-1]))
        clips = render_clips(config.clips, frames, size, config.seed, person)
        what = (
            "the val split's people and sentences"
            if person is None
            else f"the val split's sentences by person {person}"
        )
        return clips, f"{len(clips)} clips rendered from {what} (seed {config.seed})"
    usable = stored_clips(root, config.clips, min(config.frames))
    if not usable:
        raise UserError(
            f"the val split at {root / 'val'} holds no clip of {min(config.frames)} frames with video to compare with; "
            "build it with more or longer clips, or measure shorter lengths (--frames)"
        )
    return usable, _from(root, usable)


def _from(root: Path, clips: Sequence[EvalClip]) -> str:
    digest = read_manifest(root / "val").digest
    return f"{len(clips)} val clips of {root.resolve().name} (digest {digest[:12]})"


def protocol_facts(
    pipeline: Pipeline,
    reader: FaceReader,
    networks: Networks,
    rollout: RolloutConfig,
    config: EvalConfig,
    encoder: str,
    source: str,
    clips: Sequence[EvalClip],
) -> dict[str, Any]:
    """Everything needed to understand or repeat the numbers, as data."""
    device = next(pipeline.model.parameters()).device
    return {
        "clips_from": source,
        "clips": [{"key": clip.key, "identity": clip.identity, "frames": clip.length} for clip in clips],
        "structure_encoder": encoder,
        "reader": reader.id,
        "truth": reader.truth_note,
        "networks": networks.used,
        "video_vae": _named(pipeline.video_vae),
        "audio_encoder": None if pipeline.audio_encoder is None else _named(pipeline.audio_encoder),
        "prompt": None if pipeline.prompt is None else pipeline.prompt.words,
        "rollout": rollout.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in pipeline.model.parameters()),
        "device": describe_device(device),
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def _named(encoder: VideoVAE | AudioEncoder) -> dict[str, str]:
    return {"id": encoder.id, "sha256": encoder.sha256}


def protocol_lines(facts: dict[str, Any], reader: FaceReader) -> list[tuple[str, str]]:
    """The protocol for people."""
    config, rollout = facts["config"], facts["rollout"]
    shifts = ", ".join(str(shift) for shift in config["shifts"])
    people = len({clip["identity"] for clip in facts["clips"]})
    return [
        ("clips", f"{facts['clips_from']}, {people} people, each clip another sentence"),
        ("reference image", "the clip's first frame"),
        ("reader", f"{facts['reader']}; truth: {reader.truth_note}"),
        ("generation", ", ".join(f"{name} {value}" for name, value in rollout.items())),
        ("structure", _structure_of(rollout)),
        ("seed", str(config["seed"])),
        (
            "intervals",
            f"percentile bootstrap over clips, 95 %, {config['resamples']} resamples; distances of distributions: "
            f"{min(config['resamples'], SET_RESAMPLES)}, moved to the mean",
        ),
        ("shifted audio", f"truth taken {shifts} frames later (25 per second), mean over these shifts"),
        ("lag", f"searched within +-{config['max_lag']} frames"),
        ("model", f"{_which(config)}, {facts['parameters']:,} parameters; VAE {facts['video_vae']['id']}"),
        ("machine", f"{facts['device']}, torch {facts['torch']}"),
    ]


def _structure_of(rollout: dict[str, Any]) -> str:
    source = rollout["structure_from"]
    if source is None:
        return "generated by the model, beside the video"
    if source == TRUTH:
        return "GIVEN, the true structure of each clip: the video is not made from sound alone"
    return f"given, made first by {source} from the same sound"


def _which(config: dict[str, Any]) -> str:
    return "the final one" if config["checkpoint"] is None else f"the milestone of step {config['checkpoint']}"
