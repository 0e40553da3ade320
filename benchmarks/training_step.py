"""One training step of a preset, as a share of the machine's own matrix-multiply rate.

A step is the Diffusion Forcing forward pass with independent noise per latent frame, the video and structure velocity
losses, backward and AdamW. Its floating-point operations are counted by PyTorch on the very step that is timed
(matrix products and attention, forward and backward), and divided by its time and by the rate of plain square matrix
products of the same dtype in the same process. The peak of memory stands beside what `df-models describe` works out
(less the averaged weights, which this step does not keep).

    python benchmarks/training_step.py --preset quickstart --device cpu
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from common import (
    add_common_arguments,
    matmul_rate,
    peak_memory,
    reset_peak_memory,
    resolve,
    table,
    timed,
    write_result,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from df_models import DualForce
from df_models.flow import interpolate, velocity_target
from df_models.model.describe import BYTES_FP32, Workload, describe
from df_models.time import pixel_length


def make_batch(model: DualForce, batch: int, frames: int, size: int, device: torch.device) -> dict[str, Tensor]:
    """Return a batch of noise in the model's shapes, with sigmas drawn per latent frame and stream."""
    config, side = model.config, size // 8
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
        drawn["text"] = torch.randn(batch, 512, config.text_dim, device=device)
    return drawn


def make_step(
    model: DualForce, batch: dict[str, Tensor], precision: Callable[[], AbstractContextManager]
) -> Callable[[], None]:
    """Return one optimizer step as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        noisy, targets = dict(batch), {}
        for stream in ("video", "structure"):
            noise = torch.randn_like(batch[stream])
            noisy[stream] = interpolate(batch[stream], noise, batch[f"sigma_{stream}"])
            targets[stream] = velocity_target(batch[stream], noise)
        with precision():
            velocity = model(**noisy)
        video = (velocity.video.float() - targets["video"]).square().mean()
        structure = (velocity.structure.float() - targets["structure"]).square().mean()
        (video + 0.5 * structure).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def count_flops(step: Callable[[], None]) -> int:
    """Return the floating-point operations of one step, as PyTorch's own counter sees them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


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
    torch.manual_seed(0)
    reset_peak_memory(device)
    idle = peak_memory(device)
    with device:
        model = DualForce.from_preset(args.preset).train()
    model.gradient_checkpointing = args.checkpointing
    size = args.size or model.config.video_size
    lower = dtype != torch.float32
    precision = (lambda: torch.autocast(device.type, dtype)) if lower else nullcontext
    step = make_step(model, make_batch(model, args.batch, args.frames, size, device), precision)
    flops = count_flops(step)
    if args.compile:
        model.compile_layers()
    rate_before = matmul_rate(device, dtype)
    seconds = statistics.median(timed(step, device, repeats=args.repeats))
    rate = statistics.mean([rate_before, matmul_rate(device, dtype)])
    parameters = sum(p.numel() for p in model.parameters())
    share = flops / seconds / rate
    peak = peak_memory(device) - idle
    work = Workload(size=size, frames=pixel_length(args.frames), batch=args.batch)
    computed = describe(model.config, work).training_bytes - BYTES_FP32 * parameters
    rows = [
        ("parameters", f"{parameters / 1e6:.1f} M"),
        ("clips x latent frames, pixels", f"{args.batch} x {args.frames}, {size}x{size}"),
        ("operations of a step", f"{flops / 1e12:.3f} TFLOP"),
        ("share of the machine's matrix-multiply rate", f"{100 * share:.1f} %"),
        ("peak memory above the idle process", f"{peak / 2**30:.2f} GiB"),
        ("computed for it, with checkpointing", f"{computed / 2**30:.2f} GiB"),
    ]
    name = str(dtype).removeprefix("torch.")
    options = ", gradient checkpointing" * args.checkpointing + ", compiled layers" * args.compile
    text = f"{'Autocast to ' if lower else ''}{name}, parameters in float32, AdamW{options}.\n\n" + table(
        ("", ""), rows
    )
    figures = {
        "parameters": parameters,
        "flops_per_step": flops,
        "seconds_per_step": seconds,
        "matmul_flops_per_second": rate,
        "share_of_matmul_rate": share,
        "peak_memory_bytes": peak,
        "computed_memory_bytes": computed,
        "checkpointing": args.checkpointing,
        "compiled": args.compile,
        "dtype": name,
    }
    print(text)
    print(write_result(args.out, "training-step", args, device, figures, text))


if __name__ == "__main__":
    main()
