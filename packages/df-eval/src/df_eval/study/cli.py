"""`df-study`: run a study of several arms and seeds, and say what came out."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from df_eval.study.config import StudyConfig
from df_models.cli_support import CommandParser, add_version, run_cli
from df_models.errors import UserError, nearest
from df_models.settings import add_print_config, dump_config, load_config

_DESCRIPTION = """\
Answer a question by training several arms with several seeds, measuring them on the same clips, and comparing them in
pairs. What is claimed, and what decides it, stands in the configuration and is fixed by the first run.

  df-study CONFIG [key=value ...]       run the study, or go on with it
  df-study plan CONFIG [key=value ...]  show the runs and what they will cost; runs nothing
  df-study status CONFIG|DIR            how far each run is
  df-study report CONFIG|DIR            write the report from what is there (--paper DIR: tables and figures for LaTeX)

Written into studies/<name>/ (`out`): study.yaml (what was fixed), runs/<arm>/seed-<n>-<hash>/ (each a run directory of
df-train with its eval/), report.html, table.md, study.json.
"""

_EPILOG = """\
examples:
  df-study configs/study/bridge.yaml
  df-study configs/study/bridge.yaml seeds=[0,1,2,3,4]          more seeds, at any time
  df-study configs/study/bridge.yaml --amend "why" ...          arms or hypotheses added later; the report shows it
  df-study report studies/bridge --also lip_width_corr          a metric that was not asked about; the report shows it
  df-study configs/study/bridge.yaml --retry                    try failed runs again
  df-study configs/study/bridge.yaml executor=slurm             write sbatch scripts; give it again to collect

A study that was stopped (Ctrl-C, kill -9, a crash) goes on when the same command is given again.

exit codes: 0 every run is done; 1 a run failed, or is not done yet; 2 a mistake in what was asked; 3 the machine lacks
something; 130 interrupted
"""
COMMANDS = ("run", "plan", "status", "report")


def build_parser(command: str) -> argparse.ArgumentParser:
    """The command line of one command; `run` is the one without a name."""
    parser = CommandParser(
        "df-study" if command == "run" else f"df-study {command}",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "CONFIG" if command in ("run", "plan") else "CONFIG|DIR"
    parser.add_argument("study", type=Path, metavar=what, help="YAML file, e.g. from configs/study")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="settings to change, e.g. seeds=[0,1]"
    )
    if command == "run":
        parser.add_argument("--dry-run", action="store_true", help="the same as df-study plan")
        parser.add_argument("--retry", action="store_true", help="try failed runs again")
        parser.add_argument("--amend", metavar="TEXT", help="why arms or hypotheses are added after the first run")
    if command in ("run", "plan"):
        add_print_config(parser)
    if command == "report":
        parser.add_argument(
            "--also",
            action="extend",
            nargs="+",
            default=[],
            metavar="METRIC",
            help="show a metric that the study did not name, from now on; the report says since when",
        )
        parser.add_argument("--paper", type=Path, metavar="DIR", help="also files for LaTeX: tables, figures, strips")
    add_version(parser, "df-eval")
    return parser


def _main(argv: list[str]) -> int:
    command = argv[0] if argv and argv[0] in COMMANDS else "run"
    options = build_parser(command).parse_intermixed_args(argv[1:] if argv and argv[0] in COMMANDS else argv)
    if command == "status":
        return _status(_directory(options))
    if command == "report":
        return _report(_directory(options), options.paper, options.also)
    if command == "run" and not options.study.exists() and (near := nearest(str(options.study), COMMANDS)):
        raise UserError(f"no such file and no command: {options.study}{near}")
    if options.study.is_dir():
        raise UserError(f"{options.study} is a directory; give the study's configuration file")
    config = load_config(StudyConfig, options.study, options.overrides)
    if getattr(options, "print_config", False):
        print(dump_config(config), end="")
        return 0
    if command == "plan" or options.dry_run:
        return _plan(config)
    return _run(config, options)


def _directory(options: argparse.Namespace) -> Path:
    """The study's directory, named itself or by its configuration."""
    if options.study.is_dir():
        if options.overrides:
            raise UserError(f"{options.study} is a study's directory, whose settings are fixed; leave out key=value")
        return options.study
    return load_config(StudyConfig, options.study, options.overrides).directory


def _plan(config: StudyConfig) -> int:
    from df_eval.study.check import check_metrics
    from df_eval.study.cost import plan_lines
    from df_eval.study.freeze import frozen_config, held_against
    from df_eval.study.plan import known_answers, make_plan
    from df_eval.study.programs import Programs

    fixed = frozen_config(config.directory)
    if fixed is not None and (added := held_against(fixed, config)):
        print(f"new since the study began, and to be run with --amend: {', '.join(added)}")
    plan = make_plan(config, Programs(), known_answers(config.directory))
    check_metrics(config, plan)
    print("\n".join(plan_lines(config, plan)))
    return 0


def _run(config: StudyConfig, options: argparse.Namespace) -> int:
    from df_eval.study.run import run_study

    try:
        return run_study(config, _say, retry=options.retry, amend=options.amend)
    except KeyboardInterrupt as interrupt:
        raise type(interrupt)(str(interrupt) or "interrupted; the same command goes on") from interrupt


def _status(directory: Path) -> int:
    from df_eval.study.cost import status_lines
    from df_eval.study.plan import read_plan

    print("\n".join(status_lines(read_plan(directory))))
    return 0


def _report(directory: Path, paper: Path | None, also: list[str]) -> int:
    from df_eval.study.check import check_names
    from df_eval.study.document import read_document
    from df_eval.study.report import runs_gone, write_kept, write_report
    from df_models.locks import one_writer

    check_names(also, "--also")
    if gone := runs_gone(directory):
        if also:
            raise UserError(f"--also: {directory} cannot show more than it does, as {gone}")
        print(f"report: {write_kept(directory)}")
        print(f"report: made from study.json, as {gone}; left out: links to their own reports")
    else:
        with one_writer(directory, "df-study") if also else nullcontext():  # it is noted, so no other may write
            print(f"report: {write_report(directory, also)}")
    if paper is not None:
        from df_eval.study.paper import write_paper
        from df_eval.study.strips import why_no_strips

        document = read_document(directory)
        print(f"paper: {', '.join(str(path) for path in write_paper(document, paper))}")
        if why := why_no_strips(document):
            print(f"paper: no strips of images: {why}")
    return 0


def _say(line: str) -> None:
    print(f"df-study: {line}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(_main, "df-study", argv)


if __name__ == "__main__":
    sys.exit(main())
