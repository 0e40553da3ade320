"""One training step of a preset by df-train's own engine, as a share of the machine's matrix-multiply rate.

A step is all that `df-train` does between two log lines: reading the batch (random clips in the preset's shapes, in
memory after the first epoch), noise, forward and backward under FSDP2, clipping, AdamW, the averaged weights. Its
floating-point operations are counted by PyTorch on one clip (matrix products and attention, forward and backward, all
scores counted, also those that the causal mask hides) and divided by its time and by the rate of plain square matrix
products of the same dtype in the same process. The peak of memory stands beside what `df-models describe` works out.

    python benchmarks/training_step.py --preset quickstart --device cpu
    python benchmarks/training_step.py --preset poc --device cuda --batch 8 --frames 9 --size 256 --compile
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from clips import write_split
from common import (
    add_common_arguments,
    matmul_rate,
    peak_memory,
    reset_peak_memory,
    resolve,
    synchronize,
    table,
    timed,
    write_result,
)
from torch.utils.flop_counter import FlopCounterMode

from df_models import DualForce, DualForceConfig, preset_config
from df_models.model.describe import Workload, describe
from df_models.settings import validate_config
from df_models.text import TEXT_TOKENS
from df_models.time import pixel_length
from df_train.config import TrainConfig
from df_train.dataset import prepare_data
from df_train.distributed import open_world
from df_train.engine import Trainer
from df_train.run import build

CLIPS = 32


def make_batch(config: DualForceConfig, batch: int, frames: int, size: int, device: torch.device) -> dict[str, Any]:
    """Return a batch of noise in the model's shapes, with sigmas drawn per latent frame and stream."""
    side = size // 8
    drawn = {
        "video": torch.randn(batch, frames, config.latent_channels, side, side, device=device),
        "structure": torch.randn(batch, frames, 4, config.structure_dim, device=device),
        "audio": torch.randn(batch, frames, 4, config.audio_dim, device=device),
        "reference_latent": torch.randn(batch, config.latent_channels, side, side, device=device),
        "sigma_video": torch.rand(batch, frames, device=device),
        "sigma_structure": torch.rand(batch, frames, device=device) * config.sigma_structure_max,
    }
    if config.reference_dim:
        drawn["reference_tokens"] = torch.randn(batch, 16, config.reference_dim, device=device)
    if config.text_dim:
        drawn["text"] = torch.randn(batch, TEXT_TOKENS, config.text_dim, device=device)
    return drawn


def count_flops(config: DualForceConfig, frames: int, size: int, device: torch.device) -> int:
    """Return the floating-point operations of forward and backward of one clip, as PyTorch's own counter sees them."""
    with device:
        model = DualForce(config)
    model.attention_backend = "sdpa"
    with FlopCounterMode(display=False) as counter:
        velocity = model(**make_batch(config, 1, frames, size, device))
        (velocity.video.square().mean() + velocity.structure.square().mean()).backward()
    return counter.get_total_flops()


def train_config(args: argparse.Namespace, config: DualForceConfig, dtype: torch.dtype, root: Path) -> TrainConfig:
    """What `df-train` would be told to take these steps."""
    tree: dict[str, Any] = {
        "run_dir": str(root / "run"),
        "device": args.device,
        "model": {"preset": args.preset},
        "data": {"root": str(root / "clips"), "batch_size": args.batch, "num_workers": 1},
        "optim": {"steps": 10_000},
        "precision": {"bf16": "on" if dtype == torch.bfloat16 else "off"},
        "sharding": {"compile": args.compile, "checkpointing": args.checkpointing},
        "sample": {"clips": 0},
    }
    write_split(config, root / "clips", max(CLIPS, args.batch), pixel_length(args.frames), args.size)
    return validate_config(TrainConfig, tree)


def measure(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the figures of a step."""
    config = preset_config(args.preset, video_size=args.size)
    flops = args.batch * count_flops(config, args.frames, args.size, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    reset_peak_memory(device)
    idle = peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        settings = train_config(args, config, dtype, Path(folder))
        with open_world(settings.device) as world:
            manifest = prepare_data(settings, world)
            training, objective, *_ = build(settings, world, manifest)
            trainer = Trainer(settings, training, objective, world, [], lambda _: None)
            parameters = sum(parameter.numel() for parameter in training.model.parameters())
            trainer.step()
            rate_before = matmul_rate(device, dtype)
            seconds = statistics.median(timed(trainer.step, device, repeats=args.repeats))
            rate = statistics.mean([rate_before, matmul_rate(device, dtype)])
            synchronize(device)
            peak = peak_memory(device) - idle
    work = Workload(size=args.size, frames=pixel_length(args.frames), batch=args.batch)
    return {
        "parameters": parameters,
        "flops_per_step": flops,
        "seconds_per_step": seconds,
        "matmul_flops_per_second": rate,
        "share_of_matmul_rate": flops / seconds / rate,
        "peak_memory_bytes": peak,
        "computed_memory_bytes": describe(config, work).training_bytes,
        "checkpointing": args.checkpointing,
        "compiled": args.compile,
        "dtype": str(dtype).removeprefix("torch."),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=9, help="latent frames of a clip")
    parser.add_argument("--size", type=int, help="side of the video in pixels (default: the preset's)")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--checkpointing", action="store_true", help="recompute each layer in the backward pass")
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    args = parser.parse_args()
    device, dtype = resolve(args)
    args.size = args.size or preset_config(args.preset).video_size
    torch.manual_seed(0)
    figures = measure(args, device, dtype)
    rows = [
        ("parameters", f"{figures['parameters'] / 1e6:.1f} M"),
        ("clips x latent frames, pixels", f"{args.batch} x {args.frames}, {args.size}x{args.size}"),
        ("operations of a step", f"{figures['flops_per_step'] / 1e12:.3f} TFLOP"),
        ("share of the machine's matrix-multiply rate", f"{100 * figures['share_of_matmul_rate']:.1f} %"),
        ("peak memory above the idle process", f"{figures['peak_memory_bytes'] / 2**30:.2f} GiB"),
        ("computed for it, with checkpointing", f"{figures['computed_memory_bytes'] / 2**30:.2f} GiB"),
    ]
    options = ", gradient checkpointing" * args.checkpointing + ", compiled layers" * args.compile
    text = f"Computed in {figures['dtype']}, parameters in float32, AdamW{options}.\n\n" + table(("", ""), rows)
    print(text)
    print(write_result(args.out, "training-step", args, device, figures, text))


if __name__ == "__main__":
    main()
