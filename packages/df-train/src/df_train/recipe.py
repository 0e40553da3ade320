"""What the small recipes (`task: tokenizer`, `task: sync`) share: one process, a loop, a run directory that goes on.

The model's engine (`df_train.engine`) does more than they need: sharding, histories, samples, a time budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from df_infer.run_dir import RunDir
from df_infer.run_log import RunLog
from df_models.cli_support import Terminated
from df_models.errors import UserError
from df_train.config import ResumeConfig
from df_train.engine import Interrupts
from df_train.processes.distributed import World
from df_train.saving import checkpoint


class Counted(Protocol):
    """A state that knows how many steps were taken."""

    step: int


@dataclass(frozen=True)
class Rhythm:
    """How long a recipe runs, and when it logs, measures and saves; in steps."""

    name: str
    total: int
    log_every: int
    eval_every: int
    checkpoint: ResumeConfig


def fit(
    state: Counted,
    rhythm: Rhythm,
    run: RunDir,
    log: RunLog,
    world: World,
    *,
    step: Callable[[], Mapping[str, Any]],
    check: Callable[[], None],
    look: Callable[[], None],
    save: Callable[[], tuple[dict[str, Any], checkpoint.RankState]],
) -> None:
    """Take all steps that are left; after an interrupt, save and raise.

    Args:
        step: takes one and returns its figures (numbers or tensors of one).
        check: raises if the state is not to be exported or saved.
        look: measures and exports.
        save: the tensors for DCP, and what else the state is made of.

    Raises:
        KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGUSR1, with a checkpoint saved.
    """
    bar = tqdm(total=rhythm.total, initial=state.step, desc=rhythm.name, unit="step")
    with Interrupts().watch() as interrupts, bar:
        while state.step < rhythm.total:
            figures = step()
            bar.update()
            last = state.step == rhythm.total
            if state.step % rhythm.log_every == 0:
                values = {name: float(value) for name, value in figures.items()}
                bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
                log.write(state.step, values)
            looks = state.step % rhythm.eval_every == 0 or last
            saves = state.step % rhythm.checkpoint.every == 0 or last or interrupts.reason
            if looks or saves:
                check()
            if looks:
                look()
            if saves:
                tensors, own = save()
                checkpoint.save(run.checkpoints, state.step, tensors, own, {}, world, rhythm.checkpoint.keep)
            if interrupts.reason and not last:
                tqdm.write(f"checkpoint saved in {run.checkpoints}; the same command continues the run")
                raise KeyboardInterrupt if interrupts.ctrl_c else Terminated


def choose_start(run: RunDir, rhythm: Rhythm, wish: str) -> checkpoint.CheckpointInfo | None:
    """The checkpoint to continue from, or None to start at step 0.

    Args:
        wish: `df_train.saving.start.Wish`.

    Raises:
        UserError: the run is finished, or there is nothing to resume.
    """
    if wish == "fresh":
        return None
    found = checkpoint.newest(run.checkpoints, tqdm.write)
    _refuse(run, rhythm, wish, found)
    return found


def check_start(run: RunDir, rhythm: Rhythm, wish: str) -> None:
    """Refuse what :func:`choose_start` will refuse, as far as can be told without checking the checkpoints' files.

    Raises:
        UserError: as there.
    """
    if wish != "fresh":
        _refuse(run, rhythm, wish, checkpoint.newest_info(run.checkpoints))


def _refuse(run: RunDir, rhythm: Rhythm, wish: str, found: checkpoint.CheckpointInfo | None) -> None:
    if wish == "default" and rhythm.checkpoint.resume == "never" and run.config.is_file():
        raise UserError(f"{run.root} holds a run and checkpoint.resume is never; say --fresh, or another run_dir=")
    if found is None and wish == "resume":
        raise UserError(f"nothing to resume: {run.checkpoints} holds no checkpoint; leave out --resume")
    if found is not None and found.step >= rhythm.total:
        raise UserError(f"{run.root} holds a finished run; say --fresh to train it anew, or --resume with more steps")


def alone(world: World, what: str) -> None:
    """Refuse several processes.

    Raises:
        UserError: there are.
    """
    if world.size > 1:
        raise UserError(f"the {what} trains in one process; leave torchrun or accelerate launch away")


def owned_names(product: Path | str) -> tuple[str, ...]:
    """What a recipe may write over in its run directory."""
    return "config.yaml", "metrics.jsonl", "checkpoints", str(product)
