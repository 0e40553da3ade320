"""The commands of `df-data` that look at a finished dataset: validate, stats, inspect."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_dataset_commands(commands: Any) -> None:
    """Register the three with the subparsers of the command line."""
    validate = commands.add_parser("validate", help="re-check every byte, shape, range and alignment")
    validate.add_argument("--no-video", action="store_true", help="do not decode the mp4s (much faster)")
    validate.add_argument("--workers", type=int, default=1, help="processes, a shard each at a time (default 1)")
    validate.set_defaults(run=_validate)
    stats = commands.add_parser("stats", help="print what a dataset holds: clips, people, value ranges, rejects")
    stats.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    stats.set_defaults(run=_stats)
    inspect = commands.add_parser("inspect", help="write an HTML page to check clips, scores and rejects by eye")
    inspect.add_argument("--out", type=Path, help="the page (default: inspect.html in the dataset)")
    inspect.add_argument("--clips", type=int, default=12, help="clips that are shown (default 12)")
    inspect.add_argument("--split", help="show clips of this split only, such as train (default: of all)")
    inspect.set_defaults(run=_inspect)
    for command in (validate, stats, inspect):
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

    print(describe_json(arguments.directory) if arguments.json else "\n".join(describe(arguments.directory)))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from df_data.check.inspect.gallery import write_gallery

    page = write_gallery(arguments.directory, arguments.out, clips=arguments.clips, split=arguments.split)
    print(f"{page}: open it in a browser; it holds images of people, so share it as you would share the videos")
    return 0
