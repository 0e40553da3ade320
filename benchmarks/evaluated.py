"""Runs measured by df-eval, side by side: for benchmarks that compare models."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, table

from df_models.errors import UserError

GENERATED = "generated"
GROUND_TRUTH = "ground truth"


def add_measuring(parser: argparse.ArgumentParser, clips: int) -> None:
    """Add what is measured, where, and where the result goes."""
    parser.add_argument("--clips", type=int, default=clips, help=f"held-out clips (default: {clips}, or all there are)")
    parser.add_argument("--frames", type=int, nargs="+", default=[33, 129], help="lengths to measure (default: 33 129)")
    parser.add_argument("--device", default="auto", help="as of df-train and df-eval (default: auto)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")


def options_of(args: argparse.Namespace) -> list[object]:
    """The same as options of df-eval."""
    return ["--device", args.device, "--clips", args.clips, "--frames", *args.frames]


def do(module: str, *arguments: object) -> None:
    """Run a command of the packages in a process of its own.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)])
    if done.returncode:
        raise UserError(f"{module} ended with {done.returncode}; what it said stands above")


def measure(run: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """Let df-eval measure a run into a directory; return the rows of its tables by length."""
    do("df_eval.cli", run, "--out", out, *arguments)
    figures = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {length: found["rows"] for length, found in figures["lengths"].items()}


def compared(measured: Mapping[str, Mapping[str, Any]], measures: Mapping[str, str], about: str) -> str:
    """Return a table for each length: a line for the truth and one for what each model generates.

    Args:
        measured: rows by length, by the name of the model.
        measures: names of measures, and what they are called in the table.
        about: what stands above a table, after its length.
    """
    header = ["model", *measures.values()]
    parts = []
    for length in next(iter(measured.values())):
        lines = [[GROUND_TRUTH, *cells(next(iter(measured.values()))[length][GROUND_TRUTH], measures)]]
        lines += [[name, *cells(rows[length][GENERATED], measures)] for name, rows in measured.items()]
        parts.append(f"{length} frames, {about}\n\n{table(header, lines)}")
    return "\n\n".join(parts)


def cells(row: Mapping[str, Any], measures: Sequence[str] | Mapping[str, str]) -> list[str]:
    """Return a row's measures with their intervals; a dash for what could not be taken."""
    texts = []
    for name in measures:
        found = row.get(name, {"value": None})
        value = found["value"]
        known = value is not None and found["low"] is not None  # a single clip has no interval
        interval = f" [{found['low']:.3f}, {found['high']:.3f}]" if known else ""
        texts.append("-" if value is None else f"{value:.3f}{interval}")
    return texts
