"""The commands `df-data plan` and `df-data fetch`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from df_models.cli_support import command
from df_models.errors import UserError, nearest
from df_models.settings import add_print_config

if TYPE_CHECKING:
    from df_data.fetch.config import FetchConfig
    from df_data.fetch.download import Downloader
    from df_data.sources.catalogue import Catalogue


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register both commands."""
    for name, run, text in (
        ("plan", run_plan, "show what fetching a dataset would take; nothing is downloaded"),
        ("fetch", run_fetch, "download a dataset's videos and cut its clips, with licence and provenance of each"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "source", help="a fetch config such as configs/fetch/hdtf.yaml, or a dataset's name such as hdtf"
        )
        command.add_argument(
            "overrides", nargs="*", default=[], help="dotted overrides, such as limit=3 max_height=720"
        )
        for option, what in (
            ("lists", "file or folder of the dataset's own lists"),
            ("out", "directory that gets clips/ and journal.jsonl"),
        ):
            # argparse takes positional words in one place only: overrides after an option are read as part of it.
            command.add_argument(f"--{option}", nargs="+", metavar=("PATH", "KEY=VALUE"), help=what)
        add_print_config(command)
        command.set_defaults(run=run, goes_on=name == "fetch")


def run_plan(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    from df_data.fetch.plan import make_plan

    config = _config(arguments)
    if arguments.print_config:
        return _print(config)
    catalogue = _catalogue(config)
    print(make_plan(config, catalogue))
    if catalogue.local:
        print(f"next: df-data build with a source of folder {config.lists} (configs/data/grid.yaml is such a config)")
    else:
        overrides, paths = _asked(arguments)
        options = [part for name, path in paths.items() for part in (f"--{name}", path)]
        out = [] if config.out else ["--out", "DIR"]
        words = ["df-data fetch", arguments.source, *overrides, *options, *out]
        print(f"next: {command(' '.join(words))}")
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Fetch, print the summary; 1 if the run ended early, or nothing is there of what was wanted."""
    from df_data.fetch.run import CLIPS, fetch
    from df_data.sources.records import JOURNAL_NAME

    config = _config(arguments)
    if arguments.print_config:
        return _print(config)
    catalogue = _catalogue(config)
    summary = fetch(config, catalogue, downloaders(config, catalogue))
    print(summary)
    if not summary.clips:
        why = f"why not stands in {summary.out / JOURNAL_NAME}" if summary.listed else "the lists hold no usable clip"
        print(f"nothing was fetched; {why}")
        return 1
    print(f"next: df-data build with a source of folder {summary.out / CLIPS}, identity sidecar, licence sidecar")
    return 1 if summary.stopped else 0


def downloaders(config: FetchConfig, catalogue: Catalogue) -> Callable[[str], Downloader]:
    """Return what gives the downloader for an address: plain HTTP for a file, yt-dlp for a page.

    Raises:
        UserError: yt-dlp is needed and not installed, or the cookie file is missing.
    """
    from df_data.fetch.download import Throttle
    from df_data.fetch.http import HttpDownloader
    from df_data.fetch.plan import is_plain_file
    from df_data.fetch.ytdlp import YtDlpDownloader

    if config.cookies and not config.cookies.path.is_file():
        raise UserError(f"no cookie file {config.cookies}; export one from a browser, or set cookies=null")
    limit = int(config.max_gb * 1e9)
    files = HttpDownloader(Throttle(config.rate_limit), config.timeout_s, limit)
    pages = None
    if any(clip.url and not is_plain_file(clip.url) for clip in catalogue.clips):
        pages = YtDlpDownloader(config.max_height, config.rate_limit, config.timeout_s, limit, config.cookies)
    return lambda url: files if pages is None or is_plain_file(url) else pages


def _print(config: FetchConfig) -> int:
    from df_models.settings import dump_config

    print(dump_config(config), end="")
    return 0


def _catalogue(config: FetchConfig) -> Catalogue:
    from df_data.sources.catalogue import read_catalogue

    return read_catalogue(config.source, config.lists.path)


def _config(arguments: argparse.Namespace) -> FetchConfig:
    from df_data.fetch.config import FetchConfig
    from df_models.settings import load_config

    overrides, paths = _asked(arguments)
    overrides += [f"{name}={path}" for name, path in paths.items()]
    named = not arguments.source.endswith((".yaml", ".yml"))
    if named:
        _check_name(arguments.source, listed=any(text.startswith("lists=") for text in overrides))
        overrides.append(f"source={arguments.source}")
    return load_config(FetchConfig, None if named else arguments.source, overrides)


def _check_name(source: str, *, listed: bool) -> None:
    """Do nothing if a source is a dataset's name, and ``listed``, where its lists are, is given.

    Raises:
        UserError: it is a folder or an unknown name, or the lists are missing.
    """
    from df_data.sources.catalogue import LOCAL, READERS

    if source not in READERS:
        if Path(source).is_dir():
            raise UserError(
                f"{source} is a folder, not a dataset; write df-data plan folder --lists {source} for its videos"
            )
        raise UserError(
            f"there is no dataset {source!r}{nearest(source, READERS)}; give a config (.yaml) or a source of these: "
            f"{', '.join(READERS)}"
        )
    if not listed:
        wanted = "folder of its videos" if source in LOCAL else "file or folder of the dataset's own lists"
        raise UserError(f"{source} needs --lists PATH, the {wanted}")


def _asked(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """The overrides, wherever they stood, and the paths by the option that gave them."""
    given = {name: words for name in ("lists", "out") if (words := getattr(arguments, name))}
    overrides = [*arguments.overrides, *(word for words in given.values() for word in words[1:])]
    return overrides, {name: words[0] for name, words in given.items()}
