"""The ``df-models`` command: what the presets are and cost, and Wan's weights as a start."""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import replace

from df_models.cli_support import CommandParser, add_version, run_cli
from df_models.errors import UserError

_OVERRIDE = re.compile(r"^[a-z]\w*=")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_cli(_main, "df-models", argv)


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = CommandParser(
        prog="df-models", description="The DualForce model: presets, costs, conversion of public weights."
    )
    add_version(parser, "df-models")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    describe = commands.add_parser(
        "describe",
        help="parameters by part, operations per latent frame, memory to train and to run",
        description="Print what a preset or a saved model costs. Nothing is allocated, so any size works anywhere.",
        usage="df-models describe PRESET [NAME=VALUE ...] [options]",
        epilog="NAME=VALUE replaces a setting: df-models describe quickstart num_layers=8 structure_layers=8 --size 64",
    )
    describe.add_argument("model", metavar="PRESET", help="a preset's name, or the directory of a saved model")
    describe.add_argument("--size", type=int, help="side of the video in pixels (default: the model's video_size)")
    describe.add_argument("--frames", type=int, default=33, help="pixel frames of a training clip (default: 33)")
    describe.add_argument("--batch", type=int, default=1, help="clips per training step (default: 1)")
    describe.add_argument("--window", type=int, default=8, help="latent frames of the cache's window (default: 8)")
    describe.add_argument("--sinks", type=int, default=1, help="first latent frames kept for ever (default: 1)")
    convert = commands.add_parser(
        "convert-wan",
        help="a model that starts from Wan's public weights",
        description="Build a model, put Wan's weights into its video tower, and save it. What became of every tensor "
        "is printed and saved beside it as conversion.json.",
        usage="df-models convert-wan SRC DST [NAME=VALUE ...] [options]",
        epilog="SRC is a file, a directory in diffusers' layout or a Hub id (Wan-AI/Wan2.1-T2V-1.3B-Diffusers). "
        "Train from DST with: df-train --config ... model.start_from=DST",
    )
    convert.add_argument("source", metavar="SRC", help="Wan's transformer: file, directory or Hub id")
    convert.add_argument("target", metavar="DST", help="directory to write the model into; must be new or empty")
    convert.add_argument("--preset", default="dualforce-wan", help="the model to build (default: dualforce-wan)")
    convert.add_argument("--tower", action="store_true", help="write the video tower alone, in the checkpoint's sizes")
    convert.add_argument(
        "--layers",
        default=None,
        help="which of Wan's layers: all, first, even (spaced over all; the default where the model has fewer), "
        "a number (the first ones), or a list as 0,2,4",
    )
    convert.add_argument("--seed", type=int, default=0, help="of what Wan does not have (default: 0)")
    commands.add_parser("presets", help="the presets' names", description="Print the presets' names, one per line.")
    return parser


def _main(argv: list[str]) -> None:
    overrides = [text for text in argv if _OVERRIDE.match(text)]
    arguments = build_parser().parse_args([text for text in argv if text not in overrides])
    if arguments.command == "presets":
        from df_models.model.presets import presets

        print("\n".join(presets()))
        return
    values = dict(_override(text) for text in overrides)
    if arguments.command == "convert-wan":
        from df_models.convert.command import convert_wan

        print(convert_wan(arguments, values))
        return
    _describe(arguments, values)


def _describe(arguments: argparse.Namespace, overrides: dict[str, object]) -> None:
    from pathlib import Path

    from df_models.model.config import DualForceConfig
    from df_models.model.describe import Workload, describe, render
    from df_models.model.presets import preset_config
    from df_models.model.pretrained import CONFIG_FILE, read_header

    if arguments.size is not None and (arguments.size < 16 or arguments.size % 16):
        raise UserError(f"--size must be a multiple of 16, not {arguments.size}")
    for name in ("batch", "window"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if Path(arguments.model).is_dir():
        header = read_header(Path(arguments.model) / CONFIG_FILE)
        config = DualForceConfig.from_dict({**header["config"], **overrides})
    else:
        config = preset_config(arguments.model, **overrides)
    sizes = {name: getattr(arguments, name) for name in ("frames", "batch", "window", "sinks")}
    size = config.video_size if arguments.size is None else arguments.size
    print(render(arguments.model, describe(config, replace(Workload(), size=size, **sizes))))


def _override(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    raise SystemExit(main())
