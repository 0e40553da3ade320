"""Where the time of a generated latent frame goes, and whether it keeps up with the sound.

By stages: the denoising calls, the call that writes the finished frame, the decoder. Each in the ways that there are:
the model's step as it stands and compiled into one graph (on a GPU also as a CUDA graph), on a CPU the decoder's
convolutions by torch's own choice and by oneDNN. A latent frame is 0.16 s of sound; the share of that is what counts
for a live stream. Then how much faster a whole generation is when a chunk is denoised while the one before is decoded,
as `df-infer generate` does, by the wall clock. Weights are random: they do not change what is computed.

    uv run python benchmarks/live.py                  # quickstart, 64x64, CPU, sampled as its configuration says
    uv run python benchmarks/live.py --threads 2 --wall
    uv run python benchmarks/live.py --device cuda --preset dualforce-wan --size 512 --steps 20 --copies 1 --window 8
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import add_common_arguments, clock, matmul_rate, resolve, synchronize, table, write_result
from torch._inductor import config as inductor

from df_infer.clip_decoder import ClipDecoder
from df_infer.config import RolloutConfig
from df_infer.one_ahead import one_ahead
from df_infer.rollout import stream_latents
from df_models import DualForce
from df_models.encoders import load_video_vae
from df_models.encoders.video.wan_layers import CausalConv
from df_models.errors import UserError
from df_models.float8 import check_float8, generate_in_float8
from df_models.model.describe import latency_of
from df_models.settings import read_tree
from df_models.time import FPS, TEMPORAL_STRIDE

FRAME_SECONDS = TEMPORAL_STRIDE / FPS
ROUNDS = 5
"""Generations of each way, one after the other."""
CHUNKS = (1, 2, 3)
FUTURES = (0, 1, 2, 4)
QUICKSTART = RolloutConfig(**read_tree(Path(__file__).parents[1] / "configs" / "train" / "quickstart.yaml")["rollout"])


class Sampling(NamedTuple):
    """Euler steps, copies of the batch (2 for guidance), what of its past a frame sees, latent frames of a chunk."""

    steps: int
    copies: int
    window: int
    sinks: int
    chunk: int = 1


OWN = Sampling(QUICKSTART.steps, 1 + (QUICKSTART.audio_guidance != 1), QUICKSTART.window, QUICKSTART.sinks)
"""The quickstart's."""


def generation(
    model: DualForce, sampling: Sampling, side: int, frames: int, now: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of a latent frame's share of the denoising calls, and of the call that writes it."""
    config, device, dtype = model.config, model.device, model.dtype
    steps, copies, window, sinks, chunk = sampling

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(copies, *shape, device=device, dtype=dtype)

    reference = noise(config.latent_channels, side, side)
    tokens = noise(config.reference_tokens, config.reference_dim) if config.reference_dim else None
    text = noise(512, config.text_dim) if config.text_dim else None
    cache = model.new_cache(
        copies, side, side, window, sinks, reference_latent=reference, reference_tokens=tokens, text=text, dtype=dtype
    )
    sigmas = [torch.full((copies, chunk), 1 - step / steps, device=device) for step in range(steps + 1)]
    levels = [(sigma, sigma) for sigma in sigmas]
    embedded = [model.embed_noise(*pair) for pair in levels]
    taken: dict[str, list[float]] = {"denoising": [], "writing": []}
    for frame in range(0, frames * chunk, chunk):
        streams = noise(chunk, config.latent_channels, side, side), noise(chunk, 4, config.structure_dim)
        audio = noise(chunk + 1, 4, config.audio_dim)  # its own and the next frame's
        began = now()
        heard = model.hear(audio, cache, frame=frame, count=chunk)
        for step in range(steps + 1):
            if step == steps:
                taken["denoising"].append(now() - began)
                began = now()
            given = {"frame": frame, "write": step == steps, "heard": heard, "noise": embedded[step]}
            model.step(*streams, audio, *levels[step], cache, **given)
        taken["writing"].append(now() - began)
    return {
        name: statistics.median(seconds[frames // 2 :]) / chunk for name, seconds in taken.items()
    }  # behind the first, with a full ring


def decoding(vae: Any, side: int, frames: int, now: Callable[[], float]) -> float:
    """Median seconds of decoding a latent frame."""
    session, taken = vae.decoder_session(), []
    for _ in range(frames):
        latent = torch.randn(1, 1, 16, side, side, device=next(vae.module.parameters()).device)
        began = now()
        session.decode(latent)
        taken.append(now() - began)
    return statistics.median(taken[2:])


@torch.no_grad()
def whole(model: DualForce, vae: Any, sampling: Sampling, side: int, frames: int, beside: bool) -> float:
    """Wall seconds of a latent frame of a generation, with or without decoding beside denoising."""
    config, device = model.config, model.device
    steps, copies, window, sinks, chunk = sampling
    rollout = RolloutConfig(
        steps=steps, audio_guidance=2.0 if copies > 1 else 1.0, window=window, sinks=sinks, chunk=chunk
    )
    tokens = torch.randn(1, config.reference_tokens, config.reference_dim) if config.reference_dim else None
    chunks = stream_latents(
        model,
        torch.randn(1, frames, 4, config.audio_dim),
        torch.randn(1, config.latent_channels, side, side),
        tokens,
        torch.randn(1, 512, config.text_dim) if config.text_dim else None,
        config=rollout,
    )
    decoder = ClipDecoder(model, vae)
    synchronize(device)
    began = time.perf_counter()
    for made in one_ahead(chunks) if beside else chunks:
        for _ in decoder.clips(made):
            pass
    return (time.perf_counter() - began) / frames


def decoded_beside(model: DualForce, vae: Any, sampling: Sampling, side: int, frames: int) -> dict[str, list[float]]:
    """Wall seconds of a latent frame with decoding after and beside denoising, in turn, behind a first round."""
    taken: dict[str, list[float]] = {"after": [], "beside": []}
    for turn in range(ROUNDS + 1):
        for way, seconds in taken.items():
            measured = whole(model, vae, sampling, side, frames, way == "beside")
            if turn:
                seconds.append(measured)
    return taken


def own_convolutions(vae: Any) -> None:
    """Give the decoder back the convolutions that torch itself would choose."""
    for layer in vae.module.modules():
        if isinstance(layer, CausalConv):
            layer.by_onednn = False
            layer.weight.data = layer.weight.data.contiguous()


def main() -> None:
    """Measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--size", type=int, default=64, help="side of the video in pixels (default: 64)")
    parser.add_argument("--steps", type=int, default=OWN.steps, help=f"Euler steps of a chunk (default: {OWN.steps})")
    parser.add_argument(
        "--copies", type=int, default=OWN.copies, help=f"of the batch, for guidance (default: {OWN.copies})"
    )
    parser.add_argument("--window", type=int, default=OWN.window, help=f"latest frames seen (default: {OWN.window})")
    parser.add_argument("--sinks", type=int, default=OWN.sinks, help=f"first frames kept (default: {OWN.sinks})")
    parser.add_argument("--frames", type=int, default=30, help="latent frames of each measurement (default: 30)")
    parser.add_argument("--wall", action="store_true", help="measure wall time on a CPU too: for several threads")
    args = parser.parse_args()
    device, dtype = resolve(args)
    side = args.size // 8

    def now() -> float:
        if not args.wall:
            return clock(device)
        synchronize(device)
        return time.perf_counter()

    torch.manual_seed(0)
    sampling = Sampling(args.steps, args.copies, args.window, args.sinks)
    with device:
        model = DualForce.from_preset(args.preset).to(device, dtype).eval()
    model.join_products()  # as a pipeline does
    rate = matmul_rate(device, dtype)
    measured = {"as it stands": generation(model, sampling, side, args.frames, now)}
    chunks = {
        chunk: generation(model, sampling._replace(chunk=chunk, window=max(args.window, chunk)), side, args.frames, now)
        for chunk in CHUNKS
    }
    vae = load_video_vae("df-tiny").to(device)
    both = decoded_beside(model, vae, sampling, side, args.frames)
    inductor.force_disable_caches = True  # as on a machine that has not compiled it before
    compiling = {}
    for way, options in ways(device).items():
        began = time.perf_counter()
        model.compile_step(**options)
        generation(model, sampling, side, 3, now)
        compiling[way] = time.perf_counter() - began
        measured[way] = generation(model, sampling, side, args.frames, now)
    if dtype == torch.bfloat16 and can_float8(device):
        generate_in_float8(list(model.layers()))
        model.compile_step()
        generation(model, sampling, side, 3, now)
        measured["compiled, float8"] = generation(model, sampling, side, args.frames, now)
    decoders = decoding_in_ways(vae, side, args.frames, now)
    text = render(args, measured, decoders, compiling, rate) + beside_text(both)
    text += chunk_table(args, model, chunks)
    figures = {
        "step": measured,
        "chunks": chunks,
        "decoder": decoders,
        "whole_generation_seconds": both,
        "matmul_rate": rate,
        "compiling_seconds": compiling,
    }
    print(f"wrote {write_result(args.out, 'live', args, device, figures, text)}\n\n{text}")


def ways(device: torch.device) -> dict[str, dict[str, Any]]:
    """How a step is compiled: options of ``torch.compile``."""
    graphs = {"compiled, CUDA graphs": {"mode": "reduce-overhead"}} if device.type == "cuda" else {}
    return {"compiled": {}} | graphs


def can_float8(device: torch.device) -> bool:
    """Whether this machine multiplies in float8."""
    try:
        check_float8(device, "float8", "", "")
    except UserError:
        return False
    return True


def decoding_in_ways(vae: Any, side: int, frames: int, now: Callable[[], float]) -> dict[str, float]:
    """Median seconds of decoding a latent frame, as it stands and on a CPU by torch's own convolutions."""
    device = next(vae.module.parameters()).device
    if device.type != "cpu":
        return {"as it stands": decoding(vae, side, frames, now)}
    decoders = {"oneDNN": decoding(vae, side, frames, now)}
    own_convolutions(vae)
    return decoders | {"torch's own choice": decoding(vae, side, frames, now)}


def render(
    args: argparse.Namespace,
    measured: dict[str, dict[str, float]],
    decoders: dict[str, float],
    compiling: dict[str, float],
    rate: float,
) -> str:
    """Return the result as Markdown."""
    sums = {way: sum(parts.values()) for way, parts in measured.items()}
    first = sums["as it stands"]
    rows = [
        (f"step, {way}", f"{seconds / FRAME_SECONDS:.3f}", f"{seconds / first:.2f}") for way, seconds in sums.items()
    ]
    rows += [
        (f"decoder, {way}", f"{seconds / FRAME_SECONDS:.3f}", f"{seconds / first:.2f}")
        for way, seconds in decoders.items()
    ]
    decoder = min(decoders.values())
    clock = "wall" if args.wall or args.device != "cpu" else "CPU"
    took = ", ".join(f"{seconds:.0f} s {way}" for way, seconds in compiling.items())
    together = ", ".join(f"{FRAME_SECONDS / (seconds + decoder):.2f}x real time {way}" for way, seconds in sums.items())
    return (
        f"{args.size}x{args.size} pixels, {args.steps} Euler steps and a write, {args.copies} copies of the batch, a "
        f"window of {args.window} latent frames and {args.sinks} sinks; shares of the 0.16 s that a latent frame lasts "
        f"({clock} time), and of the uncompiled step. In 0.16 s this machine multiplies matrices worth "
        f"{rate * FRAME_SECONDS / 1e9:.1f} GFLOP. Compiling, the first time on a machine: {took}.\n\n"
        + table(("of a latent frame", "share of its duration", "of the uncompiled step"), rows)
        + f"\n\nStep and decoder together, one after the other: {together}."
    )


def beside_text(both: dict[str, list[float]]) -> str:
    """How much faster a generation is with decoding beside denoising."""
    ratios = sorted(after / beside for after, beside in zip(both["after"], both["beside"]))
    return (
        f"\n\nDecoding beside denoising, each on as many threads: {statistics.median(ratios):.2f} times as fast as one "
        f"after the other ({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} pairs, by the wall clock)."
    )


def chunk_table(args: argparse.Namespace, model: DualForce, chunks: dict[int, dict[str, float]]) -> str:
    """What frames cost that are denoised together, and how much later they can be shown than they are spoken."""
    rows = []
    for chunk, parts in chunks.items():
        waits = (latency_of(model.config, chunk, future).total for future in FUTURES)
        seconds = ["-" if wait is None else f"{wait:.2f} s" for wait in waits]
        shares = (f"{parts[name] / FRAME_SECONDS:.3f}" for name in ("denoising", "writing"))
        rows.append((chunk, max(args.window, chunk), *shares, *seconds))
    head = ("latent frames of a chunk", "window", "denoising, of a frame's duration", "writing")
    waits = (f"waits for sound, `audio_future` {future}" for future in FUTURES)
    return "\n\nUncompiled, by the length of a chunk; computing comes on top of the wait for sound:\n\n" + table(
        (*head, *waits), rows
    )


if __name__ == "__main__":
    main()
