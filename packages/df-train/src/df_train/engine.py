"""The training loop: steps, logging, checkpoints, samples, and the reasons to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from types import FrameType

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from tqdm import tqdm

from df_data.reading import Batch
from df_infer.run_dir import RunDir
from df_models.machine import choose_precision
from df_train.adapter import seed_dropout
from df_train.budget import Pace
from df_train.config import TrainConfig
from df_train.data.dataset import skipped_samples
from df_train.figures.metrics import Sink
from df_train.figures.profiling import Profiler
from df_train.figures.speed import Speed, Work
from df_train.objective import Objective, Record
from df_train.processes.agreement import Agreement
from df_train.processes.allocator import give_back_memory
from df_train.processes.distributed import World
from df_train.processes.sharding import set_gradient_sync
from df_train.processes.watch import Watch
from df_train.saving import state
from df_train.saving.saves import Saves
from df_train.saving.state import TrainState
from df_train.schedule import ema_decay, learning_rate


class Stop(Enum):
    """Why training ended."""

    DONE = "all steps taken"
    TIME = "the time limit was reached"
    TOLD = "told to stop by a scheduler"
    INTERRUPTED = "interrupted"

    @property
    def goes_on(self) -> bool:
        """Whether the run is not over: a checkpoint is saved, and the same command continues it."""
        return self in (Stop.TOLD, Stop.INTERRUPTED)


_REASONS = (None, Stop.TIME, Stop.TOLD, Stop.INTERRUPTED)
"""To stop before all steps are taken, the weightiest last: of several processes the weightiest reason counts."""


_AGAIN_SECONDS = 0.3
"""One Ctrl-C may come twice within milliseconds, from the terminal and forwarded by `uv run`; a hand takes longer."""


class NotFinite(RuntimeError):
    """The loss, the gradient or the weights are no longer numbers."""


@dataclass
class Interrupts:
    """Remembers Ctrl-C, and a scheduler's SIGTERM or SIGUSR1, until the step is over.

    Slurm sends SIGTERM when it preempts a job or its time is up, and SIGUSR1 before that if told `--signal=USR1@120`.
    """

    ctrl_c: bool = False
    told: bool = False
    _first: float = 0.0

    @property
    def reason(self) -> Stop | None:
        """To stop; None if no signal came."""
        return Stop.INTERRUPTED if self.ctrl_c else Stop.TOLD if self.told else None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        """Only a second Ctrl-C is a wish to stop at once: launchers send SIGTERM after the first."""
        if signum != signal.SIGINT:
            self.told = True
        elif not self.ctrl_c:
            self.ctrl_c, self._first = True, time.monotonic()
        elif time.monotonic() - self._first >= _AGAIN_SECONDS:
            raise KeyboardInterrupt

    @contextmanager
    def watch(self) -> Iterator[Interrupts]:
        """Take over the signals; a second Ctrl-C interrupts at once."""
        signals = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
        old = {number: signal.signal(number, self._note) for number in signals}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class Trainer:
    """Runs a state forward under a configuration.

    Args:
        sinks: take the figures; only the first process has any.
        sample: called with the state by every process when samples are due.
        pace: fits the number of steps to a time budget while they are taken.
        milestone: called with the state by every process at `checkpoint.milestones`, after a checkpoint.
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
        milestone: Callable[[TrainState], None] = lambda training: None,
        validate: Callable[[TrainState], Mapping[str, float]] | None = None,
    ) -> None:
        self.config, self.state, self.objective, self.world = config, training, objective, world
        self._sinks, self._sample, self._pace = sinks, sample, pace
        self._milestone, self._validate = milestone, validate
        self._batches = iter(training.reader)
        work = Work(
            training.model.config,
            history=objective.shows_history,
            flame="flame" in objective.names,
            known=config.objective.give_fields.share > 0,
            extra_forwards=objective.extra_forwards,
            frozen=training.adapter is not None,
        )
        self._speed = Speed(work, world, choose_precision(config.precision.name, world.device).dtype)
        self._profiler = Profiler(config.profile, RunDir(config.directory).profile, world)
        self._saves = Saves(RunDir(config.directory).checkpoints, config.checkpoint, world)
        self._watch = Watch(config.hang_minutes)
        self._agreed = Agreement(world)
        self._norm: Tensor | None = None
        self._validated_at = -1
        self._saved_at = training.step  # the checkpoint that a run goes on from is there; nobody wants one of step 0

    # ------------------------------------------------------------------------------------------------------ the loop

    def fit(self) -> Stop:
        """Train until all steps are taken, the time limit is reached or an interrupt comes; always saves at the end.

        Raises:
            NotFinite: the loss or gradient is no longer a number; nothing is saved then.
            MachineError, UserError: a checkpoint could not be written.
        """
        with Interrupts().watch() as interrupts, self._saves, self._watch:
            stop = self._fit(interrupts)
            self.save()
            self._saves.finish()
        return stop

    def _fit(self, interrupts: Interrupts) -> Stop:
        total, taken = self.config.optim.steps, self.state.step
        bar = tqdm(
            total=total, initial=taken, desc="training", unit="step", disable=not self.world.is_main, smoothing=0.05
        )
        with bar, closing(self._profiler):
            if taken in self.config.checkpoint.milestones:  # stopped between its checkpoint and its export
                self._milestone(self.state)
            self._speed.begin()
            stop = Stop.DONE
            while self.state.step < self.config.optim.steps:
                with self._profiler.around(self.state.step + 1):
                    self.step()
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
            if not stop.goes_on and self.state.step > taken:
                self.validate()
        return stop

    def _after_step(self, bar: tqdm) -> None:
        self._saves.check()
        step, config = self.state.step, self.config
        last = step == config.optim.steps
        if step % config.log.every == 0 or last:
            bar.set_postfix(loss=f"{self.log():.4f}", refresh=False)
        if config.validation.every and step % config.validation.every == 0:
            self.validate()
        if step % config.checkpoint.every == 0 and not last:
            self.save()
        if step in config.checkpoint.milestones:  # with a checkpoint first: who resumes never takes this step again
            if last:  # nor measures it again
                self.validate()
            self.save()
            with self._spent("saves"):
                self._saves.finish()
                self._milestone(self.state)
        if config.sample.every and step % config.sample.every == 0 and not last:
            self._settle()
            with self._elsewhere():
                self._sample(self.state)

    def _should_stop(self, interrupts: Interrupts) -> Stop | None:
        """The weightiest reason of all processes; of several, a step after one of them has it (`Agreement`)."""
        self.state.seconds += self._speed.lap()
        reason = interrupts.reason or (Stop.TIME if self._late else None)
        reason = _REASONS[self._agreed(_REASONS.index(reason))]
        return reason if self.state.step < self.config.optim.steps else None

    @property
    def _late(self) -> bool:
        limit = self.config.max_minutes
        return limit is not None and self.state.seconds > 60.0 * limit

    # ------------------------------------------------------------------------------------------------------ one step

    def step(self) -> None:
        """One optimizer step over `data.accumulate` passes."""
        training, optim = self.state, self.config.optim
        self._watch.step = training.step + 1
        passes = self.config.data.accumulate
        sums, keys, records = training.meter.sums_LK2.clone(), list[str](), list[Record]()
        seed_dropout(self.config, training.step)
        for index in range(passes):
            batch = self._next_batch()
            keys += batch.keys
            if passes > 1:
                set_gradient_sync(training.model, index == passes - 1)
            losses = self.objective(training.model, batch, training.step, training.banks)
            (losses.total / passes).backward()
            records += [] if losses.record is None else [losses.record]
            self.state.meter.add(losses.terms, losses.total)
            self.state.lengths.add(batch.video.shape[1])
            self._speed.count(batch)
        self._norm = _whole(clip_grad_norm_(training.model.parameters(), optim.clip))
        rate = self._rate(training.step)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        skip = training.skips.note(self._norm, training.step + 1, keys)
        training.skips.take(
            skip, training.optimizer, training.average, ema_decay(training.step, decay=self.config.ema.decay)
        )
        training.meter.restore(sums, where=skip)
        for record in records:
            record(skip)
        training.optimizer.zero_grad()
        training.step += 1
        self._speed.step()
        if training.skips.waits:
            self._look_at_skips()

    def _look_at_skips(self) -> int:
        """The number of steps skipped so far; every process must call it.

        Raises:
            NotFinite: too many in a row.
        """
        counts, most = self.state.skips.look(), self.config.optim.max_skips
        if counts.longest <= most:
            return counts.total
        keys = self.world.each(self.state.skips.keys_of(counts.last))
        clips = "; ".join(f"process {rank}: {', '.join(mine)}" for rank, mine in enumerate(keys))
        raise NotFinite(
            f"the gradient was not finite in {counts.longest} steps in a row (optim.max_skips={most}), the last of "
            f"them step {counts.last}, on the clips of {clips}; look at these, or resume from the last checkpoint with "
            f"a lower optim.lr (now {self.config.optim.lr})"
        )

    def _rate(self, step: int) -> float:
        optim = self.config.optim
        return learning_rate(
            step, peak=optim.lr, warmup=optim.warmup, total=optim.steps, floor=optim.floor, bends=optim.bends
        )

    def _next_batch(self) -> Batch:
        with self._spent("data"):  # without the copy to a GPU, which waits for the step before
            batch = next(self._batches)
        return batch.to(self.world.device)

    @contextmanager
    def _spent(self, on: str) -> Iterator[None]:
        """Count the time inside, and let the watch know what this process is doing."""
        with self._speed.spent(on), self._watch.during(on):
            yield

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Count the time of what is no step, and keep none of the memory that it took."""
        with self._spent("elsewhere"):
            yield
            if self.world.device.type == "cpu":
                give_back_memory()

    # ------------------------------------------------------------------------------------------------ logging, saving

    def log(self) -> float:
        """Write the figures since the last log line; return the loss, NaN if every step was skipped."""
        step, config = self.state.step, self.config
        values = self.state.meter.read(self.world)
        values["optim/skipped"] = float(self._look_at_skips())
        self.state.seconds += self._speed.lap()
        norm = self._norm.item() if self._norm is not None else 0.0
        if math.isfinite(norm):
            values["grad_norm"] = norm
        self._require_finite(values)
        values["lr"] = self._rate(step - 1)
        values["data/latent_frames"] = self.state.lengths.read()
        if config.data.on_error == "skip":
            values["data/skipped"] = float(sum(skipped_samples(self.state.reader, self.world).values()))
        values |= {"time/minutes": self.state.seconds / 60.0, **self._speed.read()}
        for sink in self._sinks:
            sink.write(step, values)
        return values.get("loss", math.nan)

    def _require_finite(self, values: Mapping[str, float]) -> None:
        """A state that is no longer made of numbers is neither logged nor saved."""
        if not all(math.isfinite(value) for value in values.values()):
            raise NotFinite(
                f"a loss or the weights are not finite at step {self.state.step}; resume from the last checkpoint with "
                f"a lower optim.lr (now {self.config.optim.lr})"
            )

    def validate(self) -> None:
        """Measure the held-out clips at the present step, unless that was just done, and write the figures."""
        step = self.state.step
        if self._validate is None or step == self._validated_at:
            return
        self._settle()
        with self._elsewhere():
            values = self._validate(self.state)
        self._require_finite(values)
        for sink in self._sinks:
            sink.write(step, values)
        self._validated_at = step

    def save(self) -> None:
        """Write a checkpoint of the present step, or begin to (`df_train.saving.saves`), unless that was just done."""
        if self.state.step != self._saved_at:
            self._settle()
            with self._spent("saves"):
                self._save()

    def _settle(self) -> None:
        """Wait for the steps that a GPU has still to do, so that their time counts as training and as nothing else."""
        self._look_at_skips()
        self.state.seconds += self._speed.lap()

    def _save(self) -> None:
        step = self.state.step
        self._require_finite({"weights": _whole(get_total_norm(self.state.model.parameters())).item()})
        shared = {
            "seconds": self.state.seconds,
            "model": asdict(self.state.model.config),
            "frozen": self.objective.frozen,
            "adapter_base": None if self.state.adapter is None else self.state.adapter.base_sha256,
            "skips": self.state.skips.state_dict(),
        }
        self._saves.save(step, state.tensors_of(self.state), state.own_state(self.state), shared)
        self._saved_at = step


def _whole(value: Tensor) -> Tensor:
    """A sharded result, gathered."""
    return value.full_tensor() if isinstance(value, DTensor) else value
