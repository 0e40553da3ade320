"""The video tower against diffusers' WanTransformer3DModel, and how much of the machine's rate it reaches.

1. Forward, and forward with backward, of both implementations with the same weights, inputs, dtype and threads: full
   attention at one noise level, which is all that diffusers' model can do. Calls of the two take turns. Ratios below 1
   mean that the tower is faster.
2. Forward and training step (forward, backward, AdamW) of the block-causal tower, as a share of the rate of plain
   square matrix products of the same dtype in the same process. Counted are the operations that the mask asks for:
   half of the attention is not computed and not counted.

    uv run python benchmarks/video_tower.py --device cpu
    uv run python benchmarks/video_tower.py --device cuda --layers 30 --frames 9 --size 512 --compile
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import DTYPES, add_common_arguments, clock, matmul_rate, resolve, table, timed, write_result
from torch import Tensor

from df_models import VideoDiT, VideoDiTConfig, preset_config
from df_models.convert.wan import load_wan

TEXT_TOKENS = 512


def build_both(config: VideoDiTConfig, device: torch.device) -> tuple[VideoDiT, Any]:
    """Return the tower and diffusers' model with the same random weights."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    torch.manual_seed(0)
    with device:
        theirs = WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.dim // config.num_heads,
            in_channels=config.in_dim,
            out_channels=config.out_dim,
            text_dim=config.text_dim,
            freq_dim=config.freq_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
        )
        ours = VideoDiT(config)
    load_wan(ours, theirs.state_dict())
    return ours, theirs


def make_inputs(config: VideoDiTConfig, frames: int, size: int, device: torch.device, dtype: torch.dtype) -> tuple:
    """Return video ``[1, T, C, h, w]``, one noise level, and text."""
    side = size // 8
    video = torch.randn(1, frames, config.in_dim, side, side, device=device, dtype=dtype)
    text = torch.randn(1, TEXT_TOKENS, config.text_dim, device=device, dtype=dtype)
    return video, torch.full((1,), 0.6, device=device), text


def take_turns(
    calls: dict[str, Callable[[], Any]], device: torch.device, repeats: int, warmup: int = 2
) -> dict[str, float]:
    """Return each call's median seconds; the calls are made in turns, so that a slow moment meets all of them."""
    for _ in range(warmup):
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = clock(device)
            call()
            seconds[name].append(clock(device) - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def against_diffusers(ours: VideoDiT, theirs: Any, inputs: tuple, device: torch.device, repeats: int) -> dict[str, Any]:
    """Return seconds of both, forward and with backward, and how far their outputs lie apart."""
    video, sigma, text = inputs
    channels_first = video.transpose(1, 2).contiguous()
    sigmas = sigma[:, None].expand(1, video.shape[1])

    def run_ours() -> Tensor:
        return ours(video, sigmas, text, causal=False)

    def run_theirs() -> Tensor:
        return theirs(channels_first, timestep=sigma * 1000, encoder_hidden_states=text).sample

    def trained(model: torch.nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
        def call() -> None:
            run().float().square().mean().backward()
            model.zero_grad(set_to_none=True)

        return call

    with torch.no_grad():
        apart = (run_ours() - run_theirs().transpose(1, 2)).float()
        difference = float(apart.norm() / run_theirs().float().norm())
        forward = take_turns({"ours": run_ours, "theirs": run_theirs}, device, repeats)
    calls = {"ours": trained(ours, run_ours), "theirs": trained(theirs, run_theirs)}
    return {
        "forward": forward,
        "forward_backward": take_turns(calls, device, repeats),
        "relative_difference": difference,
    }


def causal_flops(config: VideoDiTConfig, frames: int, tokens: int) -> int:
    """Return the operations of a block-causal forward: two per multiply-add of every product that the mask asks for."""
    _, rows, columns = config.patch_size
    dim, count = config.dim, frames * tokens
    attended = 2 * tokens * tokens * (frames * (frames + 1) // 2) * dim
    layer = count * (6 * dim * dim + 2 * dim * config.ffn_dim) + attended + 2 * count * TEXT_TOKENS * dim
    layer += 2 * TEXT_TOKENS * dim * dim
    edges = count * rows * columns * dim * (config.in_dim + config.out_dim)
    text = TEXT_TOKENS * dim * (config.text_dim + dim)
    return 2 * (config.num_layers * layer + edges + text + frames * (config.freq_dim * dim + 7 * dim * dim))


def share_of_rate(model: VideoDiT, inputs: tuple, device: torch.device, args: argparse.Namespace) -> dict[str, float]:
    """Return the share of the matrix-multiply rate that the block-causal tower reaches, forward and in training."""
    video, _, text = inputs
    config, frames = model.config, video.shape[1]
    rows, columns = model.grid(*video.shape[-2:])
    flops = causal_flops(config, frames, rows * columns)
    sigmas = torch.linspace(0.1, 0.9, frames, device=device)[None]
    if args.compile:
        for block in model.blocks:
            block.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        model(video, sigmas, text).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    before = matmul_rate(device, video.dtype)
    with torch.no_grad():
        forward = statistics.median(timed(lambda: model(video, sigmas, text), device, repeats=args.repeats))
    training = statistics.median(timed(step, device, repeats=args.repeats))
    rate = statistics.mean([before, matmul_rate(device, video.dtype)])
    return {"forward": flops / forward / rate, "training_step": 3 * flops / training / rate, "flops_forward": flops}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.set_defaults(preset="dualforce-wan")
    parser.add_argument("--layers", type=int, default=4, help="layers of the tower (default: 4)")
    parser.add_argument("--frames", type=int, default=5, help="latent frames (default: 5)")
    parser.add_argument("--size", type=int, default=256, help="side of the video in pixels (default: 256)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="compile the block-causal tower's blocks")
    args = parser.parse_args()
    device, chosen = resolve(args)
    dtypes = [chosen] if args.dtype or device.type == "cuda" else list(DTYPES.values())
    base = preset_config(args.preset, num_layers=args.layers, structure_layers=args.layers, fusion_depth=0).video
    config = VideoDiTConfig(**{**vars(base), "reference": False, "text_dim": base.text_dim or 4096})
    figures: dict[str, Any] = {}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        ours, theirs = build_both(config, device)
        inputs = make_inputs(config, args.frames, args.size, device, dtype)
        figures[name] = against_diffusers(ours.to(dtype), theirs.to(dtype), inputs, device, args.repeats)
        del theirs
        figures[name]["share"] = share_of_rate(ours, inputs, device, args)
    text = render(config, args, figures)
    print(text)
    print(write_result(args.out, "video-tower", args, device, figures, text))


def render(config: VideoDiTConfig, args: argparse.Namespace, figures: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    rows = [
        (
            name,
            *(f"{f[part]['ours'] / f[part]['theirs']:.3f}" for part in ("forward", "forward_backward")),
            f"{f['relative_difference']:.1e}",
            *(f"{100 * f['share'][part]:.1f} %" for part in ("forward", "training_step")),
        )
        for name, f in figures.items()
    ]
    header = (
        "dtype",
        "forward: time over diffusers'",
        "forward + backward: time over diffusers'",
        "outputs apart (relative)",
        "block-causal forward, share of matmul rate",
        "training step, share of matmul rate",
    )
    sizes = f"{config.num_layers} layers of {config.dim}, feed-forward {config.ffn_dim}, {config.num_heads} heads"
    clip = f"{args.frames} latent frames of {args.size}x{args.size}, {TEXT_TOKENS} text tokens, batch 1"
    compiled = "; the block-causal tower compiled" if args.compile else ""
    return f"{sizes}; {clip}{compiled}. The weights are of the table's dtype throughout.\n\n{table(header, rows)}"


if __name__ == "__main__":
    main()
