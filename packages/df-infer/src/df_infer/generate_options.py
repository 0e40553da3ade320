"""The options of ``df-infer generate``, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from df_infer.config import RolloutSettings
from df_infer.credentials import add_signing
from df_infer.model_options import add_model_options
from df_models.settings import add_flags, add_print_config

ROLLOUT = "rollout"
"""Section of a run's config.yaml that generation reads."""

EXIT_CODES = """\
exit codes: 0 done, 1 some clips of a list failed, 2 a mistake in what was
asked, 3 the machine lacks something (disk, package), 129 ended by SIGHUP,
130 interrupted, 143 ended by SIGTERM
"""
EXAMPLE = f"""\
example:
  df-infer generate --run runs/quickstart --image face.png --audio speech.wav \\
      --out out.mp4
  df-infer generate --run runs/quickstart --manifest clips.csv --out clips/

The video lasts as long as the audio, however long that is: memory and time
per frame do not grow. The same command gives the same video. Live sessions
instead of files: df-infer serve, docs/serving.md.

{EXIT_CODES}"""
_USAGE = """\
df-infer generate --run DIR --image FILE --audio FILE --out MP4 [options]
       df-infer generate --run DIR --manifest LIST --out DIR [options]"""


def add_generate(commands: argparse._SubParsersAction, run: Callable[[argparse.Namespace], int]) -> None:
    """Add ``generate`` to the commands; ``run`` is what it does."""
    parser = commands.add_parser(
        "generate",
        help="write an MP4 with audio from a portrait and speech",
        usage=_USAGE,
        description="Write an MP4 with audio from a portrait and speech.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run_command=run)
    model, made = parser.add_argument_group("the model"), parser.add_argument_group("what to make")
    given, machine = parser.add_argument_group("structure that is given"), parser.add_argument_group("machine")
    add_model_options(model, machine)
    _add_made(made)
    add_signing(made)
    given.add_argument(
        "--drive",
        type=Path,
        metavar="FILE.npz",
        help="a motion to take the structure from, as --structure-out writes it (default: none; it is generated)",
    )
    given.add_argument(
        "--drive-fields",
        metavar="NAMES",
        help="fields to take from it, such as pitch,yaw,roll; the rest is generated (default: all of it)",
    )
    sampling = parser.add_argument_group(
        "how to sample",
        "What is not given is as the run says: `rollout:` in its config.yaml, which\n"
        "--print-config shows. Defaults told here are those of a model in no run.",
    )
    add_flags(sampling, RolloutSettings, ROLLOUT)
    machine.add_argument(
        "--profile",
        type=Path,
        metavar="FILE.json",
        help="tell where a frame's time goes, and write a trace of it; slower than alone (default: off)",
    )
    machine.add_argument("--quiet", action="store_true", help="show no progress bar; without a terminal there is none")
    add_print_config(parser)


def _add_made(group: argparse._ArgumentGroup) -> None:
    """Add what goes in and what comes out."""
    group.add_argument("--image", type=Path, metavar="FILE", help="the portrait: PNG, JPEG, ... of any size")
    group.add_argument("--cropped", action="store_true", help="the portrait is cropped already: take its middle square")
    group.add_argument(
        "--audio", type=Path, metavar="FILE", help="the speech: WAV, FLAC, MP3, ... or a video with audio"
    )
    group.add_argument(
        "--keep-level", action="store_true", help="hear speech that is far too quiet or loud as it is, not levelled"
    )
    group.add_argument(
        "--out",
        type=Path,
        help="the MP4 to write, in the place of one that is there (a model of structure alone: --structure-out); of a "
        "list, the folder",
    )
    group.add_argument(
        "--structure-out", type=Path, metavar="FILE.npz", help="also write the 3D motion here (default: it is not)"
    )
    group.add_argument(
        "--manifest",
        type=Path,
        metavar="LIST",
        help="make many clips, each as long as its audio: a .csv with a header, or .jsonl, of image, audio, out (an "
        "MP4 below --out), seed",
    )
    group.add_argument("--together", type=int, metavar="N", help="of a list, clips in one batch (default: 1)")
    group.add_argument(
        "--frames", type=int, metavar="N", help="pixel frames at 25 fps, 1 + 4 n (default: as long as the audio)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="keys all noise (default: 0)")
