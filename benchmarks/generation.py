"""Cost of autoregressive generation: does it stay constant in the length, and what does the cache save?

Three questions, each answered by a ratio within one run:

1. time per latent frame of a long video (513 frames) against a short one (33) (solver steps, cache write and decoding);
2. peak memory of the two;
3. one model call on the next frame with a warm cache against computing the whole context again, at contexts of 9, 33
   and 129 latent frames (`--contexts`): with a cache that holds all of the context, and with the rollout's own window.

Weights are random and latents are noise: neither changes what is computed. Each length runs in a process of its own.

    uv run python benchmarks/generation.py --preset quickstart --device cpu
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from common import (
    DTYPES,
    add_common_arguments,
    clock,
    matmul_rate,
    peak_memory,
    reset_peak_memory,
    resolve,
    table,
    timed,
    write_result,
)

from df_infer.rollout import RolloutConfig, stream_latents
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.time import latent_length

LENGTHS = (33, 513)
CONTEXTS = (9, 33, 129)
WARMUP_FRAMES = 17


@dataclass(frozen=True)
class Setup:
    """What a child process needs to build the same model."""

    preset: str
    device: str
    dtype: str
    threads: int
    size: int
    steps: int
    window: int
    sinks: int

    def rollout(self) -> RolloutConfig:
        """The rollout to measure."""
        return RolloutConfig(steps=self.steps, window=self.window, sinks=self.sinks)


class Bench:
    """A random model and noise for its inputs. Text and reference tokens are given if the preset takes them."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        torch.manual_seed(0)
        self.setup, self.device, self.dtype = setup, torch.device(setup.device), DTYPES[setup.dtype]
        with self.device:
            model = DualForce.from_preset(setup.preset)
        self.model = model.to(self.device, self.dtype).eval()
        self.side = setup.size // 8

    def noise(self, *shape: int) -> torch.Tensor:
        """Normal noise in the model's dtype."""
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def audio(self, frames: int) -> torch.Tensor:
        """Audio of one sample."""
        return self.noise(1, frames, 4, self.model.config.audio_dim)

    def conditions(self) -> dict[str, Any]:
        """Reference and text of one sample."""
        config = self.model.config
        return {
            "reference_latent": self.noise(1, config.latent_channels, self.side, self.side),
            "reference_tokens": self.noise(1, 16, config.reference_dim) if config.reference_dim else None,
            "text": self.noise(1, 512, config.text_dim) if config.text_dim else None,
        }


def measure_length(setup: Setup, pixel_frames: int, repeats: int) -> dict[str, float]:
    """Generate and decode; return the mean seconds per latent frame, and the memory before and at the peak."""
    bench = Bench(setup)
    vae = random_tiny_vae().to(bench.device)
    list(_frame_seconds(bench, vae, min(WARMUP_FRAMES, pixel_frames)))
    reset_peak_memory(bench.device)
    idle = peak_memory(bench.device)
    seconds = [s for _ in range(repeats) for s in list(_frame_seconds(bench, vae, pixel_frames))[1:]]
    return {"seconds_per_latent_frame": statistics.mean(seconds), "peak": peak_memory(bench.device), "idle": idle}


def _frame_seconds(bench: Bench, vae: Any, pixel_frames: int):
    """Yield the seconds that each latent frame took."""
    audio = bench.audio(latent_length(pixel_frames))
    session = vae.decoder_session()
    began = clock(bench.device)
    for chunk in stream_latents(bench.model, audio, **bench.conditions(), config=bench.setup.rollout()):
        session.decode(chunk.video)
        now = clock(bench.device)
        yield now - began
        began = now


@torch.no_grad()
def measure_cache(setup: Setup, context: int, repeats: int) -> dict[str, float]:
    """Return seconds of one model call on frame ``context``, recomputing and with two caches."""
    bench = Bench(setup)
    config, model = bench.model.config, bench.model
    clip = context + 1
    video = bench.noise(1, clip, config.latent_channels, bench.side, bench.side)
    structure, audio = bench.noise(1, clip, 4, config.structure_dim), bench.audio(clip)
    sigma = torch.zeros(1, clip, device=bench.device)
    conditions = bench.conditions()
    given = {key: value for key, value in conditions.items() if value is not None}

    def recompute() -> None:
        model(video, structure, audio, sigma, sigma, **given)

    def cached(window: int, sinks: int):
        cache = model.new_cache(
            1, bench.side, bench.side, window, sinks, **conditions, device=bench.device, dtype=bench.dtype
        )
        for frame in range(clip - 1):
            step(cache, frame, write=True)
        return lambda: step(cache, clip - 1, write=False)

    def step(cache: Any, frame: int, write: bool) -> None:
        own = slice(frame, frame + 1)
        model.step(
            video[:, own],
            structure[:, own],
            audio[:, own],
            sigma[:, own],
            sigma[:, own],
            cache,
            frame=frame,
            write=write,
        )

    def seconds(function: Any, times: int) -> float:
        return statistics.median(timed(function, bench.device, repeats=times))

    return {
        "recompute": seconds(recompute, repeats),
        "cache_of_all": seconds(cached(clip, 0), 4 * repeats),
        "cache_of_window": seconds(cached(setup.window, setup.sinks), 4 * repeats),
    }


def in_child(function: Any, *arguments: Any) -> dict[str, float]:
    """Run in a fresh process, so that one measurement's memory does not show in the next."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def length_table(lengths: dict[int, dict[str, float]]) -> str:
    """Time and memory of each length relative to the shortest."""
    base = lengths[min(lengths)]
    rows = [
        (
            frames,
            latent_length(frames),
            f"{m['seconds_per_latent_frame'] / base['seconds_per_latent_frame']:.3f}",
            f"{m['peak'] / base['peak']:.3f}",
            f"{(m['peak'] - m['idle']) / 2**20:.0f} MiB",
        )
        for frames, m in lengths.items()
    ]
    names = ("pixel frames", "latent frames", "time per latent frame", "peak memory", "above the idle model")
    return table(names, rows)


def cache_table(caches: dict[int, dict[str, float]]) -> str:
    """Speed-up of a cached call over computing the context again."""
    rows = [
        (
            context,
            f"{m['recompute'] / m['cache_of_all']:.1f}x",
            f"{m['recompute'] / m['cache_of_window']:.1f}x",
            f"{m['cache_of_window'] / caches[min(caches)]['cache_of_window']:.2f}",
        )
        for context, m in caches.items()
    ]
    names = (
        "context, latent frames",
        "cache of all of it",
        "cache of the window",
        f"window call, against context {min(caches)}",
    )
    return table(names, rows)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--size", type=int, help="side of the video in pixels (default: the preset's)")
    parser.add_argument("--steps", type=int, default=RolloutConfig().steps)
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of the short measurements")
    parser.add_argument("--lengths", type=int, nargs=2, default=LENGTHS, help="pixel frames of the two videos")
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS, help="latent frames of the contexts")
    args = parser.parse_args()
    device, dtype = resolve(args)
    rate = matmul_rate(device, dtype)
    from df_models import preset_config

    default = RolloutConfig()
    setup = Setup(
        args.preset,
        str(device),
        str(dtype).removeprefix("torch."),
        torch.get_num_threads(),
        args.size or preset_config(args.preset).video_size,
        args.steps,
        default.window,
        default.sinks,
    )
    lengths = {
        n: in_child(measure_length, setup, n, args.repeats if n == min(args.lengths) else 1) for n in args.lengths
    }
    caches = {n: in_child(measure_cache, setup, n, args.repeats) for n in args.contexts}
    short = lengths[min(args.lengths)]["seconds_per_latent_frame"]
    text = (
        f"{setup.size}x{setup.size} pixels, {setup.dtype}, {setup.steps} Euler steps, window {setup.window} "
        f"+ {setup.sinks} sinks, decoding included. One latent frame (4 pixel frames) takes the time in which this "
        f"machine multiplies matrices worth {short * rate / 1e9:.1f} GFLOP; generation is {0.16 / short:.2f}x real "
        f"time.\n\n{length_table(lengths)}\n\nOne model call on the next frame, against recomputing its whole context "
        f"(how many times faster):\n\n{cache_table(caches)}"
    )
    figures = {"setup": vars(setup), "matmul_flops_per_second": rate, "lengths": lengths, "caches": caches}
    print(text)
    print(write_result(args.out, "generation", args, device, figures, text))


if __name__ == "__main__":
    main()
