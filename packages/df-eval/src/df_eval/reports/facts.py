"""The protocol of an evaluation: everything needed to understand or repeat its numbers, as data and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.metrics.sets import SET_RESAMPLES
from df_eval.protocols.protocol import ClipList, protocol_digest, protocol_text
from df_eval.reading.networks import Networks
from df_eval.reading.readers import FaceReader
from df_eval.rows.baseline import FolderSystem
from df_eval.rows.systems import RunSystem, System
from df_infer.config import OTHERS, TRUTH
from df_models.encoders import AudioEncoder, VideoVAE
from df_models.machine import describe_device

CODEC_TEXT = "generated and rebuilt videos pass through H.264 (yuv420p, as df-infer writes it) before they are read"


def protocol_facts(
    systems: Sequence[System],
    reader: FaceReader,
    networks: Networks,
    config: EvalConfig,
    encoder: str,
    listed: ClipList,
    clips: Sequence[EvalClip],
) -> dict[str, Any]:
    """Everything needed to understand or repeat the numbers, as data.

    What is said of a run stands at the top for the first one, and for every system under `systems` where there are
    several.
    """
    size = list(clips[0].size)
    by_row = {system.row: _system_facts(system, config) for system in systems}
    return {
        "clips_from": listed.source,
        "protocol": _protocol(config, listed, size),
        "size": size,
        "clips": [{"key": clip.key, "identity": clip.identity, "frames": clip.length} for clip in clips],
        "structure_encoder": encoder,
        "reader": reader.id,
        "truth": reader.truth_note,
        "networks": networks.used,
        "config": config.model_dump(mode="json"),
        "torch": torch.__version__,
        **by_row[systems[0].row],
        **({"systems": by_row} if len(systems) > 1 else {}),
    }


def _protocol(config: EvalConfig, listed: ClipList, size: Sequence[int]) -> dict[str, Any] | None:
    protocol, split = config.protocol, config.split
    if protocol is None:
        return None
    return {
        "name": protocol.name,
        "sha256": protocol_digest(config, size),
        "split": split,
        "list": listed.sha256,
        "list_checked": getattr(protocol, str(split)).sha256 is not None,
    }


def _system_facts(system: System, config: EvalConfig) -> dict[str, Any]:
    if isinstance(system, RunSystem):
        return _run_facts(system)
    assert isinstance(system, FolderSystem)
    return {"videos": len(system.videos), "settings": config.baseline.model_dump(), "told": system.lines()}


def _run_facts(system: RunSystem) -> dict[str, Any]:
    pipeline = system.pipeline
    return {
        "video_vae": _named(pipeline.video_vae),
        "audio_encoder": None if pipeline.audio_encoder is None else _named(pipeline.audio_encoder),
        "prompt": None if pipeline.prompt is None else pipeline.prompt.words,
        "rollout": system.rollout.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in pipeline.model.parameters()),
        "device": describe_device(next(pipeline.model.parameters()).device),
        "dtype": pipeline.precision,
    }


def _named(encoder: VideoVAE | AudioEncoder) -> dict[str, str]:
    return {"id": encoder.id, "sha256": encoder.sha256}


def protocol_lines(facts: dict[str, Any], reader: FaceReader) -> list[tuple[str, str]]:
    """The protocol for people."""
    config = facts["config"]
    shifts = ", ".join(str(shift) for shift in config["shifts"])
    people, (height, width) = len({clip["identity"] for clip in facts["clips"]}), facts["size"]
    return [
        ("protocol", protocol_text(facts)),
        ("clips", f"{facts['clips_from']}, {people} people, each clip another sentence, {width}x{height} pixels"),
        ("reference image", "the clip's first frame"),
        ("reader", f"{facts['reader']}; truth: {reader.truth_note}"),
        *_system_lines(facts),
        ("seed", str(config["seed"])),
        (
            "intervals",
            f"value ± t × standard error of a bootstrap over {'people' if people > 1 else 'the clips of one person'}, "
            f"95 %, {config['resamples']} resamples; of distances of distributions "
            f"{min(config['resamples'], SET_RESAMPLES)}",
        ),
        ("shifted audio", f"truth taken {shifts} frames later (25 per second), mean over these shifts"),
        *([("codec", CODEC_TEXT)] if config["codec"] != "raw" else []),
        ("lag", f"searched within +-{config['max_lag']} frames"),
        *_beside(config),
        ("machine", f"{facts['device']}, torch {facts['torch']}"),
    ]


def _beside(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What is measured beside the table, where it was asked for."""
    drift = config["drift"]
    at = ", ".join(map(str, drift["at"]))
    told = [
        (drift["frames"] is not None, "drift", f"windows of {drift['window']} frames that end after {at}, at every "
         f"doubling and at the end of {drift['frames']}"),
        (config["interventions"], "interventions", "structure, and reference image, swapped between clips"),
        (config["sync_codecs"], "SyncNet behind codecs", "the truth and every system again, at the longest length"),
    ]  # fmt: skip
    return [(name, text) for asked, name, text in told if asked]


def _system_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """How each system makes its videos."""
    config, systems = facts["config"], facts.get("systems", {"": facts})
    lines: list[tuple[str, str]] = []
    for row, own in systems.items():
        of = f", {row}" if row else ""
        if "rollout" not in own:
            asked = [f"baseline.{name}" for name, on in own["settings"].items() if on]
            changed = f"changed where {' and '.join(asked)} asks for it" if asked else "as they are"
            lines.append((f"videos{of}", f"{own['videos']} of a folder, {changed}"))
            continue
        rollout = own["rollout"]
        lines += [
            (f"generation{of}", ", ".join(f"{name} {value}" for name, value in rollout.items())),
            (f"structure{of}", _structure_of(rollout)),
            (f"model{of}", f"{_which(config)}, {own['parameters']:,} parameters; VAE {own['video_vae']['id']}"),
        ]
    return lines


def _structure_of(rollout: dict[str, Any]) -> str:
    source = rollout["structure_from"]
    if source is None:
        return "generated by the model, beside the video"
    if source == TRUTH:
        return "GIVEN, the true structure of each clip: the video is not made from sound alone"
    if source == OTHERS:
        whose = "of the next clip, of another person where there is one"
        return f"GIVEN, the true structure {whose}, beside each clip's own sound"
    return f"given, made first by {source} from the same sound"


def _which(config: dict[str, Any]) -> str:
    return "the final one" if config["checkpoint"] is None else f"the milestone of step {config['checkpoint']}"
