"""One training step of a preset by df-train's own engine, as a share of the machine's matrix-multiply rate.

A step is all that `df-train` does between two log lines: reading the batch (random clips in the preset's shapes, in
memory after the first epoch), noise, forward and backward under FSDP2, clipping, AdamW, the averaged weights. Its
floating-point operations are those that the log counts (`df_models.model.flops`: matrix products and attention, without
what the causal mask hides and what is computed twice), divided by its time and by the rate of plain square matrix
products of the same dtype in the same process. The peak of memory stands beside what `df_models.model.memory` tells.

A plain loop is what one would write by hand: the same model, loss and averaged weights, one batch that is there, the
same dtype by autocast, AdamW, and no engine: no FSDP2, reader, meters, or skipping of bad gradients. Both take turns.
With `--against ways` the engine's step is measured with SDPA and with FlexAttention, eager and with compiled layers.

    uv run python benchmarks/training_step.py --preset quickstart --device cpu
    uv run python benchmarks/training_step.py --preset poc --device cuda --batch 8 --frames 9 --size 256 --compile
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

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

from df_models import DualForceConfig, preset_config
from df_models.attention.backends import AttentionBackend
from df_models.model.memory import Step, training_memory
from df_models.settings import validate_config
from df_models.text import TEXT_TOKENS
from df_models.time import pixel_length
from df_train.config import TrainConfig
from df_train.data.dataset import prepare_data
from df_train.engine import Trainer
from df_train.figures.speed import Work
from df_train.optimizer import build_optimizer
from df_train.processes.distributed import open_world
from df_train.run import build
from df_train.saving.state import averaged

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


def plain_step(trainer: Trainer, config: TrainConfig, dtype: torch.dtype) -> Callable[[], None]:
    """Return a step of a loop without the engine, on a copy of its model and one of its batches."""
    whole = averaged(trainer.state, trainer.world)
    assert whole is not None, "one process"
    model = whole[0].to(trainer.world.device).train()
    model.gradient_checkpointing = config.sharding.recomputed
    model.attention_backend = trainer.state.model.attention_backend
    if config.sharding.compile == "layers":
        model.compile_layers()
    parameters = list(model.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = build_optimizer(model, config.optim)
    batch = next(iter(trainer.state.reader)).to(trainer.world.device)
    numbers = itertools.count()

    def step() -> None:
        with torch.autocast(trainer.world.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = trainer.objective(model, batch, next(numbers), None)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 0.01)

    return step


def in_ways(trainer: Trainer, repeats: int) -> dict[str, float]:
    """Return the median seconds of a step with each attention, eager and with compiled layers."""
    model, taken = trainer.state.model, {}
    whole = [layer.forward for layer in model.layers()]
    before = model.attention_backend
    for attention in ("sdpa", "flex"):
        model.attention_backend = attention
        for compiled in (False, True):
            if compiled:
                model.compile_layers()
            seconds = timed(trainer.step, trainer.world.device, repeats=repeats)
            taken[f"{attention}, {'compiled layers' if compiled else 'eager'}"] = statistics.median(seconds)
            for layer, forward in zip(model.layers(), whole):
                layer.forward = forward
    model.attention_backend = before
    return taken


def operations(trainer: Trainer) -> int:
    """Return what a step of the engine takes, as its log counts it."""
    work = Work(trainer.state.model.config, history=False, flame="flame" in trainer.objective.names, known=False)
    return work.of(next(iter(trainer.state.reader)))[1]


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
    if device.type == "cuda":
        torch.cuda.empty_cache()
    reset_peak_memory(device)
    idle = peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        settings = train_config(args, config, dtype, Path(folder))
        with open_world(settings.device) as world:
            manifest = prepare_data(settings, world)
            training, objective, *_ = build(settings, world, manifest)
            training.model.attention_backend = args.attention
            trainer = Trainer(settings, training, objective, world, [], lambda _: None)
            parameters = sum(parameter.numel() for parameter in training.model.parameters())
            for _ in range(2):
                trainer.step()
            synchronize(device)
            peak = peak_memory(device) - idle
            rate_before = matmul_rate(device, dtype)
            side_by_side = in_ways(trainer, args.repeats) if args.against == "ways" else {}
            steps = {"engine": trainer.step}
            if args.against == "plain":
                steps["plain"] = plain_step(trainer, settings, dtype)
            taken: dict[str, list[float]] = {name: [] for name in steps}
            for _ in range(args.repeats):
                for name, step in steps.items():
                    taken[name] += timed(step, device, repeats=1, warmup=0 if taken[name] else 2)
            rate = statistics.mean([rate_before, matmul_rate(device, dtype)])
            flops = operations(trainer)
    seconds = statistics.median(taken["engine"])
    against = {}
    if plain := taken.get("plain"):
        against = {
            "plain_seconds_per_step": statistics.median(plain),
            "speed_of_plain": statistics.median(p / e for p, e in zip(plain, taken["engine"])),
        }
    step = Step(args.size, pixel_length(args.frames), args.batch, dtype, int(args.checkpointing))
    return {
        "parameters": parameters,
        "flops_per_step": flops,
        "seconds_per_step": seconds,
        **against,
        "side_by_side": {way: flops / seconds / rate for way, seconds in side_by_side.items()},
        "matmul_flops_per_second": rate,
        "share_of_matmul_rate": flops / seconds / rate,
        "peak_memory_bytes": peak,
        "computed_memory_bytes": training_memory(config, step).peak,
        "checkpointing": args.checkpointing,
        "compiled": args.compile,
        "attention": args.attention,
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
    parser.add_argument(
        "--against",
        choices=("plain", "ways", "nothing"),
        default="plain",
        help="a plain loop (default); or the engine itself with SDPA and FlexAttention, eager and compiled; or nothing",
    )
    parser.add_argument("--attention", choices=get_args(AttentionBackend), default="auto", help="(default: auto)")
    args = parser.parse_args()
    device, dtype = resolve(args)
    args.size = args.size or preset_config(args.preset).video_size
    torch.manual_seed(0)
    figures = measure(args, device, dtype)
    against = []
    if "speed_of_plain" in figures:
        against = [("speed as a share of a plain loop's", f"{100 * figures['speed_of_plain']:.1f} %")]
    rows = [
        ("parameters", f"{figures['parameters'] / 1e6:.1f} M"),
        ("clips x latent frames, pixels", f"{args.batch} x {args.frames}, {args.size}x{args.size}"),
        ("operations of a step", f"{figures['flops_per_step'] / 1e12:.3f} TFLOP"),
        ("share of the machine's matrix-multiply rate", f"{100 * figures['share_of_matmul_rate']:.1f} %"),
        *((f"share with {way}", f"{100 * share:.1f} %") for way, share in figures["side_by_side"].items()),
        *against,
        ("peak memory above the idle process", f"{figures['peak_memory_bytes'] / 2**30:.2f} GiB"),
        ("computed for it", f"{figures['computed_memory_bytes'] / 2**30:.2f} GiB"),
    ]
    options = ", gradient checkpointing" * args.checkpointing + ", compiled layers" * args.compile
    options += f", attention by {args.attention}" * (args.attention != "auto")
    text = f"Computed in {figures['dtype']}, parameters in float32, AdamW{options}.\n\n" + table(("", ""), rows)
    print(text)
    print(write_result(args.out, "training-step", args, device, figures, text))


if __name__ == "__main__":
    main()
