"""The shard reader: bytes per second against plain sequential reading, and its share of a training step.

A dataset of random clips in the shape of the quickstart's is written by df-data's own writer. Measured in one process,
on the CPU time of one thread, with the files in the system's cache (so that the disk does not count):

- the first epoch (each sample decoded from its shard) against reading the same tar files from end to end;
- the same against one safetensors file per clip, opened in a random order;
- a batch of later epochs (decoded clips kept in memory) against one training step of the preset.

    python benchmarks/loader.py --clips 512
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from contextlib import nullcontext
from pathlib import Path

import safetensors.torch
import torch
from common import add_common_arguments, clock, resolve, table, timed, write_result
from training_step import make_batch, make_step

from df_data.reader import ShardReader
from df_data.sample import EncoderRecord, Sample, SampleMeta
from df_data.shards import SplitWriter, iter_samples, staged_shards
from df_models import DualForce
from df_models.time import latent_length

ENCODERS = {"video_vae": EncoderRecord(id="random", sha256="0")}


def random_sample(index: int, frames: int, size: int) -> Sample:
    """A clip of noise in the shapes of the embedded encoders."""
    latents, cells = latent_length(frames), size // 8
    tensors = {
        "video_latent": torch.randn(latents, 16, cells, cells).half(),
        "structure": torch.randn(frames, 70),
        "flame": torch.randn(frames, 159),
        "audio": torch.randn(2 * frames, 64).half(),
        "reference_latents": torch.randn(4, 16, cells, cells).half(),
        "reference_frames": torch.tensor([0, 8, 16, 24], dtype=torch.int32),
        "reference_features": torch.randn(4, 16, 64).half(),
        "mouth_boxes": torch.tensor([20.0, 36.0, 44.0, 56.0]).repeat(frames, 1),
    }
    meta = SampleMeta(
        key=f"clip-{index:06d}",
        source="noise",
        licence="CC0-1.0",
        identity=f"nobody-{index}",
        split="train",
        num_frames=frames,
        height=size,
        width=size,
        encoders=ENCODERS,
    )
    return Sample(meta, tensors)


def write_split(root: Path, clips: int, frames: int, size: int) -> Path:
    """Write the dataset and return its training split."""
    writer = SplitWriter(root, "train", num_shards=8, build="benchmark", encoders=ENCODERS)
    staged = [writer.stage(random_sample(index, frames, size)) for index in range(clips)]
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    return root / "train"


def read_sequentially(split: Path) -> int:
    """Read every shard from end to end; return the bytes."""
    total = 0
    for path in sorted(split.glob("shard-*.tar")):
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                total += len(piece)
    return total


def first_epoch(split: Path, batch_size: int) -> None:
    """Read one shuffled epoch, nothing kept."""
    for _ in ShardReader(split, batch_size=batch_size, seed=0, loop=False, cache_bytes=0):
        pass


def read_clip_files(paths: list[Path], batch_size: int) -> None:
    """Read one safetensors file per clip in a random order and stack the latents: the usual way."""
    shuffled = random.Random(0).sample(paths, len(paths))
    for start in range(0, len(shuffled), batch_size):
        batch = shuffled[start : start + batch_size]
        torch.stack([safetensors.torch.load_file(path)["video_latent"] for path in batch]).float()


def main() -> None:
    """Measure and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--clips", type=int, default=512, help="clips in the dataset (default: 512)")
    parser.add_argument("--batch", type=int, default=16, help="clips per batch (default: 16)")
    args = parser.parse_args()
    device, _ = resolve(args)
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        split = write_split(Path(folder) / "set", args.clips, 33, 64)
        files = []
        for sample in iter_samples(split):
            files.append(Path(folder) / f"{sample.key}.safetensors")
            safetensors.torch.save_file(sample.tensors, files[-1])
        size = read_sequentially(split)
        plain = statistics.median(timed(lambda: read_sequentially(split), cpu, repeats=9))
        epoch = statistics.median(timed(lambda: first_epoch(split, args.batch), cpu, repeats=5, warmup=1))
        single = statistics.median(timed(lambda: read_clip_files(files, args.batch), cpu, repeats=5, warmup=1))
        cached = cached_batch(split, args.batch)
    model = DualForce.from_preset(args.preset).to(device)
    step = make_step(model, make_batch(model, args.batch, 9, 64, device), nullcontext)
    training = statistics.median(timed(step, device, repeats=5))
    report(args, device, size, {"plain": plain, "epoch": epoch, "single": single, "cached": cached, "step": training})


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


def report(args: argparse.Namespace, device: torch.device, size: int, seconds: dict[str, float]) -> None:
    """Print and write the ratios."""
    batches = args.clips / args.batch
    figures = {
        "dataset_bytes": size,
        "plain_read_bytes_per_second": size / seconds["plain"],
        "first_epoch_share_of_plain_read": seconds["plain"] / seconds["epoch"],
        "first_epoch_speed_over_clip_files": seconds["single"] / seconds["epoch"],
        "first_epoch_batch_share_of_training_step": seconds["epoch"] / batches / seconds["step"],
        "cached_batch_share_of_training_step": seconds["cached"] / seconds["step"],
    }
    rows = [
        (
            "first epoch: bytes per second, of plain sequential reading",
            "first_epoch_share_of_plain_read",
        ),
        ("first epoch: speed, of one safetensors file per clip in random order", "first_epoch_speed_over_clip_files"),
        ("first epoch: time of a batch, of a training step", "first_epoch_batch_share_of_training_step"),
        ("later epochs: time of a batch, of a training step", "cached_batch_share_of_training_step"),
    ]
    text = table(("measure", "ratio"), [(name, f"{figures[key]:.4f}") for name, key in rows])
    print(text)
    print(write_result(args.out, "loader", args, device, figures, text))


if __name__ == "__main__":
    main()
