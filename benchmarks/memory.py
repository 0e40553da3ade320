"""The memory of a training step: what `df-models describe` works out against what torch's allocator is asked for.

A step is `df-train`'s own (`training_step.py`), in float32 on the CPU, with and without recomputation, for three sizes.
torch's profiler records every allocation and release of tensors, from before the model is built until two steps are
over; the peak of their running sum is what a step takes. (The memory of the process would count libraries too.)

    uv run python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from clips import write_split
from common import add_common_arguments, resolve, table, write_result
from torch.profiler import ProfilerActivity, profile

from df_models import preset_config
from df_models.model.memory import Step, training_memory
from df_models.settings import validate_config
from df_models.time import pixel_length
from df_train.config import TrainConfig
from df_train.data.dataset import prepare_data
from df_train.engine import Trainer
from df_train.processes.distributed import open_world
from df_train.run import build

SIZES = {
    "quickstart": {"preset": "quickstart", "size": 64, "frames": 9, "batch": 16},
    "quickstart, 6 layers": {
        "preset": "quickstart",
        "size": 128,
        "frames": 9,
        "batch": 4,
        "num_layers": 6,
        "structure_layers": 6,
    },
    "poc, 4 layers": {
        "preset": "poc",
        "size": 256,
        "frames": 5,
        "batch": 1,
        "num_layers": 4,
        "structure_layers": 4,
        "fusion_depth": 2,
    },
}


def overrides(size: dict[str, Any]) -> dict[str, int]:
    """Fields of the preset that a size changes."""
    return {name: size[name] for name in ("num_layers", "structure_layers", "fusion_depth") if name in size}


def train_config(size: dict[str, Any], checkpointing: str, root: Path) -> TrainConfig:
    """What `df-train` would be told to take these steps."""
    tree: dict[str, Any] = {
        "run_dir": str(root / "run"),
        "device": "cpu",
        "model": {"preset": size["preset"], "overrides": overrides(size)},
        "data": {"root": str(root / "clips"), "batch_size": size["batch"]},
        "objective": {"history": {"mode": "independent"}},
        "precision": {"bf16": "off"},
        "sharding": {"checkpointing": checkpointing},
        "sample": {"clips": 0},
    }
    return validate_config(TrainConfig, tree)


def measure(size: dict[str, Any], checkpointing: str, root: Path) -> int:
    """Return the peak of two steps in bytes."""
    config = train_config(size, checkpointing, root)
    with open_world("cpu") as world:
        manifest = prepare_data(config, world)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            training, objective, *_ = build(config, world, manifest)
            trainer = Trainer(config, training, objective, world, [], lambda _: None)
            for _ in range(2):
                trainer.step()
    return peak_of(profiler)


def peak_of(profiler: profile) -> int:
    """Return the peak of the running sum of allocations and releases."""
    results = profiler.profiler.kineto_results if profiler.profiler is not None else None
    assert results is not None
    events: list[Any] = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def computed(size: dict[str, Any], checkpointing: str) -> int:
    """Return what is worked out for it."""
    config = preset_config(size["preset"], video_size=size["size"], **overrides(size))
    step = Step(size["size"], pixel_length(size["frames"]), size["batch"], torch.float32, int(checkpointing == "every"))
    return training_memory(config, step).peak


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    args = parser.parse_args()
    args.preset, args.device = "three-sizes", "cpu"
    device, _ = resolve(args)
    rows, figures = [], []
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            config = preset_config(size["preset"], video_size=size["size"])
            write_split(config, root / "clips", size["batch"], pixel_length(size["frames"]), size["size"])
            for checkpointing in ("none", "every"):
                taken, told = measure(size, checkpointing, root), computed(size, checkpointing)
                figures.append(
                    {"size": name, **size, "checkpointing": checkpointing, "measured": taken, "computed": told}
                )
                mebi = [f"{value / 2**20:.0f} MiB" for value in (taken, told)]
                rows.append((name, checkpointing, *mebi, f"{told / taken:.2f}"))
                print(rows[-1], flush=True)
    text = table(("model", "checkpointing", "measured", "computed", "computed / measured"), rows)
    print(text)
    print(write_result(args.out, "memory", args, device, {"sizes": figures}, text))


if __name__ == "__main__":
    main()
