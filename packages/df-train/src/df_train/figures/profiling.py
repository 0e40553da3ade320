"""Some steps under torch's profiler: a Chrome trace of each process, and on CUDA a snapshot of the allocator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from df_models.files import atomic_path
from df_train.config import ProfileConfig
from df_train.processes.distributed import World

_MOST_EVENTS = 100_000
"""Of the allocator, the newest: some steps of a large model, in a file of tens of megabytes."""


class Profiler:
    """Profiles the steps that a configuration names, once they come; a run that is resumed after them profiles none.

    Args:
        directory: where to write; made when there is something to be written.
    """

    def __init__(self, config: ProfileConfig | None, directory: Path, world: World) -> None:
        self._steps = range(0) if config is None else range(config.start, config.start + config.steps)
        self._directory, self._world = directory, world
        self._running: profile | None = None

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Take a step, the `step`-th of the run, under the profiler if that is asked for."""
        if self._steps and step == self._steps.start:
            self._begin()
        if self._running is None:
            yield
            return
        with record_function(f"step {step}"):
            yield
        if step == self._steps[-1]:
            self.close()

    def close(self) -> None:
        """Write what was seen, if the profiler is running; also where the run ends before the last step asked for."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.stop()
        self._directory.mkdir(parents=True, exist_ok=True)
        trace = self._directory / f"trace-{self._world.rank}.json"
        with atomic_path(trace) as temporary:
            running.export_chrome_trace(str(temporary))
        if self._world.is_main:
            tqdm.write(f"the profile is written: {trace} (open it in https://ui.perfetto.dev)")
        if self._on_cuda:
            with atomic_path(self._directory / f"memory-{self._world.rank}.pickle") as temporary:
                torch.cuda.memory._dump_snapshot(str(temporary))
            torch.cuda.memory._record_memory_history(enabled=None)

    def _begin(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self._on_cuda:
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history(max_entries=_MOST_EVENTS)
        self._running = profile(activities=activities, record_shapes=True)
        self._running.start()

    @property
    def _on_cuda(self) -> bool:
        return self._world.device.type == "cuda"
