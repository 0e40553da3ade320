"""The shard reader: bytes per second against plain reading, and its share of a training step.

A dataset of random clips in the shape of the quickstart's (or of `--size` pixels) is written by df-data's own writer.
The first epoch, each clip decoded from its shard in shuffled order, is compared with

- reading the same tar files from end to end into one small buffer, with the files in the system's cache, on the CPU
  time of one thread: what the reader costs a core. Plain reading is one copy of the bytes there; a batch is float32,
  twice the bytes of the stored halves, in new memory;
- the same by the wall clock with one worker and the system's cache emptied of the files: what a disk allows;
- the plain way through the same tar files, `tarfile` and `safetensors`, in order, stacked as float32;
- one safetensors file per clip, opened in a random order, stacked as float32: the usual way.

If the clips have the preset's size, batches are held against a training step of the preset: their CPU time, and the
share of the wall clock that a training loop waits for its batches, first epoch included.

    uv run python benchmarks/loader.py
    uv run python benchmarks/loader.py --clips 1024 --size 512 --batch 8
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from clips import write_split
from common import add_common_arguments, clock, resolve, synchronize, table, timed, write_result
from training_step import make_batch

from df_data.format.shards import iter_samples
from df_data.reading import ShardReader
from df_models import DualForce, preset_config
from df_models.flow import interpolate, velocity_target
from df_models.time import latent_length

FRAMES = 33
REPEATS = 5
STREAMS = ("video_latent", "structure", "audio", "flame", "mouth_boxes")


def read_sequentially(split: Path) -> int:
    """Read every shard from end to end; return the bytes."""
    total = 0
    for path in sorted(split.glob("shard-*.tar")):
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                total += len(piece)
    return total


def first_epoch(split: Path, batch_size: int, num_workers: int = 0) -> None:
    """Read one shuffled epoch, nothing kept."""
    for _ in ShardReader(split, batch_size=batch_size, seed=0, loop=False, cache_bytes=0, num_workers=num_workers):
        pass


def stack(clips: list[dict[str, torch.Tensor]]) -> None:
    """Join the streams of clips as float32."""
    for name in STREAMS:
        torch.stack([clip[name] for clip in clips]).float()


def read_plainly(split: Path, batch_size: int) -> None:
    """Read the tar files in order with the usual libraries."""
    clips = []
    for path in sorted(split.glob("shard-*.tar")):
        with tarfile.open(path) as archive:
            for info in archive:
                file = archive.extractfile(info)
                assert file is not None
                if info.name.endswith(".safetensors"):
                    clips.append(safetensors.torch.load(file.read()))
                else:
                    json.load(file)
                if len(clips) == batch_size:
                    stack(clips)
                    clips = []


def read_clip_files(paths: list[Path], batch_size: int) -> None:
    """Read one safetensors file per clip in a random order: the usual way."""
    shuffled = random.Random(0).sample(paths, len(paths))
    for start in range(0, len(shuffled), batch_size):
        stack([safetensors.torch.load_file(path) for path in shuffled[start : start + batch_size]])


def cold_seconds(split: Path, read: Callable[[], object]) -> float:
    """Wall seconds of reading files that the system has just been told to forget."""
    for path in split.glob("shard-*.tar"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    read()
    return time.perf_counter() - began


def reading_figures(split: Path, files: list[Path], batch: int) -> dict[str, float]:
    """The first epoch against the other ways, as ratios of speed; ways that are compared take turns."""
    cpu = torch.device("cpu")
    ways = {
        "plain_read": lambda: read_sequentially(split),
        "epoch": lambda: first_epoch(split, batch),
        "plain_tar": lambda: read_plainly(split, batch),
        "clip_files": lambda: read_clip_files(files, batch),
    }
    warm = {name: [] for name in ways}
    cold = {"plain_read": [], "epoch": []}
    for _ in range(REPEATS):
        for name, way in ways.items():
            warm[name] += timed(way, cpu, repeats=1, warmup=1)
        cold["plain_read"].append(cold_seconds(split, ways["plain_read"]))
        cold["epoch"].append(cold_seconds(split, lambda: first_epoch(split, batch, num_workers=1)))
    warm_seconds = {name: statistics.median(seconds) for name, seconds in warm.items()}
    cold_medians = {name: statistics.median(seconds) for name, seconds in cold.items()}
    size = read_sequentially(split)
    return {
        "dataset_bytes": size,
        "plain_read_bytes_per_second": size / warm_seconds["plain_read"],
        "plain_read_cold_bytes_per_second": size / cold_medians["plain_read"],
        "epoch_seconds": warm_seconds["epoch"],
        "first_epoch_share_of_plain_read": warm_seconds["plain_read"] / warm_seconds["epoch"],
        "first_epoch_share_of_plain_read_cold_one_worker": cold_medians["plain_read"] / cold_medians["epoch"],
        "first_epoch_speed_over_plain_tar": warm_seconds["plain_tar"] / warm_seconds["epoch"],
        "first_epoch_speed_over_clip_files": warm_seconds["clip_files"] / warm_seconds["epoch"],
    }


def make_step(model: DualForce, batch: dict[str, Any]) -> Callable[[], None]:
    """Return one plain optimizer step on a batch that is at hand, as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        noisy, targets = dict(batch), {}
        for stream in ("video", "structure"):
            noise = torch.randn_like(batch[stream])
            noisy[stream] = interpolate(batch[stream], noise, batch[f"sigma_{stream}"])
            targets[stream] = velocity_target(batch[stream], noise)
        velocity = model(**noisy)
        video = (velocity.video - targets["video"]).square().mean()
        structure = (velocity.structure - targets["structure"]).square().mean()
        (video + 0.5 * structure).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def training_figures(split: Path, args: argparse.Namespace, model: DualForce, device: torch.device) -> dict[str, float]:
    """Batches against a training step: CPU seconds of a kept batch, and the share of a loop that waits for batches."""
    frames, size = latent_length(FRAMES), args.size
    step = make_step(model, make_batch(model.config, args.batch, frames, size, device))
    seconds = statistics.median(timed(step, device, repeats=5))
    batches = iter(ShardReader(split, batch_size=args.batch, seed=0, num_frames=frames, num_workers=1))
    next(batches)
    waited, began = 0.0, time.perf_counter()
    for _ in range(args.steps):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        step()
        synchronize(device)
    return {
        "cached_batch_share_of_training_step": cached_batch(split, args.batch) / seconds,
        "training_step_seconds": seconds,
        "waiting_share_of_training_loop": waited / (time.perf_counter() - began),
    }


def cached_batch(split: Path, batch_size: int) -> float:
    """Seconds of a batch once every clip is in memory."""
    reader = ShardReader(split, batch_size=batch_size, seed=0)
    batches = iter(reader)
    steps = -(-len(reader) // batch_size)
    for _ in range(steps):
        next(batches)
    began = clock(torch.device("cpu"))
    for _ in range(steps):
        next(batches)
    return (clock(torch.device("cpu")) - began) / steps


def main() -> None:
    """Measure and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--clips", type=int, default=4096, help="clips in the dataset (default: 4096)")
    parser.add_argument("--batch", type=int, default=16, help="clips per batch (default: 16)")
    parser.add_argument("--size", type=int, default=64, help="height and width of the clips in pixels (default: 64)")
    parser.add_argument("--steps", type=int, default=64, help="steps of the training loop (default: 64)")
    args = parser.parse_args()
    device, _ = resolve(args)
    with tempfile.TemporaryDirectory() as folder:
        split = write_split(preset_config(args.preset), Path(folder) / "set", args.clips, FRAMES, args.size)
        files = []
        for sample in iter_samples(split):
            files.append(Path(folder) / f"{sample.key}.safetensors")
            safetensors.torch.save_file(sample.tensors, files[-1])
        figures = reading_figures(split, files, args.batch)
        model = DualForce.from_preset(args.preset)
        if model.config.video_size == args.size:
            figures |= training_figures(split, args, model.to(device), device)
            batch_seconds = figures["epoch_seconds"] * args.batch / args.clips
            figures["first_epoch_batch_share_of_training_step"] = batch_seconds / figures["training_step_seconds"]
    report(args, device, figures)


ROWS = {
    "first_epoch_share_of_plain_read": "first epoch, files in memory: bytes per second, of plain reading into a buffer",
    "first_epoch_share_of_plain_read_cold_one_worker": "first epoch from the disk, one worker: of plain reading",
    "first_epoch_speed_over_plain_tar": "first epoch: speed, of tarfile and safetensors in order",
    "first_epoch_speed_over_clip_files": "first epoch: speed, of one safetensors file per clip in random order",
    "first_epoch_batch_share_of_training_step": "first epoch: CPU time of a batch, of a training step",
    "cached_batch_share_of_training_step": "later epochs: CPU time of a batch, of a training step",
    "waiting_share_of_training_loop": "training loop with one worker: share of the time that waits for batches",
}


def report(args: argparse.Namespace, device: torch.device, figures: dict[str, float]) -> None:
    """Print and write the ratios."""
    text = table(("measure", "ratio"), [(name, f"{figures[key]:.4f}") for key, name in ROWS.items() if key in figures])
    print(text)
    name = "loader" if args.size == 64 else f"loader-{args.size}px"
    print(write_result(args.out, name, args, device, figures, text))


if __name__ == "__main__":
    main()
