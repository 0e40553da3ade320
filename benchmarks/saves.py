"""How long training stands still for checkpoints: written by the thread that trains, and by one beside it.

Cycles of as many steps as lie between two checkpoints are taken by df-train's own engine, in turn without a checkpoint,
with one written at once, and with one written beside training, by the wall clock. The share that training *waits* is
the time inside the save (and, beside training, for its end) of the time of the cycle. The share that a cycle is
*longer* than one without a checkpoint also has what the other thread takes from the steps: on a CPU both share the
cores. Only a machine that does nothing else gives figures worth keeping.

    uv run python benchmarks/saves.py --threads 2
    uv run python benchmarks/saves.py --preset poc --device cuda --batch 8 --size 256
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import add_common_arguments, resolve, synchronize, table, write_result
from training_step import train_config

from df_models import preset_config
from df_train.config import CheckpointConfig
from df_train.data.dataset import prepare_data
from df_train.engine import Trainer
from df_train.processes.distributed import open_world
from df_train.run import build
from df_train.saving.checkpoint import bytes_held
from df_train.saving.saves import Saves

MODES = {"none": None, "synchronous": False, "asynchronous": True}


def cycle(trainer: Trainer, steps: int, saves: Saves | None) -> tuple[float, float]:
    """Seconds of a cycle that begins with a checkpoint, and of them those that training waited for it."""
    device = trainer.world.device
    waited = 0.0
    synchronize(device)
    began = time.perf_counter()
    if saves is not None:
        trainer._saves = saves
        trainer.save()
        waited = time.perf_counter() - began
    for _ in range(steps):
        trainer.step()
        if saves is not None:
            saves.check()
    synchronize(device)
    if saves is not None:
        ended = time.perf_counter()
        saves.finish()
        waited += time.perf_counter() - ended
    return time.perf_counter() - began, waited


def measure(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the figures: medians over the cycles of each kind."""
    config = preset_config(args.preset, video_size=args.size)
    taken: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory(dir=args.disk) as folder:
        settings = train_config(args, config, dtype, Path(folder))
        with open_world(settings.device) as world:
            manifest = prepare_data(settings, world)
            training, objective, *_ = build(settings, world, manifest)
            trainer = Trainer(settings, training, objective, world, [], lambda _: None)
            root = Path(folder) / "checkpoints"
            saves = {
                mode: None if kind is None else Saves(root, CheckpointConfig(asynchronous=kind), world)
                for mode, kind in MODES.items()
            }
            for mode in MODES:  # the first save of each kind takes its memory
                cycle(trainer, 2, saves[mode])
            for _ in range(args.repeats):
                for mode in MODES:
                    taken[mode].append(cycle(trainer, args.steps, saves[mode]))
            held = bytes_held(root)
    plain = statistics.median(seconds for seconds, _ in taken["none"])
    figures: dict[str, Any] = {"steps": args.steps, "checkpoint_bytes": held // 2, "step_seconds": plain / args.steps}
    for mode in ("synchronous", "asynchronous"):
        figures[f"{mode}_waits"] = statistics.median(waited / seconds for seconds, waited in taken[mode])
        figures[f"{mode}_longer"] = statistics.median(seconds for seconds, _ in taken[mode]) / plain - 1.0
    return figures


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--batch", type=int, default=16, help="clips of a step (default: the quickstart's 16)")
    parser.add_argument("--frames", type=int, default=9, help="latent frames of a clip")
    parser.add_argument("--size", type=int, help="side of the video in pixels (default: the preset's)")
    parser.add_argument("--steps", type=int, default=100, help="steps from one checkpoint to the next")
    parser.add_argument("--repeats", type=int, default=3, help="cycles of each kind")
    parser.add_argument("--disk", type=Path, help="directory on the disk to write to (default: the system's temporary)")
    args = parser.parse_args()
    args.compile, args.checkpointing = False, False
    device, dtype = resolve(args)
    args.size = args.size or preset_config(args.preset).video_size
    torch.manual_seed(0)
    figures = measure(args, device, dtype)
    rows = [
        (mode, f"{100 * figures[f'{mode}_waits']:.2f} %", f"{100 * figures[f'{mode}_longer']:+.1f} %")
        for mode in ("synchronous", "asynchronous")
    ]
    text = (
        f"One checkpoint of {figures['checkpoint_bytes'] / 1e6:.0f} MB every {args.steps} steps, {args.repeats} cycles "
        "of each kind in turn, medians.\n\n" + table(("checkpoints", "training waits", "longer than without"), rows)
    )
    print(text)
    print(write_result(args.out, "saves", args, device, figures, text))


if __name__ == "__main__":
    main()
