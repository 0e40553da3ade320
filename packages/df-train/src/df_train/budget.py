"""A run within a time budget: how many clips and steps fit on this machine, decided as it goes and written down.

In order: the clips, by a trial before the corpus is made; the steps, after the first of them; the steps again at every
tenth of the run, if the machine has become slower or faster. Each change of the steps bends the learning rate's
schedule from there on, so that it always ends at its floor. What was chosen goes into the run's `config.yaml`, which
therefore repeats the run without a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from math import ceil

from df_models.errors import UserError
from df_models.settings import validate_config
from df_train.config import BudgetConfig, FlameLossConfig, ObjectiveConfig, TrainConfig
from df_train.processes.distributed import World

CORPUS_SHARE = 0.2
"""Of the budget, for making the corpus. Clips and steps both cost in proportion to the machine's slowness, so that a
share shows each clip equally often everywhere: about 8 times on slow cores, at most 15 (950 steps of 16 in 1000)."""

FIRST_FIT, WARM_UP = 8, 2
"""Steps after which the number of steps is first fitted, and how many of them do not count (memory is still being
allocated). Before the first log line of 10 steps, so that a run that does not fit leaves nothing behind."""

REFITS = 10
"""How often the steps are looked at again. They change when they are more than `_LATE` behind or `_EARLY` ahead."""
_LATE, _EARLY = 0.03, 0.10
_END_STEPS, _END_SECONDS = 8, 10.0
"""Held back for what follows the steps (checkpoint, export, samples, plot): as long as so many steps, and so many
seconds. Measured with the quickstart's three samples on two cores without AMX."""
_MARGIN = 0.03
"""Of the remaining time, held back for a machine that becomes slower."""
_FEWEST_STEPS = 40
"""Below so many a run teaches nothing worth waiting for."""


@dataclass
class Clock:
    """Seconds of a budget, from the start of the command."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left; negative when it is late."""
        return self.began + 60.0 * self.minutes - time.monotonic()


def fit_clips(config: TrainConfig, clock: Clock, say: Callable[[str], None]) -> Callable[[float], int]:
    """Return what the corpus asks: how many training clips fit into the budget's share, from the seconds of one.

    The validation clips come out of the same share. No fewer than four batches are made in any case.
    """
    synth = config.data.synth
    assert synth is not None

    def fit(seconds: float) -> int:
        held_out = synth.val_clips * synth.val_frames / synth.frames * seconds
        used = 60.0 * clock.minutes - clock.left
        share = CORPUS_SHARE * 60.0 * clock.minutes
        wanted = int((share - used - held_out) / seconds)
        clips = min(synth.clips, max(wanted, 4 * config.data.batch_size))
        say(
            f"time budget: a clip takes {seconds:.2f} s here, so {clips} of {synth.clips} training clips are made "
            f"(about {(clips * seconds + held_out) / 60:.1f} min)"
        )
        return clips

    return fit


class Pace:
    """Fits the number of steps to a clock while they are taken.

    Every process calls `after_step` after every step; the first process decides for all.

    Args:
        say: takes lines for the user.
        record: is given the configuration whenever it changes, to be written into the run.
    """

    def __init__(
        self,
        config: TrainConfig,
        clock: Clock,
        world: World,
        say: Callable[[str], None],
        record: Callable[[TrainConfig], None],
        *,
        step: int = 0,
    ) -> None:
        self._limit, self._clock, self._world, self._say, self._record = config.optim.steps, clock, world, say, record
        self._least = min(self._limit, max(_FEWEST_STEPS, config.optim.warmup + 1))
        self._first = step + min(FIRST_FIT, max(WARM_UP + 1, config.optim.steps // 2))
        self._counted_from = step + WARM_UP
        self._next = self._first
        self._since = time.monotonic()

    def after_step(self, config: TrainConfig, step: int) -> TrainConfig:
        """Return the configuration to go on with.

        Raises:
            UserError: not even the fewest steps fit.
        """
        if step == self._counted_from:
            self._since = time.monotonic()
        if step != self._next or step >= config.optim.steps:
            return config
        seconds = (time.monotonic() - self._since) / (step - self._counted_from)
        first = step == self._first
        total = self._world.first_alone(partial(self._total, step, config.optim.steps, seconds, first=first))
        if total < 0:
            raise UserError(self._too_short(config, step, seconds))
        if first:
            self._say(self._told(config, step, total, seconds))
        elif total != config.optim.steps:
            word = "slower" if total < config.optim.steps else "faster"
            self._say(
                f"time budget: the machine has become {word} ({seconds:.2f} s a step), so the schedule now ends at "
                f"step {total} instead of {config.optim.steps}"
            )
        changed = with_steps(config, step, total, limit=self._limit)
        if first or changed != config:
            self._record(changed)
        self._counted_from, self._since = step, time.monotonic()
        self._next = step + max(FIRST_FIT, ceil(total / REFITS))
        return changed

    def _total(self, step: int, planned: int, seconds: float, *, first: bool) -> int:
        """The number of steps to end at; -1 if that would be too few to begin with."""
        spare = self._clock.left * (1.0 - _MARGIN) - _END_SECONDS - _END_STEPS * seconds
        fitting = min(self._limit, step + int(spare / seconds))
        if first:
            return fitting if fitting >= self._least else -1
        if planned * (1.0 - _LATE) <= fitting <= planned * (1.0 + _EARLY):
            return planned
        # However late it is, the learning rate gets some steps to come down in.
        return min(self._limit, max(fitting, self._least, step + max(FIRST_FIT, ceil(0.1 * step))))

    def _told(self, config: TrainConfig, step: int, total: int, seconds: float) -> str:
        minutes = (total - step) * seconds / 60
        plan = f"time budget: a step takes {seconds:.2f} s here, so {total} of {self._limit} steps are taken"
        if total == self._limit:
            return f"{plan}: all of them, in about {minutes:.1f} min"
        return (
            f"{plan}, in about {minutes:.1f} min; more time teaches more: all would need about "
            f"budget.minutes={self._whole(config, step, seconds):.0f} in a new run (another run_dir and data.root)"
        )

    def _whole(self, config: TrainConfig, step: int, seconds: float) -> float:
        """Minutes that the full number of steps would need, and the corpus if it was cut short, with what is spent."""
        spent = 60.0 * self._clock.minutes - self._clock.left
        steps = (self._limit - step + _END_STEPS) * seconds + _END_SECONDS
        synth, full_clips = config.data.synth, config.budget.full_clips
        missing = 0.0 if synth is None or full_clips is None else full_clips / synth.clips - 1.0
        more = CORPUS_SHARE * 60.0 * self._clock.minutes * missing
        return ceil((spent + steps + more) / 60.0 / (1.0 - _MARGIN))

    def _too_short(self, config: TrainConfig, step: int, seconds: float) -> str:
        spent = 60.0 * self._clock.minutes - self._clock.left
        need = spent + ((self._least - step + _END_STEPS) * seconds + _END_SECONDS) / (1.0 - _MARGIN)
        return (
            f"budget.minutes={self._clock.minutes:g} is too short here: {spent / 60:.1f} min have gone by and a step "
            f"takes {seconds:.2f} s; {self._least} steps "
            f"need about budget.minutes={need / 60:.1f}; or say budget.minutes=null"
        )


def with_steps(config: TrainConfig, step: int, total: int, *, limit: int) -> TrainConfig:
    """Return the configuration with the schedule bent at `step` to end at `total`.

    During the warm-up nothing has followed the schedule yet, and no bend is written down.
    """
    optim, budget = config.optim, config.budget
    bends = optim.bends
    if total != optim.steps and step > optim.warmup:
        bends = (*bends, (step, optim.steps))
    changed = config.model_copy(
        update={
            "optim": optim.model_copy(update={"steps": total, "bends": bends}),
            "objective": config.objective.model_copy(update={"flame": _flame_bent(config, step, total)}),
            "budget": budget.model_copy(update={"measure": False, "full_steps": budget.full_steps or limit}),
        }
    )
    return _checked(changed)


def _flame_bent(config: TrainConfig, step: int, total: int) -> FlameLossConfig:
    """The FLAME loss with what is left of its weight's fall scaled as the steps that are left."""
    flame, steps = config.objective.flame, config.optim.steps
    if total == steps or step >= flame.decay_steps:
        return flame
    left = max(1, round((flame.decay_steps - step) * (total - step) / (steps - step)))
    bends = (*flame.bends, (step, flame.decay_steps))
    return flame.model_copy(update={"decay_steps": step + left, "bends": bends})


def _checked(config: TrainConfig) -> TrainConfig:
    """The configuration, if it can be read back; `model_copy` checks nothing.

    Raises:
        UserError: it cannot.
    """
    validate_config(TrainConfig, config.model_dump(mode="json"), "with the time budget's choice", recorded=True)
    return config


def with_clips(config: TrainConfig, clips: int) -> TrainConfig:
    """Return the configuration with as many training clips as were made."""
    synth = config.data.synth
    assert synth is not None
    if clips == synth.clips:
        return config
    data = config.data.model_copy(update={"synth": synth.model_copy(update={"clips": clips})})
    budget = config.budget.model_copy(update={"full_clips": config.budget.full_clips or synth.clips})
    return config.model_copy(update={"data": data, "budget": budget})


def as_chosen(config: TrainConfig, earlier: TrainConfig, said: Collection[str] = ()) -> TrainConfig:
    """Return the configuration of a run that goes on, with what its budget chose when it began.

    Steps or clips that the user has changed since are the user's. Without a choice (the run was stopped before the
    first fit, or has no budget) nothing changes.

    Args:
        said: settings that the command line names (`optim.steps`); they are the user's whatever their value.

    Raises:
        UserError: what was chosen does not go with what the user has changed.
    """
    kept = earlier.budget
    if config.budget.minutes is None or kept.minutes is None:
        return config
    changes: dict[str, object] = {}
    if not kept.measure:
        changes["budget"] = kept.model_copy(update={"minutes": config.budget.minutes})
        if config.optim.steps == kept.full_steps and "optim.steps" not in said:
            chosen = {"steps": earlier.optim.steps, "bends": earlier.optim.bends}
            changes["optim"] = config.optim.model_copy(update=chosen)
            changes["objective"] = _flame_kept(config, earlier)
    config = _checked(config.model_copy(update=changes))
    synth, there = config.data.synth, earlier.data.synth
    if synth is None or there is None or synth.clips != kept.full_clips or "data.synth.clips" in said:
        return config
    return with_clips(config, there.clips)


def _flame_kept(config: TrainConfig, earlier: TrainConfig) -> ObjectiveConfig:
    """The objective with the fall of the FLAME weight as it was fitted, unless the user has changed it since."""
    flame, fitted = config.objective.flame, earlier.objective.flame
    if not fitted.bends or flame.decay_steps != fitted.bends[0][1]:
        return config.objective
    chosen = {"decay_steps": fitted.decay_steps, "bends": fitted.bends}
    return config.objective.model_copy(update={"flame": flame.model_copy(update=chosen)})


def wants_clock(budget: BudgetConfig) -> bool:
    """Whether something is still to be measured."""
    return budget.minutes is not None and budget.measure
