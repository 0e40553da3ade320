"""How long it takes until df-infer is ready, against what `import torch` takes: CPU time of fresh processes.

    uv run python benchmarks/startup.py runs/quickstart

Each line is a process of its own, the median of some; on a machine that does other things CPU time is steadier than the
clock.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from common import RESULTS, table, write_result

from df_infer.run_dir import open_run
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import check_output_directory

TORCH, READY = "import torch", "Pipeline.from_run"


def programs(run: Path) -> dict[str, list[str]]:
    """What is started, by its name in the table: arguments of Python."""
    return {
        TORCH: ["-c", "import torch"],
        "df-infer --help": ["-m", "df_infer", "--help"],
        "import df_infer.pipeline": ["-c", "import df_infer.pipeline"],
        READY: ["-c", f"from df_infer.pipeline import Pipeline; Pipeline.from_run({str(run)!r}, 'cpu')"],
    }  # fmt: skip


def cpu_seconds(arguments: list[str]) -> float:
    """CPU time of a process, user and system.

    Raises:
        UserError: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(argv: list[str]) -> int:
    """Measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a trained model")
    parser.add_argument("--times", type=int, default=3, help="processes of each (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args(argv)
    args.preset = args.run.name
    check_output_directory(args.out)
    open_run(args.run)
    took: dict[str, list[float]] = {name: [] for name in programs(args.run)}
    for _ in range(args.times):
        for name, arguments in programs(args.run).items():
            took[name].append(cpu_seconds(arguments))
    seconds = {name: statistics.median(each) for name, each in took.items()}
    rows = [(name, f"{each / seconds[TORCH]:.2f}", f"{each:.2f}") for name, each in seconds.items()]
    text = table(("process", "CPU time / import torch", "CPU time, s"), rows)
    print(f"wrote {write_result(args.out, 'startup', args, torch.device('cpu'), seconds, text)}\n\n{text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "startup.py"))
