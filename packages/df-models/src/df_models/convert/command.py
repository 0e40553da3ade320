"""``df-models convert-wan``: from a published transformer to a saved model."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from df_models.convert.checkpoint import read_wan
from df_models.convert.wan import Conversion, Layers, load_wan, wan_sizes
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory
from df_models.model.config import VideoDiTConfig, config_from_dict
from df_models.model.dualforce import DualForce
from df_models.model.presets import preset_config
from df_models.model.video_dit import VideoDiT

REPORT_FILE = "conversion.json"


def convert_wan(arguments: argparse.Namespace, overrides: dict[str, object]) -> str:
    """Convert as the command's arguments say; return the report for people.

    Raises:
        UserError: the source, the target, a setting or the layers do not fit; nothing is written then.
    """
    target = Path(arguments.target)
    check_output_directory(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already; choose another directory, or remove it")
    tensors, sha256 = read_wan(arguments.source)
    torch.manual_seed(arguments.seed)
    if arguments.tower:
        model: Any = VideoDiT(tower_config(tensors, overrides))
        tower, what = model, "video tower"
    else:
        model = DualForce(preset_config(arguments.preset, **overrides))
        tower, what = model.video, f"model ({arguments.preset})"
    conversion = load_wan(tower, tensors, parse_layers(arguments.layers, tensors, tower.config.num_layers))
    model.save_pretrained(target)
    atomic_write(target / REPORT_FILE, json.dumps(_report(arguments, sha256, conversion), indent=2) + "\n")
    return f"{conversion.summary()}\nwrote the {what} to {target}"


def tower_config(tensors: dict[str, Tensor], overrides: dict[str, object]) -> VideoDiTConfig:
    """Return the configuration of a tower in a checkpoint's sizes, with some settings replaced."""
    return config_from_dict(VideoDiTConfig, {**wan_sizes(tensors), **overrides})


def parse_layers(text: str | None, tensors: dict[str, Tensor], wanted: int) -> Layers:
    """Return ``--layers`` as :func:`load_wan` takes it; without it all, or evenly spaced ones of a deeper model."""
    if text is None:
        available = wan_sizes(tensors)["num_layers"]
        return "even" if isinstance(available, int) and available > wanted else "all"
    if text[:1].isdigit():
        try:
            numbers = [int(part) for part in text.split(",")]
        except ValueError as error:
            raise UserError(f"--layers {text} is no number and no list of numbers such as 0,2,4") from error
        return numbers if "," in text else numbers[0]
    return text  # type: ignore[return-value]


def _report(arguments: argparse.Namespace, sha256: str, conversion: Conversion) -> dict[str, Any]:
    return {"source": arguments.source, "source_sha256": sha256, "seed": arguments.seed, **asdict(conversion)}
