"""The commands of `df-data` that look at a finished dataset: validate, stats, inspect, motion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from df_models.cli_support import announce_loading


def add_dataset_commands(commands: Any) -> None:
    """Register the four with the subparsers of the command line."""
    validate = commands.add_parser("validate", help="re-check every byte, shape, range and alignment")
    validate.add_argument("--no-video", action="store_true", help="do not decode the mp4s (much faster)")
    validate.add_argument("--workers", type=int, default=1, help="processes, a shard each at a time (default 1)")
    validate.set_defaults(run=_validate)
    stats = commands.add_parser("stats", help="print what a dataset holds, in ten lines or all of it")
    stats.add_argument("--full", action="store_true", help="all of it: every score, measure, field and tensor")
    stats.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    stats.set_defaults(run=_stats)
    inspect = commands.add_parser("inspect", help="write an HTML page to check clips, scores and rejects by eye")
    inspect.add_argument("--out", type=Path, help="the page (default: inspect.html in the dataset)")
    inspect.add_argument("--clips", type=int, default=12, help="clips that are shown (default 12)")
    inspect.add_argument("--rejects", type=int, default=60, help="rejected inputs that are shown (default 60)")
    inspect.add_argument("--split", help="show clips of this split only, such as train (default: of all)")
    inspect.set_defaults(run=_inspect)
    motion = commands.add_parser("motion", help="write a clip's structure to a file, to be given at generation")
    motion.add_argument("--key", required=True, help="the clip's, as inspect and stats name it")
    motion.add_argument("--out", type=Path, required=True, help="the .npz to write, for df-infer generate --drive")
    motion.add_argument("--flame", action="store_true", help="the motion part of its FLAME vectors instead")
    motion.set_defaults(run=_motion)
    for command in (validate, stats, inspect, motion):
        command.add_argument("directory", type=Path, help="a dataset (with train/ and val/) or one split of it")


def _validate(arguments: argparse.Namespace) -> int:
    from df_data.check.validate import check_dataset
    from df_data.common.wording import counted
    from df_models.errors import UserError

    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: use 1 or more")
    report = check_dataset(arguments.directory, media=not arguments.no_video, workers=arguments.workers)
    for directory, count in report.by_split.items():
        print(f"{directory}: {counted(count, 'problem') if count else 'ok'}")
    for problem in report.problems:
        print(f"  {problem}")
    size = report.bytes / 2**20
    verdict = counted(len(report.problems), "problem") if report.problems else "no problems"
    read = f"{counted(report.clips, 'clip')} in {counted(report.shards, 'shard')} ({size:.1f} MiB)"
    print(f"{read} checked: {verdict}")
    return 1 if report.problems else 0


def _stats(arguments: argparse.Namespace) -> int:
    from df_data.check.stats import describe, describe_json

    full = bool(arguments.full)
    print(describe_json(arguments.directory) if arguments.json else "\n".join(describe(arguments.directory, full=full)))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    announce_loading("df-data")
    from df_data.check.inspect.gallery import write_gallery

    shown = {"clips": arguments.clips, "split": arguments.split, "rejects": arguments.rejects}
    page = write_gallery(arguments.directory, arguments.out, **shown)
    print(f"{page}: open it in a browser; it holds images of people, so share it as you would share the videos")
    return 0


def _motion(arguments: argparse.Namespace) -> int:
    from df_data.check.motion import motion_of
    from df_models.errors import UserError
    from df_models.files import check_output
    from df_models.motion import write_motion

    if arguments.out.suffix != ".npz":
        raise UserError(f"{arguments.out} must end in .npz")
    check_output(arguments.out)
    motion = motion_of(arguments.directory, arguments.key, "flame" if arguments.flame else "structure")
    write_motion(arguments.out, motion)
    print(f"{arguments.out}: {len(motion.structure_PD)} frames of {motion.layout or 'structure of an unknown encoder'}")
    return 0
