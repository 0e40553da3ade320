"""``df-eval RUN ...``: measure runs, and other systems' videos, on held-out clips."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from df_eval.config import EvalConfig
from df_eval.protocols.protocol import check_frozen, protocol_file
from df_infer.run_dir import RunDir, open_run_dir
from df_models.cli_support import CommandParser, add_version, announce_loading, run_cli
from df_models.device import DEVICE_NAMES
from df_models.errors import UserError
from df_models.files import check_output_directory
from df_models.settings import add_print_config, dump_config, load_config

if TYPE_CHECKING:
    from df_eval.reports.output import EvalOutcome

ALL = "all"
"""`--checkpoint all`: every milestone."""

DESCRIPTION = """\
Measure a trained run on held-out clips: people and sentences that training did not see.

Every clip is generated from its first image and its audio, and measured beside what the numbers mean: the
ground truth, the VAE's reconstruction of it, the audio shifted (must be near 0), a still image. Several runs, and
folders of other systems' videos, are measured on the same clips and compared with the first run. Written to RUN/eval
(several: to --out):

  report.html     goals, tables, curves and side-by-side videos; open it in a browser
  metrics.json    every number with N and its bootstrap 95 % interval, and the protocol
  table.md        the tables as Markdown
  per_clip.jsonl  every number of every clip
  videos/ plots/  what the report shows
"""

EPILOG = f"""\
examples:
  df-eval runs/quickstart                                   16 clips, 33 and 129 frames
  df-eval runs/quickstart --clips 4 --frames 33             a quick look
  df-eval runs/quickstart rollout.steps=8 --out eval8       another sampler setting, elsewhere
  df-eval runs/poc --checkpoint 1000                        the model after 1000 steps, into RUN/eval/step-1000
  df-eval runs/a runs/b --baseline wav2lip=videos/ --out out/compare   the others' differences from runs/a
  df-eval runs/quickstart --export out/clips                each clip's image, sound and true video, for other systems
  df-eval runs/poc --checkpoint all                         every milestone that was not measured alike, and the curves
  df-eval /backup/quickstart --data /data/synth             a run and a dataset that were moved
  df-eval runs/quickstart --protocol bench --split test     fixed settings and clips; --split dev to choose settings
  df-eval runs/grid --protocol grid --split test            real videos, read with MediaPipe
  df-eval runs/hdtf readers.identity=w600k_r50.onnx         CSIM and ACD, too (docs/metrics.md)

settings (key=value; each is told in docs/configuration.md):
{textwrap.fill(", ".join(EvalConfig.model_fields), 118)}
A config file with the same keys can be given by --config; the command line wins.

exit codes: 0 measured; 1 measured and a goal is not met (only with --require-goals); 2 a mistake in what was asked;
3 the machine lacks something; 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line of df-eval."""
    parser = CommandParser(
        prog="df-eval", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="run directory of df-train, such as runs/quickstart")
    parser.add_argument(
        "more", nargs="*", default=[], metavar="RUN | key=value", help="more runs; settings to change (see below)"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="another system's videos, named as the clips",
    )
    parser.add_argument("--config", type=Path, help="YAML file of settings, such as configs/eval/default.yaml")
    parser.add_argument(
        "--protocol", metavar="NAME", help="fixed settings and clips: configs/eval/NAME.yaml, or a file"
    )
    parser.add_argument("--split", choices=("dev", "test"), help="the protocol's clips to measure on (default dev)")
    parser.add_argument("--clips", type=int, help="number of held-out clips (default 16)")
    parser.add_argument("--frames", nargs="+", help="lengths in pixel frames, each 1 + 4 n (default 33 129)")
    parser.add_argument("--seed", type=int, help="seed of the generation noise and of the bootstrap (default 0)")
    parser.add_argument("--device", help=f"where to run: {DEVICE_NAMES} (default auto)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the run's dataset, if it is not found by itself")
    parser.add_argument(
        "--checkpoint", metavar="N", help="the run's milestone of step N, not its last model; all: each, with curves"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="directory to write to (default RUN/eval, of a milestone RUN/eval/step-N; several: none)",
    )
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the clips there for other systems, and stop")
    parser.add_argument("--require-goals", action="store_true", help="exit with 1 if a goal is not met")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_print_config(parser)
    add_version(parser, "df-eval")
    return parser


def parse_config(args: argparse.Namespace) -> EvalConfig:
    """Settings from the config file, then key=value, then the options."""
    given = [str(text) for text in args.frames or ()]
    overrides = [*(text for text in args.more if "=" in text), *(text for text in given if "=" in text)]
    lengths = [text for text in given if "=" not in text]
    for text in lengths:
        if not text.isdigit():
            raise UserError(f"--frames {text!r} is no number of frames; give numbers such as --frames 33 129")
    if args.protocol is not None and args.config is not None:
        raise UserError("--protocol holds all settings; leave --config out")
    file = args.config if args.protocol is None else protocol_file(args.protocol)
    options = {
        "split": args.split,
        "clips": args.clips,
        "seed": args.seed,
        "device": args.device,
        "checkpoint": _step(args.checkpoint),
    }
    overrides += [f"{name}={value}" for name, value in options.items() if value is not None]
    if args.data is not None:
        overrides.append(f"data={json.dumps(str(args.data))}")
    if lengths:
        overrides.append(f"frames=[{','.join(lengths)}]")
    config = load_config(EvalConfig, file, overrides)
    check_frozen(file, config)
    return config


def _step(checkpoint: str | None) -> int | None:
    """The step of ``--checkpoint``; None for none and for all."""
    if checkpoint is None or checkpoint == ALL:
        return None
    if not checkpoint.isdigit():
        raise UserError(f"--checkpoint {checkpoint!r} is no step; give the number of one, or --checkpoint {ALL}")
    return int(checkpoint)


def runs_of(args: argparse.Namespace) -> list[Path]:
    """The runs; of the words after the first, those with an equals sign are settings."""
    return [Path(args.run), *(Path(text) for text in args.more if "=" not in text)]


def baselines_of(args: argparse.Namespace) -> dict[str, Path]:
    """Folders of other systems' videos, by name."""
    found: dict[str, Path] = {}
    for text in args.baseline:
        name, equals, folder = text.partition("=")
        if name in found:
            raise UserError(f"--baseline {text}: {name} is {found[name]} already; give each folder another name")
        if not (name and equals and folder):
            raise UserError(f"--baseline {text}: a name and a folder are wanted, such as --baseline wav2lip=DIR")
        found[name] = Path(folder)
    return found


def place_of(args: argparse.Namespace, runs: list[Path], several: bool, checkpoint: int | None) -> Path:
    """The directory to write to.

    Raises:
        UserError: several systems are compared, and none was given.
    """
    if args.out is None and several:
        raise UserError("several systems are compared, and none of them is the place for it; name one with --out DIR")
    if args.require_goals and several:
        raise UserError("--require-goals is about one run; leave it out, or measure each run alone")
    return args.out or RunDir(runs[0]).evaluation(checkpoint)


def _main(argv: list[str]) -> int:
    args = build_parser().parse_intermixed_args(argv)
    config = parse_config(args)
    if args.print_config:
        print(dump_config(config), end="")
        return 0
    runs, baselines = runs_of(args), baselines_of(args)
    several = len(runs) + len(baselines) > 1
    for run in runs:
        RunDir(run).read_config() if args.checkpoint == ALL else open_run_dir(run, config.checkpoint)
    if args.export is not None:
        if several:
            raise UserError("--export writes the clips of one run; leave the other systems out")
        return _export(runs, config, args.export, args.quiet)
    if args.checkpoint == ALL and (several or args.require_goals):
        raise UserError(f"--checkpoint {ALL} is about the training of one run; leave the other systems and goals out")
    out = place_of(args, runs, several, config.checkpoint)
    if args.checkpoint == ALL:
        return _milestones(runs[0], config, out, args.quiet)
    announce_loading("df-eval")
    from df_eval.evaluate import evaluate

    outcome, page = evaluate(runs, config, out, baselines=baselines, quiet=args.quiet)
    _print(outcome)
    print(f"Report: {page}\nAll numbers: {page.parent / 'metrics.json'}, {page.parent / 'table.md'}")
    missed = any(goal.passed is not True for goal in outcome.goals) or bool(outcome.missing)
    return 1 if args.require_goals and missed else 0


def _export(runs: list[Path], config: EvalConfig, out: Path, quiet: bool) -> int:
    check_output_directory(out)
    announce_loading("df-eval")
    from df_eval.reports.export import export_clips

    count = export_clips(runs[0], config, out, quiet)
    what = "NAME.png (the reference image), NAME.wav (the sound), NAME.mp4 (the true video, H.264: lossy)"
    print(f"{count} clips written to {out}: {what}")
    return 0


def _milestones(run: Path, config: EvalConfig, out: Path, quiet: bool) -> int:
    announce_loading("df-eval")
    from df_eval.milestones import PLOTS, evaluate_milestones, training_table

    curves = evaluate_milestones(run, config, out, print, quiet=quiet)
    document = json.loads(curves.read_text(encoding="utf-8"))
    if document["warning"]:
        print(f"\n{document['warning']}")
    print(f"\n{training_table(document)}\n\nCurves over training: {curves}, {out / PLOTS}/")
    return 0


def _print(outcome: EvalOutcome) -> None:
    """The headline, on the terminal."""
    from df_eval.reports.table import (
        clips_in,
        comparison_note,
        differences_table,
        goals_table,
        headline_table,
        interventions_document,
    )

    if outcome.warning:
        print(f"\n{outcome.warning}")
    for frames, table in outcome.tables.items():
        count = len(outcome.clips)
        print(f"\n{frames} frames, {clips_in(table, count)}\n\n{headline_table(table, count)}")
    if outcome.goals:
        print(f"\n{goals_table(outcome.goals)}\n")
    if outcome.differences:
        print(f"\n{differences_table(outcome.differences)}\n\n{comparison_note(outcome.differences)}\n")
    for line in outcome.told:
        print(line)
    if outcome.interventions is not None:
        print(f"\n{interventions_document(outcome.interventions, outcome.config.seed, outcome.config.resamples)}")
    for frames, reason in outcome.missing.items():
        print(f"{frames} frames were not measured: {reason}")


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``df-eval``."""
    return run_cli(_main, "df-eval", argv)


if __name__ == "__main__":
    raise SystemExit(main())
