"""Losses of each stream at each noise level, from the logs of runs: does training with two noise levels converge?

    uv run python benchmarks/buckets.py studies/bridge/runs/*/* --first both --out buckets.md

Runs of a study are gathered by arm (the directory that they lie in), others by name. For each stream and bucket of its
noise level: the mean of the logged training losses from the second to the fourth twentieth of the steps (early) and
over the last tenth (late), mean over the runs of an arm with the 95 % interval of Student's t where there are several,
and what an arm's late loss is above that of the first arm, in pairs of the same seed. A loss is a mean square error of
the velocity, noise minus clean data; that of `sync` is the lip-sync expert's. Noise and its levels follow from the
seed, the step and the clip, so that with the same data a pair of runs differs in the models alone; runs that end at
other steps are not paired.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import table
from scipy.stats import t as student

from df_infer.run_dir import RunDir
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import atomic_write

BUCKET = re.compile(r"sigma/(?P<stream>video|structure|sync)/(?P<levels>[\d.]+-[\d.]+)")
SEED = re.compile(r"seed-(?P<seed>\d+)-\w+")
EARLY, LATE = (0.05, 0.2), (0.9, 1.0)
"""Shares of a run's steps."""

Found = dict[tuple[str, str], tuple[float, float, int]]
"""Early and late loss by stream and bucket, and the last step."""


def losses(rows: Sequence[Mapping[str, float]]) -> Found:
    """Early and late losses of a run's log; buckets that the log lacks in one of them are left out."""
    last = rows[-1]["step"]
    found: Found = {}
    for name in sorted({name for row in rows for name in row if BUCKET.fullmatch(name)}):
        spans = [
            [row[name] for row in rows if name in row and low * last < row["step"] <= high * last]
            for low, high in (EARLY, LATE)
        ]
        if all(spans):
            matched = BUCKET.fullmatch(name)
            assert matched is not None
            early, late = map(statistics.mean, spans)
            found[matched["stream"], matched["levels"]] = early, late, int(last)
    return found


def place_of(run: Path) -> tuple[str, str]:
    """Arm and seed of a study's run; of another one its name, and no seed."""
    matched = SEED.fullmatch(run.name)
    return (run.name, "") if matched is None else (run.parent.name, matched["seed"])


def told(values: Sequence[float]) -> str:
    """Mean and 95 % interval over runs."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"


def rows_of(arms: Mapping[str, Mapping[str, Found]]) -> list[list[str]]:
    """One line for each stream, bucket and arm; `arms` holds the runs by arm and seed."""
    keys = sorted({key for runs in arms.values() for found in runs.values() for key in found})
    rows = []
    for stream, levels in keys:
        first = next(iter(arms))
        for arm, runs in arms.items():
            own = {seed: found[stream, levels] for seed, found in runs.items() if (stream, levels) in found}
            if not own:
                continue
            early, late, last = zip(*own.values(), strict=True)
            others = {seed: arms[first].get(seed, {}).get((stream, levels)) for seed in own}
            above = [own[seed][1] - one[1] for seed, one in others.items() if one and one[2] == own[seed][2]]
            more = told(above) if above and arm != first else "–"
            rows.append([stream, levels, arm, f"{len(own)}", f"{last[0]}", told(early), told(late), more])
    return rows


def read_log(run: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl` that hold losses.

    Raises:
        UserError: there are none.
    """
    log = RunDir(run).metrics
    if not log.is_file():
        raise UserError(f"{run} holds no {log.name}; name run directories of df-train")
    rows = [row for row in map(json.loads, log.read_text().splitlines()) if any(map(BUCKET.fullmatch, row))]
    if not rows:
        raise UserError(f"{log} holds no losses by noise level; name runs of `task: model` or `video` that took steps")
    return rows


def main(argv: list[str]) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--first", metavar="ARM", help="the arm that others are compared with (default: the first)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args(argv)
    arms: dict[str, dict[str, Found]] = {}
    for run in args.runs:
        arm, seed = place_of(run)
        if seed in arms.get(arm, {}):
            raise UserError(f"{run}: there is another run of {arm} with this seed; name one of them")
        arms.setdefault(arm, {})[seed] = losses(read_log(run))
    first = next(iter(arms)) if args.first is None else args.first
    if first not in arms:
        raise UserError(f"--first {first}: there is no such arm; there are {', '.join(arms)}")
    arms = {first: arms[first], **arms}
    head = ["stream", "noise level", "arm", "runs", "steps", "early", "late", f"late, minus that of {first}"]
    text = table(head, rows_of(arms))
    print(text)
    if args.out is not None:
        how = f"By `uv run python benchmarks/buckets.py RUNS --first {first}`; its docstring says what the numbers are."
        atomic_write(args.out, f"# Losses by noise level\n\n{how}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "buckets"))
