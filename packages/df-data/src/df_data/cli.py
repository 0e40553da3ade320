"""The command `df-data`: make a corpus, build shards from real video, check them, describe them."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from df_data.check.commands import add_dataset_commands
from df_data.fetch.command import add_parser as add_fetch_parsers
from df_data.people.command import add_parser as add_people_parser
from df_models.cli_support import CommandParser, add_version, announce_loading, command, run_cli
from df_models.errors import UserError
from df_models.settings import add_print_config

if TYPE_CHECKING:
    from df_data.build.config import BuildConfig
    from df_data.synth.config import SynthConfig

EPILOG = """examples:
  df-data synth --out data/synth --clips 1000 --seed 0
  df-data plan configs/fetch/hdtf.yaml
  df-data fetch configs/fetch/hdtf.yaml --out data/hdtf-clips
  df-data people --config configs/data/hdtf.yaml --out data/people.jsonl
  df-data build videos/ --out data/mine
  df-data build --config configs/data/grid.yaml
  df-data build --config configs/data/grid.yaml --retry failed
  df-data validate data/synth
  df-data stats data/synth
  df-data inspect data/synth

exit codes: 0 done; 1 a check failed, or nothing came out; 2 a mistake in what was asked; 3 the machine lacks something;
130 interrupted"""


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_cli(_main, "df-data", argv)


def _main(argv: list[str]) -> int:
    arguments = _parsed(_parser(), argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt as interrupt:
        if getattr(arguments, "goes_on", False):
            raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from interrupt
        raise


def _parsed(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse a command line; settings may stand after options too (argparse takes only the first run of them)."""
    arguments, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(arguments, "given") or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.given += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="df-data",
        description="Raw or synthetic video to WebDataset shards.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser, "df-data")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _synth_parser(commands.add_parser("synth", help="make the synthetic corpus: rendered people who speak"))
    build = commands.add_parser(
        "build",
        help="turn real video into shards through the stages",
        usage="%(prog)s [FOLDER] [--config CONFIG] [--out OUT] [--retry WHICH] [--print-config] [KEY=VALUE ...]",
        description="FOLDER alone is the plain case: every video in it, each of a person of its own, by settings that "
        "are written to config.yaml in OUT. With both, CONFIG's first source lies in FOLDER.",
    )
    build.add_argument("--config", type=Path, help="a build config, such as configs/data/folder.yaml")
    build.add_argument("--out", type=Path, help="directory of the dataset (the setting `out`)")
    build.add_argument(
        "given",
        nargs="*",
        default=[],
        metavar="FOLDER, KEY=VALUE",
        help="a folder of videos, and dotted overrides such as stages.size=512 or sources.0.licence=CC0-1.0",
    )
    build.add_argument(
        "--retry",
        choices=["failed", "damaged"],
        help="failed: try the inputs again that ended so before; damaged: check the sha256 of all shards and make "
        "those again that have changed (missing ones are made again in any case)",
    )
    add_print_config(build)
    build.set_defaults(run=_build, goes_on=True)
    add_people_parser(commands)
    merge = commands.add_parser("merge", help="join the parts of one build (part=1/2, part=2/2) to one dataset")
    merge.add_argument("parts", type=Path, nargs="+", help="the parts' directories, all of them")
    merge.add_argument("--out", type=Path, required=True, help="directory of the joined dataset")
    merge.set_defaults(run=_merge, goes_on=True)
    add_fetch_parsers(commands)
    add_dataset_commands(commands)
    return parser


def _synth_parser(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make the synthetic corpus: a parametric 3D head driven by a formant synthesiser, with exact truths."
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the dataset; gets train/ and val/")
    parser.add_argument("--clips", type=int, required=True, help="training clips, each of another person")
    parser.add_argument(
        "--person",
        type=int,
        metavar="N",
        help="all clips of person number N instead, held-out ones too (from 1000000: in no other training clips)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other people and sentences (default 0)")
    parser.add_argument("--val-clips", type=int, default=16, help="held-out clips (default 16)")
    parser.add_argument("--frames", type=int, default=33, help="pixel frames per clip, 1 + 4 n, 25 a second (33)")
    parser.add_argument("--val-frames", type=int, default=129, help="pixel frames per held-out clip (129)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, a multiple of 16 (64)")
    parser.add_argument("--workers", type=int, default=2, help="rendering processes (2)")
    parser.add_argument("--keep-train-video", action="store_true", help="keep the training clips' pixels as mp4 too")
    parser.add_argument(
        "--preview",
        action="store_true",
        help="also write preview.png (six people) and preview.mp4 (with audio), larger",
    )
    parser.set_defaults(run=_synth, goes_on=True)


def _synth(arguments: argparse.Namespace) -> int:
    announce_loading("df-data")
    from df_data.synth.corpus import SynthConfig, build_corpus
    from df_models.settings import load_config

    names = ("clips", "seed", "val_clips", "frames", "val_frames", "size", "workers", "keep_train_video", "person")
    config = load_config(SynthConfig, None, [f"{name}={json.dumps(getattr(arguments, name))}" for name in names])
    out = build_corpus(config, arguments.out)
    if arguments.preview:
        _preview(config, out)
    print(f"{out}: {config.clips} training clips, {config.val_clips} held-out clips")
    train = command(f"df-train --config configs/train/quickstart.yaml data.root={quote(str(out))} data.synth=null")
    print(f"next: {train}")
    return 0


def _preview(config: SynthConfig, out: Path) -> None:
    import numpy as np

    from df_data.synth.clip import make_clip
    from df_data.synth.corpus import jobs_of
    from df_models.media import write_image, write_video

    clips = [
        make_clip(j.seed, j.identity, 33, 128, split=j.split, in_both=j.in_both) for j in jobs_of(config, "train")[:6]
    ]
    write_image(out / "preview.png", np.concatenate([np.concatenate(list(c.frames[::5]), axis=1) for c in clips]))
    job = jobs_of(config, "train")[0]
    clip = make_clip(job.seed, job.identity, 129, 256, split=job.split, in_both=job.in_both)
    write_video(out / "preview.mp4", clip.frames, audio=clip.wave)
    print(f"preview: {out / 'preview.png'} and {out / 'preview.mp4'}")


def _build(arguments: argparse.Namespace) -> int:
    from df_data.build.build import build
    from df_data.format.ledger import LEDGER_NAME
    from df_models.settings import dump_config

    config = _build_config(arguments)
    if arguments.print_config:
        print(dump_config(config), end="")
        return 0
    summary = build(config, retry_failed=arguments.retry == "failed", retry_damaged=arguments.retry == "damaged")
    print(summary)
    if not any(summary.clips.values()) and any(summary.counts.values()):
        print(
            f"nothing was accepted; why not stands in {summary.out / LEDGER_NAME} and, in images, is shown by: "
            f"{command(f'df-data inspect {quote(str(summary.out))}')}"
        )
        return 1
    print(f"next: {command(f'df-data validate {quote(str(summary.out))}')}")
    return 0


def _build_config(arguments: argparse.Namespace) -> BuildConfig:
    """The configuration that a command line of `df-data build` asks for.

    Raises:
        UserError: neither folder nor config, two folders, a folder without `out`, or a mistake in the settings.
    """
    from df_data.build.config import BuildConfig
    from df_data.build.plain import plain_settings
    from df_models.settings import load_config, merge, read_tree, validate_config

    folders = [text for text in arguments.given if "=" not in text or os.path.isdir(text)]
    overrides = [text for text in arguments.given if text not in folders]
    if len(folders) > 1:
        raise UserError(f"{' and '.join(folders)}: one folder is built at a time; for several, write a config")
    if not folders and arguments.config is None:
        raise UserError("give a folder of videos, df-data build FOLDER --out OUT, or a --config")
    overrides += [] if arguments.out is None else [f"out={json.dumps(str(arguments.out))}"]
    if not folders:
        return load_config(BuildConfig, arguments.config, overrides)
    if arguments.config is not None:
        return load_config(BuildConfig, arguments.config, [f"sources.0.folder={json.dumps(folders[0])}", *overrides])
    tree = merge(plain_settings(Path(folders[0])), read_tree(None, overrides))
    if "out" not in tree:
        raise UserError(f"say where the dataset is to lie: df-data build {folders[0]} --out OUT")
    return validate_config(BuildConfig, tree, folders[0], overrides=overrides)


def _merge(arguments: argparse.Namespace) -> int:
    from df_data.build.merge import merge
    from df_data.common.wording import counted

    for manifest in merge(arguments.parts, arguments.out):
        clips, shards = counted(manifest.count, "clip"), counted(len(manifest.shards), "shard")
        print(f"{arguments.out / manifest.split}: {clips} in {shards}")
    print(f"next: {command(f'df-data validate {quote(str(arguments.out))}')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
