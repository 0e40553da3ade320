"""Where the time of a generated latent frame goes, and whether it keeps up with the sound.

By stages: the denoising calls, the call that writes the finished frame, the decoder. Each in the ways that there are:
the model's step as it stands and compiled into one graph, the decoder's convolutions by torch's own choice and by
oneDNN. A latent frame is 0.16 s of sound; the share of that is what counts for a live stream. Sampling is the
quickstart's (4 steps, guidance: two copies of the batch, window 2, one sink). Weights are random: they do not change
what is computed.

    python benchmarks/live.py                  # quickstart, 64x64, CPU
    python benchmarks/live.py --threads 2 --wall
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import add_common_arguments, clock, matmul_rate, resolve, synchronize, table, write_result
from torch import nn
from torch._inductor import config as inductor

from df_models import DualForce
from df_models.encoders import load_video_vae
from df_models.time import FPS, TEMPORAL_STRIDE

FRAME_SECONDS = TEMPORAL_STRIDE / FPS
STEPS, COPIES, WINDOW, SINKS = 4, 2, 2, 1


def generation(model: DualForce, side: int, frames: int, now: Callable[[], float]) -> dict[str, float]:
    """Median seconds of the denoising calls of a latent frame, and of the call that writes it."""
    config, device, dtype = model.config, model.device, model.dtype

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(COPIES, *shape, device=device, dtype=dtype)

    reference = noise(config.latent_channels, side, side)
    tokens = noise(config.reference_tokens, config.reference_dim) if config.reference_dim else None
    text = noise(512, config.text_dim) if config.text_dim else None
    cache = model.new_cache(
        COPIES, side, side, WINDOW, SINKS, reference_latent=reference, reference_tokens=tokens, text=text, dtype=dtype
    )
    taken: dict[str, list[float]] = {"denoising": [], "writing": []}
    for frame in range(frames):
        streams = noise(1, config.latent_channels, side, side), noise(1, 4, config.structure_dim)
        audio = noise(2, 4, config.audio_dim)
        began = now()
        for step in range(STEPS + 1):
            if step == STEPS:
                taken["denoising"].append(now() - began)
                began = now()
            sigma = torch.full((COPIES, 1), 1 - step / STEPS, device=device)
            model.step(*streams, audio, sigma, sigma, cache, frame=frame, write=step == STEPS)
        taken["writing"].append(now() - began)
    return {
        name: statistics.median(seconds[4:]) for name, seconds in taken.items()
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


def own_convolutions(vae: Any) -> None:
    """Give the decoder back the convolutions that torch itself would choose."""
    for layer in vae.module.modules():
        if isinstance(layer, nn.Conv3d):
            layer.__dict__.pop("_conv_forward", None)
            layer.weight.data = layer.weight.data.contiguous()


def main() -> None:
    """Measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--size", type=int, default=64, help="side of the video in pixels (default: 64)")
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
    model = DualForce.from_preset(args.preset).to(device, dtype).eval()
    vae = load_video_vae("df-tiny").to(device)
    rate = matmul_rate(device, torch.float32)
    measured = {"as it stands": generation(model, side, args.frames, now)}
    inductor.force_disable_caches = True  # as on a machine that has not compiled it before
    began = time.perf_counter()
    model.compile_step()
    generation(model, side, 6, now)
    compiling = time.perf_counter() - began
    measured["compiled"] = generation(model, side, args.frames, now)
    decoders = {"oneDNN": decoding(vae, side, args.frames, now)}
    own_convolutions(vae)
    decoders["torch's own choice"] = decoding(vae, side, args.frames, now)

    first = sum(measured["as it stands"].values())
    rows = [
        (f"step, {way}", f"{sum(parts.values()) / FRAME_SECONDS:.2f}", f"{sum(parts.values()) / first:.2f}")
        for way, parts in measured.items()
    ]
    rows += [
        (f"decoder, {way}", f"{seconds / FRAME_SECONDS:.2f}", f"{seconds / first:.2f}")
        for way, seconds in decoders.items()
    ]
    whole = {
        "before": first + decoders["torch's own choice"],
        "uncompiled": first + decoders["oneDNN"],
        "compiled": sum(measured["compiled"].values()) + decoders["oneDNN"],
    }
    text = (
        f"{args.size}x{args.size} pixels, {STEPS} Euler steps and a write, {COPIES} copies for guidance; shares of "
        f"the 0.16 s that a latent frame lasts ({'wall' if args.wall or device.type == 'cuda' else 'CPU'} time), and "
        f"of the uncompiled step. In 0.16 s this machine multiplies matrices worth {rate * FRAME_SECONDS / 1e9:.1f} "
        f"GFLOP. Compiling took {compiling:.0f} s, the first time on a machine.\n\n"
        + table(("of a latent frame", "share of its duration", "of the uncompiled step"), rows)
        + "\n\nStep and decoder together, one after the other: "
        + ", ".join(f"{FRAME_SECONDS / seconds:.2f}x real time {way}" for way, seconds in whole.items())
        + " (before: torch's own convolutions)."
    )
    figures = {"step": measured, "decoder": decoders, "matmul_rate": rate, "compiling_seconds": compiling}
    print(f"wrote {write_result(args.out, 'live', args, device, figures, text)}\n\n{text}")


if __name__ == "__main__":
    main()
