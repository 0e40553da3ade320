"""What more CPU threads gain alone, and what they lose beside other busy programs: by the guard, and by a model's size.

OpenMP's threads meet after every operation. Where another program has the core of one of them, the others wait for it,
by spinning. `df_models.cli_support.share_cores`, which every command calls, lets them sleep after some microseconds;
`df_infer.threads` takes one thread for models of small layers. Each figure is of a process of its own: latent frames a
second (random weights, the quickstart's own sampling) alone, and beside as many busy processes as there are cores.

"Alone" means something on an idle machine only: the result tells the load that it began with.

    uv run python benchmarks/neighbours.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import RESULTS, resolve, table, write_result
from live import OWN, QUICKSTART, generation

from df_infer.threads import SMALL_LAYER, layer_work
from df_models import DualForce

BUSY = "x = 0\nwhile True: x = (x + 1) % 97"
IDLE = 0.5
"""Load average up to which a machine counts as idle."""
FRAMES = 3
"""Latent frames that are measured at a time, after as many that fill the window."""


class Size(NamedTuple):
    """A model of the quickstart's form: width of the video tower and its feed-forward, of the structure; pixels."""

    dim: int
    ffn_dim: int
    structure: int
    pixels: int

    def model(self) -> DualForce:
        """A model of this size, with random weights."""
        torch.manual_seed(0)
        changes: dict[str, Any] = {
            "dim": self.dim,
            "num_heads": self.dim // 64,
            "ffn_dim": self.ffn_dim,
            "structure_width": self.structure,
            "structure_heads": self.structure // 64,
            "structure_ffn_dim": 4 * self.structure,
            "video_size": self.pixels,
        }
        return DualForce.from_preset("quickstart", **changes).eval()


QUICK = Size(512, 1536, 128, 64)
SIZES = (Size(256, 768, 128, 64), QUICK, Size(768, 3072, 384, 64), Size(768, 3072, 384, 128), Size(768, 3072, 384, 256))


def rate(size: Size, seconds: float) -> float:
    """Latent frames a second, by the wall clock: the median of what is made in so many seconds."""
    model = size.model()
    model.join_products()
    taken, end = [], time.monotonic() + seconds
    while not taken or time.monotonic() < end:
        stages = generation(model, OWN, size.pixels // 8, 2 * FRAMES, time.perf_counter)
        taken.append(sum(stages.values()))
    return 1 / statistics.median(taken)


def measured(size: Size, seconds: float, threads: int, guarded: bool, busy: int) -> float:
    """The rate in a process of its own, beside ``busy`` others."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("GOMP_SPINCOUNT", None)
    if guarded:
        environment["GOMP_SPINCOUNT"] = "10000"
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        command = [sys.executable, __file__, "--seconds", str(seconds), "--child", *map(str, size), str(threads)]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Measure all and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="least length of each measurement (default: 8)")
    parser.add_argument("--child", type=int, nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args()
    if args.child:
        torch.set_num_threads(args.child[4])
        print(rate(Size(*args.child[:4]), args.seconds))
        return
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    args.preset, args.threads, args.dtype, args.device = "quickstart", cores, None, "cpu"
    device, _ = resolve(args)
    guard = by_guard(args.seconds, cores)
    sizes = by_size(args.seconds, cores)
    lines = [
        f"The load average was {load:.2f} at the beginning"
        + ("." if load <= IDLE else ": the machine was not idle, so nothing here was alone."),
        "Rates of the quickstart, as shares of one guarded thread alone:",
        table(
            ("threads", "guard", "busy processes beside it", "rate"),
            [(r["threads"], "yes" if r["guarded"] else "no", r["busy"], f"{r['share']:.2f}") for r in guard],
        ),
        f"By the size of the model: the rate of {cores} threads over that of one, both guarded. `df-infer` takes one "
        f"thread below {SMALL_LAYER / 1e6:.0f} MFLOP a layer.",
        table(
            ("widths", "pixels", "MFLOP of a layer", "alone", f"beside {cores} busy processes"),
            [
                (
                    f"{r['dim']}, {r['ffn_dim']}, {r['structure']}",
                    r["pixels"],
                    f"{r['layer_work'] / 1e6:.0f}",
                    f"{r['alone']:.2f}",
                    f"{r['beside']:.2f}",
                )
                for r in sizes
            ],
        ),
    ]
    figures = {"load_before": load, "guard": guard, "sizes": sizes}
    text = "\n\n".join(lines)
    print(f"wrote {write_result(args.out, 'neighbours', args, device, figures, text)}\n\n{text}")


def by_guard(seconds: float, cores: int) -> list[dict[str, Any]]:
    """The quickstart's rates with and without the guard, on one thread and on all."""
    rows = []
    for threads, guarded in ((1, True), (cores, True), (cores, False)):
        for busy in (0, cores):
            found = measured(QUICK, seconds, threads, guarded, busy)
            rows.append({"threads": threads, "guarded": guarded, "busy": busy, "rate": found})
            print(rows[-1], flush=True)
    return [row | {"share": row["rate"] / rows[0]["rate"]} for row in rows]


def by_size(seconds: float, cores: int) -> list[dict[str, Any]]:
    """What all threads gain over one, by the size of the model."""
    rows = []
    for size in SIZES:
        row = size._asdict() | {"layer_work": layer_work(size.model().config, QUICKSTART)}
        for name, busy in (("alone", 0), ("beside", cores)):
            one, every = (measured(size, seconds, threads, True, busy) for threads in (1, cores))
            row[name] = every / one
        rows.append(row)
        print(row, flush=True)
    return rows


if __name__ == "__main__":
    main()
