"""How fast a run goes and what it takes, from one log line to the next.

Its figures are those under `time/` in `metrics.jsonl`: what may differ between two runs that are equal otherwise.
docs/training-speed.md says what each of them is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch

from df_data.reading import Batch
from df_models import DualForceConfig
from df_models.attention.masks import FrameLayout
from df_models.machine import data_sheet_rate, gpu_name, matmul_rate, peak_memory
from df_models.model.flops import training_flops, video_tokens
from df_models.time import SLOTS
from df_train.processes.distributed import World

_MEASURED_SECONDS = 0.3
"""For the device's own rate: a few products of large matrices, which agree to some per cent."""


class Work:
    """What training on a clip takes.

    Args:
        history: whether a copy of the clip goes through the layers before it (teacher forcing, error recycling).
        flame: whether the FLAME head is trained.
        frozen: an adapter is trained instead of the weights (:func:`df_models.model.flops.training_flops`).
        known: whether the model is told which entries of its structure are known.
        extra_forwards: passes forward beside the one that is learnt from; each is a third of that one's operations.
    """

    def __init__(
        self,
        model: DualForceConfig,
        *,
        history: bool,
        flame: bool,
        known: bool,
        frozen: bool = False,
        extra_forwards: float = 0.0,
    ) -> None:
        self._model = replace(model, structure_known=model.structure_known and known)
        self._history, self._flame, self._frozen, self._extra = history, flame, frozen, extra_forwards
        self._known: dict[tuple[int, ...], tuple[int, int]] = {}

    def of(self, batch: Batch) -> tuple[int, int]:
        """Tokens of both towers that go through the layers, and operations forward and backward."""
        frames, _, height, width = batch.video.shape[1:]
        features = batch.reference_tokens.shape[1] if self._model.reads_reference else 0
        shape = frames, height, width, features
        if shape not in self._known:
            self._known[shape] = self._of_clip(*shape)
        tokens, operations = self._known[shape]
        return len(batch) * tokens, len(batch) * operations

    def _of_clip(self, frames: int, height: int, width: int, features: int) -> tuple[int, int]:
        layout = FrameLayout.teacher_forcing(frames) if self._history else FrameLayout.clip(frames)
        tokens = video_tokens(self._model, height, width)
        operations = training_flops(
            self._model, layout, tokens, features=features, flame=self._flame, frozen=self._frozen
        )
        through = len(layout) * (tokens + SLOTS * self._model.has_structure)
        return through, round(operations * (1 + self._extra / 3))


@cache
def own_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that this device multiplies matrices with, measured once in a process.

    Its matrices are no part of what training takes: on CUDA they go back, and out of the peak.
    """
    rate = matmul_rate(device, dtype, seconds=_MEASURED_SECONDS)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return rate


@dataclass
class _Interval:
    """Sums of this process since the last log line; seconds of the wall clock."""

    began: float = field(default_factory=time.perf_counter)
    data: float = 0.0
    saves: float = 0.0
    elsewhere: float = 0.0
    steps: int = 0
    frames: int = 0
    tokens: int = 0
    operations: int = 0


class Speed:
    """Counts what a process does, and reads it as figures.

    Args:
        dtype: what the model computes in, and is compared with the device's rate in.
    """

    def __init__(self, work: Work, world: World, dtype: torch.dtype) -> None:
        self._work, self._world, self._dtype = work, world, dtype
        self._now = _Interval()
        self._lap_began, self._away = self._now.began, 0.0

    def begin(self) -> None:
        """Measure the device, in the first process, and start the clock."""
        if self._world.is_main:
            own_rate(self._world.device, self._dtype)
        self._now = _Interval()
        self._lap_began, self._away = self._now.began, 0.0

    def lap(self) -> float:
        """Seconds of the wall clock since the last call, or since `begin`, without those of saves and elsewhere."""
        now = time.perf_counter()
        passed = now - self._lap_began - self._away
        self._lap_began, self._away = now, 0.0
        return passed

    def count(self, batch: Batch) -> None:
        """Count a pass over a batch."""
        tokens, operations = self._work.of(batch)
        self._now.frames += len(batch) * batch.video.shape[1]
        self._now.tokens += tokens
        self._now.operations += operations

    def step(self) -> None:
        """Count an optimizer step."""
        self._now.steps += 1

    @contextmanager
    def spent(self, on: str) -> Iterator[None]:
        """Count the time inside: on `data`, on `saves`, or `elsewhere`, which is no part of the steps' time."""
        began = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            setattr(self._now, on, getattr(self._now, on) + passed)
            if on != "data":
                self._away += passed

    def read(self) -> dict[str, float]:
        """The figures since the last call."""
        past, self._now = self._now, _Interval()
        seconds = self._now.began - past.began - past.elsewhere
        return {
            "time/step_seconds": seconds / past.steps,
            "time/data_seconds": past.data / past.steps,
            "time/data_share": past.data / seconds,
            "time/save_seconds": past.saves / past.steps,
            "time/latent_frames_per_second": self._world.size * past.frames / seconds,
            "time/tokens_per_second": self._world.size * past.tokens / seconds,
            **self._rates(past.operations / seconds),
            **memory(self._world.device),
        }

    def _rates(self, rate: float) -> dict[str, float]:
        """One process's operations in a second, and what share they are of what its device can do."""
        rates = {"time/tflops_per_process": rate / 1e12}
        if self._world.is_main:
            rates["time/matmul_share"] = rate / own_rate(self._world.device, self._dtype)
        if self._world.device.type == "cuda" and (peak := data_sheet_rate(gpu_name(self._world.device))):
            rates["time/peak_share"] = rate / peak
        return rates


def memory(device: torch.device) -> dict[str, float]:
    """GiB: the most so far; on CUDA also what is held by tensors, and what torch has reserved."""
    held = {"peak": peak_memory(device)}
    if device.type == "cuda":
        held |= {"allocated": torch.cuda.memory_allocated(device), "reserved": torch.cuda.memory_reserved(device)}
    return {f"time/memory_{name}_gib": count / 2**30 for name, count in held.items()}
