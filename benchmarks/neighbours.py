"""What generation loses beside other busy programs, with and without the guard that all commands have.

OpenMP's threads wait by spinning. Where another program has the core of one of them, the others burn theirs until it
comes back. `df_models.cli_support.share_cores`, which every command calls, lets them sleep after some microseconds.
Each figure is of a process of its own: latent frames a second of the quickstart (random weights, its own sampling) on
all cores and on one, alone and beside as many busy processes as there are cores. They are shares of the unguarded rate
of all cores alone.

    python benchmarks/neighbours.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from common import RESULTS, resolve, table, write_result
from live import OWN, generation

from df_models import DualForce

BUSY = "x = 0\nwhile True: x = (x + 1) % 97"


def rate(frames: int) -> float:
    """Latent frames a second, by the wall clock."""
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart").eval()
    model.join_products()
    stages = generation(model, OWN, 8, frames, time.perf_counter)
    return 1 / sum(stages.values())


def measured(frames: int, threads: int, guarded: bool, busy: int) -> float:
    """The rate in a process of its own, beside ``busy`` others."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("GOMP_SPINCOUNT", None)
    if guarded:
        environment["GOMP_SPINCOUNT"] = "10000"
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        command = [sys.executable, __file__, "--child", str(frames), str(threads)]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Measure all and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64, help="latent frames of each measurement")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args()
    if args.child:
        torch.set_num_threads(args.child[1])
        print(rate(args.child[0]))
        return
    cores = os.cpu_count() or 1
    args.preset, args.threads, args.dtype, args.device = "quickstart", cores, None, "cpu"
    device, _ = resolve(args)
    rows, alone = [], None
    for threads, guarded in ((cores, False), (cores, True), (1, True)):
        for busy in (0, cores):
            found = measured(args.frames, threads, guarded, busy)
            alone = alone or found
            rows.append({"threads": threads, "guarded": guarded, "busy_processes": busy, "share": found / alone})
            print(rows[-1])
    lines = table(
        ("threads", "guard", "busy processes beside it", "rate, share of the first"),
        [(r["threads"], "yes" if r["guarded"] else "no", r["busy_processes"], f"{r['share']:.2f}") for r in rows],
    )
    print(f"wrote {write_result(args.out, 'neighbours', args, device, {'rows': rows}, lines)}\n\n{lines}")


if __name__ == "__main__":
    main()
