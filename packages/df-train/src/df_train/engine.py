"""The training loop: steps, logging, checkpoints, samples, and the reasons to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum
from types import FrameType

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from df_data.reading import Batch
from df_infer.run_dir import RunDir
from df_train import checkpoint, state
from df_train.budget import Pace
from df_train.config import TrainConfig
from df_train.dataset import skipped_samples
from df_train.distributed import World
from df_train.metrics import Sink
from df_train.objective import Objective
from df_train.schedule import ema_decay, learning_rate
from df_train.sharding import set_gradient_sync
from df_train.state import TrainState


class Stop(Enum):
    """Why training ended."""

    DONE = "all steps taken"
    TIME = "the time limit was reached"
    INTERRUPTED = "interrupted"


class NotFinite(RuntimeError):
    """The loss or the gradient is no longer a number."""


@dataclass
class Interrupts:
    """Remembers Ctrl-C and SIGTERM until the step is over."""

    seen: bool = False
    ctrl_c: bool = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Only a second Ctrl-C is a wish to stop at once: launchers send SIGTERM after the first."""
        if signum == signal.SIGINT:
            if self.ctrl_c:
                raise KeyboardInterrupt
            self.ctrl_c = True
        self.seen = True

    @contextmanager
    def watch(self) -> Iterator[Interrupts]:
        """Take over the two signals; a second Ctrl-C interrupts at once."""
        old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


@dataclass
class Timing:
    """Wall-clock seconds since the last log line.

    Attributes:
        data: seconds of them that were spent waiting for the reader.
        steps, frames: taken in them; latent frames of all clips of this process.
    """

    data: float = 0.0
    steps: int = 0
    frames: int = 0
    started: float = field(default_factory=time.perf_counter)


class Trainer:
    """Runs a state forward under a configuration.

    Args:
        sinks: take the figures; only the first process has any.
        sample: called with the state by every process when samples are due.
        pace: fits the number of steps to a time budget while they are taken.
        validate: measures held-out clips, by the figures' names; called by every process when that is due.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: TrainState,
        objective: Objective,
        world: World,
        sinks: list[Sink],
        sample: Callable[[TrainState], None],
        pace: Pace | None = None,
        validate: Callable[[TrainState], Mapping[str, float]] | None = None,
    ) -> None:
        self.config, self.state, self.objective, self.world = config, training, objective, world
        self._sinks, self._sample, self._pace = sinks, sample, pace
        self._validate = validate
        self._batches = iter(training.reader)
        self._timing = Timing()
        self._norm: Tensor | None = None
        self._saved_at = self._validated_at = -1

    # ------------------------------------------------------------------------------------------------------ the loop

    def fit(self) -> Stop:
        """Train until all steps are taken, the time limit is reached or an interrupt comes; always saves at the end.

        Raises:
            NotFinite: the loss or gradient is no longer a number; nothing is saved then.
        """
        total, taken = self.config.optim.steps, self.state.step
        bar = tqdm(
            total=total, initial=taken, desc="training", unit="step", disable=not self.world.is_main, smoothing=0.05
        )
        with Interrupts().watch() as interrupts, bar:
            self._timing = Timing()
            stop = Stop.DONE
            while self.state.step < self.config.optim.steps:
                started = time.perf_counter()
                self.step()
                self.state.seconds += time.perf_counter() - started
                bar.update()
                if self._pace is not None:
                    self.config = self._pace.after_step(self.config, self.state.step)
                    self.objective.follow(self.config.objective)
                    bar.total = self.config.optim.steps
                self._after_step(bar)
                reason = self._should_stop(interrupts)
                if reason:
                    stop = reason
                    break
            if stop is not Stop.INTERRUPTED and self.state.step > taken:
                self.validate()
        self.save()
        return stop

    def _after_step(self, bar: tqdm) -> None:
        step, config = self.state.step, self.config
        last = step == config.optim.steps
        if step % config.log.every == 0 or last:
            bar.set_postfix(loss=f"{self.log():.4f}", refresh=False)
        if config.validation.every and step % config.validation.every == 0:
            self.validate()
        if step % config.checkpoint.every == 0 and not last:
            self.save()
        if config.sample.every and step % config.sample.every == 0 and not last:
            self._sample(self.state)
            self._timing = Timing()

    def _should_stop(self, interrupts: Interrupts) -> Stop | None:
        """Processes agree only on log steps, so that other steps need not wait for each other."""
        limit = self.config.max_minutes
        late = limit is not None and self.state.seconds > 60.0 * limit
        if self.world.size > 1:
            if self.state.step % self.config.log.every:
                return None
            late, seen = self.world.any(late), self.world.any(interrupts.seen)
        else:
            seen = interrupts.seen
        if self.state.step >= self.config.optim.steps:
            return None
        return Stop.INTERRUPTED if seen else Stop.TIME if late else None

    # ------------------------------------------------------------------------------------------------------ one step

    def step(self) -> None:
        """One optimizer step over `data.accumulate` passes."""
        training, optim = self.state, self.config.optim
        passes = self.config.data.accumulate
        for index in range(passes):
            batch = self._next_batch()
            if passes > 1:
                set_gradient_sync(training.model, index == passes - 1)
            losses = self.objective(training.model, batch, training.step, training.banks)
            (losses.total / passes).backward()
            self.state.meter.add(losses.terms, losses.total)
            self.state.lengths.add(batch.video.shape[1])
            self._timing.frames += len(batch) * batch.video.shape[1]
        norm = torch.nn.utils.clip_grad_norm_(training.model.parameters(), optim.clip)
        self._norm = norm
        rate = self._rate(training.step)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        training.optimizer.step()
        training.optimizer.zero_grad()
        training.average.update(ema_decay(training.step, decay=self.config.ema.decay))
        training.step += 1
        self._timing.steps += 1

    def _rate(self, step: int) -> float:
        optim = self.config.optim
        return learning_rate(
            step, peak=optim.lr, warmup=optim.warmup, total=optim.steps, floor=optim.floor, bends=optim.bends
        )

    def _next_batch(self) -> Batch:
        started = time.perf_counter()
        batch = next(self._batches)
        self._timing.data += time.perf_counter() - started  # a copy to a GPU waits for the step before
        return batch.to(self.world.device)

    # ------------------------------------------------------------------------------------------------ logging, saving

    def log(self) -> float:
        """Write the figures since the last log line; return the loss."""
        step, config = self.state.step, self.config
        values = self.state.meter.read(self.world)
        values["grad_norm"] = self._read_norm()
        self._require_finite(values)
        values["lr"] = self._rate(step - 1)
        values["data/latent_frames"] = self.state.lengths.read()
        if config.data.on_error == "skip":
            values["data/skipped"] = float(sum(skipped_samples(self.state.reader, self.world).values()))
        values |= self._speed()
        for sink in self._sinks:
            sink.write(step, values)
        return values["loss"]

    def _read_norm(self) -> float:
        if self._norm is None:
            return 0.0
        norm = self._norm.full_tensor() if isinstance(self._norm, DTensor) else self._norm
        return norm.item()

    def _require_finite(self, values: Mapping[str, float]) -> None:
        """A state that is no longer made of numbers is neither logged nor saved."""
        if not all(math.isfinite(value) for value in values.values()):
            raise NotFinite(
                f"the loss or gradient is not finite at step {self.state.step}; resume from the last checkpoint with "
                f"a lower optim.lr (now {self.config.optim.lr})"
            )

    def _speed(self) -> dict[str, float]:
        timing, self._timing = self._timing, Timing()
        elapsed = self._timing.started - timing.started
        return {
            "time/step_seconds": elapsed / timing.steps,
            "time/data_seconds": timing.data / timing.steps,
            "time/data_share": timing.data / elapsed,
            "time/latent_frames_per_second": self.world.size * timing.frames / elapsed,
            "time/minutes": self.state.seconds / 60.0,
        }

    def validate(self) -> None:
        """Measure the held-out clips at the present step, unless that was just done, and write the figures."""
        step = self.state.step
        if self._validate is None or step == self._validated_at:
            return
        began = time.perf_counter()
        values = self._validate(self.state)
        self._require_finite(values)
        for sink in self._sinks:
            sink.write(step, values)
        self._validated_at = step
        self._timing.started += time.perf_counter() - began

    def save(self) -> None:
        """Write a checkpoint of the present step, unless it was just written."""
        step = self.state.step
        if step == self._saved_at:
            return
        self._require_finite({"grad_norm": self._read_norm()})
        root = RunDir(self.config.directory).checkpoints
        shared = {"seconds": self.state.seconds, "model": asdict(self.state.model.config)}
        checkpoint.save(root, step, state.tensors_of(self.state), state.own_state(self.state), shared, self.world)
        if self.world.is_main:
            checkpoint.prune(root, self.config.checkpoint.keep)
        self._saved_at = step
