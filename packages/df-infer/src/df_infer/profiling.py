"""Where the time of a generation goes, by stages, from PyTorch's profiler.

The stages mark themselves (``record_function``): hearing, denoising, writing into the cache, decoding. What is left is
everything else, the writing of the video among it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

PREFIX = "df: "
TRACED_FRAMES = 129
"""Pixel frames that `--profile` takes at most: a trace has some thousand events for each."""


@contextlib.contextmanager
def profiled(path: Path, num_frames: int, tell: Callable[[str], None]) -> Iterator[None]:
    """Profile the block, write its trace (``chrome://tracing``, Perfetto) and tell what each stage took of a frame."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of every GPU that is not there, as an error
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as watch:
        yield
    watch.export_chrome_trace(str(path))
    found = {event.key: event for event in watch.key_averages() if event.key.startswith(PREFIX)}
    tell(f"of a pixel frame's 40 ms, over {num_frames} frames (watched, so slower than alone):")
    for name, event in sorted(found.items(), key=lambda each: -each[1].cpu_time_total):
        tell(f"  {event.cpu_time_total / 1000 / num_frames:7.2f} ms  {name.removeprefix(PREFIX)} ({event.count} times)")
