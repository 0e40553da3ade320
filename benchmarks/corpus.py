"""What one clip of the synthetic corpus costs on one core: rendering by parts, encoding, its share of the matrix rate.

CPU time of this process on one thread, the median over clips. The encoder's floating-point operations are counted by
PyTorch and set against the rate of plain matrix products in the same process.

    uv run python benchmarks/corpus.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import add_common_arguments, matmul_rate, resolve, table, write_result
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from df_data.build.encode import Encoders, encode_images
from df_data.common.processes import one_thread
from df_data.synth.clip import make_clip
from df_data.synth.config import SynthConfig
from df_data.synth.corpus import ENCODE_FRAMES, jobs_of, reference_frames
from df_data.synth.head import render
from df_models.encoders import load_audio_encoder
from df_models.machine import choose_precision

PARTS = ("articulate", "to_camera", "vertex_normals", "rasterize", "shade", "average_down")
"""Compiled functions that draw a frame, as `df_data.synth.head.render` names them."""


@contextmanager
def timed_parts(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the CPU time of each of :data:`PARTS` while the block runs."""
    originals = {name: getattr(render, name) for name in PARTS}

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.thread_time()
            found = function(*args)
            seconds[name] = seconds.get(name, 0.0) + time.thread_time() - began
            return found

        return call

    for name, function in originals.items():
        setattr(render, name, watched(name, function))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(render, name, function)


def _onednn(x: torch.Size, weight: torch.Size, *_: Any, out_shape: torch.Size, **__: Any) -> int:
    """Operations of a convolution of oneDNN's, which PyTorch's counter does not know (df_models/encoders/video)."""
    return conv_flop_count(list(x), list(weight), list(out_shape))


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--clips", type=int, default=32, help="clips to render (default: 32)")
    args = parser.parse_args()
    device, _ = resolve(args)
    one_thread()
    config = SynthConfig(clips=args.clips)
    jobs = jobs_of(config, "train")
    audio, encoders = load_audio_encoder("logmel"), Encoders.load("df-tiny", "logmel", "patches")

    def clip_of(job: Any) -> Any:
        return make_clip(job.seed, job.identity, job.frames, job.size, split="train")

    clip_of(jobs[0])  # compiles, or loads what was compiled
    clips, whole, heard = [], [], []
    for job in jobs:
        began = time.process_time()
        clips.append(clip_of(job))
        whole.append(time.process_time() - began)
        audio.encode(clips[-1].wave, job.frames)
        heard.append(time.process_time() - began - whole[-1])
    parts: dict[str, float] = {}
    with timed_parts(parts):
        for job in jobs:
            clip_of(job)
    together = ENCODE_FRAMES // config.frames
    frames = [clip.frames for clip in clips[:together]]
    references = [reference_frames(job.seed, job.frames, config.references) for job in jobs[:together]]
    encoding = []
    for _ in range(4):
        began = time.process_time()
        encode_images(encoders, frames, references)
        encoding.append((time.process_time() - began) / len(frames))
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: _onednn}) as counter:
        encode_images(encoders, frames, references)
    precision = choose_precision("auto", "cpu")
    rate = counter.get_total_flops() / len(frames) / statistics.median(encoding[1:])
    share = rate / matmul_rate(device, precision.dtype)
    figures = {
        "clip": statistics.median(whole),
        **{name: parts[name] / len(jobs) for name in PARTS},
        "audio features": statistics.median(heard),
        "images to latents": statistics.median(encoding[1:]),
    }
    rows = [(name, f"{1000 * seconds:.1f} ms") for name, seconds in figures.items()]
    rows.append(("share of the matrix-multiply rate while encoding", f"{100 * share:.0f} %"))
    text = (
        f"A training clip of {config.frames} frames at {config.size} pixels, CPU time on one core; the encoder "
        f"computes in {precision}. The parts belong to the clip.\n\n" + table(("", ""), rows)
    )
    print(text)
    record = {"seconds": figures, "encoder_share_of_matmul_rate": share, "precision": precision.name}
    print(write_result(args.out, "corpus", args, device, record, text))


if __name__ == "__main__":
    main()
