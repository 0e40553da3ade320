"""Models to use, written by the first process: the trained one, and milestones on the way to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from df_infer.run_dir import ADAPTER, RunDir, is_model
from df_models import DualForce
from df_models.files import sync
from df_models.text import PROMPT_FILE, Prompt, write_prompt
from df_train.adapter import write_adapter
from df_train.processes.distributed import World
from df_train.saving import state
from df_train.saving.state import Averaged, TrainState


def write_averaged(directory: Path, training: TrainState, averaged: Averaged, prompt: Prompt | None) -> None:
    """Write the averaged model of a run and, in `adapter/`, what alone was trained, if that is an adapter."""
    model, adapter = averaged
    if training.adapter is not None and adapter is not None:
        write_adapter(directory / ADAPTER, training.adapter, adapter)
    write_model(directory, model, prompt)  # last: a directory with a model in it is whole


def write_model(directory: Path, model: DualForce, prompt: Prompt | None) -> None:
    """Write a model, and beside it the prompt that it was trained with, if it reads text."""
    directory.mkdir(parents=True, exist_ok=True)
    if prompt is not None:
        write_prompt(directory / PROMPT_FILE, prompt)
    model.save_pretrained(directory)


class Milestones:
    """Exports the averaged model to `models/step-N/`: whole or absent, once."""

    def __init__(self, run: RunDir, prompt: Prompt | None, world: World) -> None:
        self._run, self._prompt, self._world = run, prompt, world

    def __call__(self, training: TrainState) -> None:
        """Export the present step, unless that was done; every process must call it."""
        final = self._run.milestone(training.step)
        if self._world.first_alone(lambda: is_model(final)):
            return
        averaged = state.averaged(training, self._world)
        self._world.first_alone(lambda: self._write(final, training, averaged))

    def _write(self, final: Path, training: TrainState, averaged: Averaged | None) -> None:
        assert averaged is not None, "the first process has it"
        for left in final.parent.glob("*.tmp"):  # by a process that was killed
            shutil.rmtree(left)
        part = final.with_name(final.name + ".tmp")
        write_averaged(part, training, averaged, self._prompt)
        shutil.rmtree(final, ignore_errors=True)  # one that somebody took files from
        os.rename(part, final)
        sync(final.parent)


def milestones_to_write(run: RunDir, milestones: tuple[int, ...], steps: int) -> int:
    """How many milestones a run of so many steps has still to export."""
    return sum(step <= steps and not is_model(run.milestone(step)) for step in milestones)
