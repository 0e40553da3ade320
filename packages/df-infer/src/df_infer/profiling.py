"""Where the time of a generation goes, by stages, from PyTorch's profiler.

The stages mark themselves (``record_function``): hearing, denoising and writing into the cache (each call of the
model), decoding. What is left is everything else, the writing of the video among it. On a GPU a stage's time is the
longer of host's and device's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from df_models.files import atomic_path

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
    with atomic_path(path) as temporary:
        watch.export_chrome_trace(str(temporary))
    found = {event.key: event for event in watch.key_averages() if event.key.startswith(PREFIX)}
    tell(f"of a pixel frame's 40 ms, over {num_frames} frames (watched, so slower than alone):")
    spent = {name: max(event.cpu_time_total, event.device_time_total) for name, event in found.items()}
    for name in sorted(spent, key=lambda each: -spent[each]):
        stage, count = name.removeprefix(PREFIX), found[name].count
        tell(f"  {spent[name] / 1000 / num_frames:7.2f} ms  {stage} ({count} times)")
