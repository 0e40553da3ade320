"""The command ``df-data people``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from df_models.cli_support import command
from df_models.settings import add_print_config

DEFAULT_OUT = "people.jsonl"


def add_parser(commands: Any) -> None:
    """Register ``df-data people`` with the subparsers of the command line."""
    parser = commands.add_parser("people", help="find who is who among a build's videos, before the split")
    parser.description = (
        "Look at a few frames of every input of a build and write who is who by their faces, one JSON line per input, "
        "for sources with `identity: people:FILE`. Give it again when videos were added: it looks at what is new."
    )
    parser.add_argument("--config", type=Path, required=True, help="the build's config, such as configs/data/hdtf.yaml")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"the file to write (default: the one that the config's sources name, else {DEFAULT_OUT})",
    )
    parser.add_argument("--doubtful", type=int, default=20, help="list so many pairs near the threshold (default 20)")
    parser.add_argument("overrides", nargs="*", default=[], help="dotted overrides of the config, such as workers=4")
    add_print_config(parser)
    parser.set_defaults(run=run, goes_on=True)


def run(arguments: argparse.Namespace) -> int:
    """Find the people and say what came of it."""
    from df_data.build.config import BuildConfig
    from df_data.people.find import find_people
    from df_models.errors import UserError
    from df_models.settings import dump_config, expand_path, load_config

    config = load_config(BuildConfig, arguments.config, arguments.overrides)
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    named = sorted({source.people for source in config.sources if source.people is not None})
    if arguments.out is None and len(named) > 1:
        raise UserError(f"the sources name several people files ({', '.join(named)}); give one with --out")
    out = arguments.out or expand_path(named[0] if named else DEFAULT_OUT)
    summary = find_people(config, out)
    print("\n".join(summary.lines(arguments.doubtful)))
    if not named:
        build = command("df-data build --config ...")
        print(f"next: set `identity: people:{out}` in the config's sources, then: {build}")
    return 0
