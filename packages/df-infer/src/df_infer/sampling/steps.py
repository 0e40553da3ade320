"""Chunks as generators that ask for the model's steps, one after the other: run alone, or several in step.

Whoever makes a chunk yields each step that it needs of a model and is sent the velocities. So nothing of a chunk knows
whether its steps are made alone or in a batch with those of others, and each may have its own number of steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch.profiler import record_function

from df_models import DualForce
from df_models.model.dualforce import Velocity
from df_models.model.together import StepCall, StepsTogether

T = TypeVar("T")


class Asked(NamedTuple):
    """A step that is needed next."""

    model: DualForce
    call: StepCall

    @property
    def stage(self) -> str:
        """Name of the stage for :mod:`df_infer.profiling`."""
        return "df: write into the cache" if self.call.write else "df: denoise"


Steps: TypeAlias = Generator[Asked, Velocity, T]
"""What makes something of type T by steps."""


def alone(steps: Steps[T]) -> T:
    """Make all steps one by one; return what comes of them."""
    resume: Callable[[Any], Asked] = steps.send
    answer: Any = None
    with contextlib.closing(steps):
        while True:
            try:
                asked = resume(answer)
            except StopIteration as done:
                return done.value
            try:
                with evaluating(asked.model), record_function(asked.stage):
                    answer, resume = asked.model.step(**asked.call._asdict()), steps.send
            except Exception as error:
                answer, resume = error, steps.throw


def together(every: Sequence[Steps[T]]) -> Iterator[tuple[int, T | Exception]]:
    """Run several in step: what they ask for at a time is made in as few batches as there can be.

    Yields:
        The place of each and what came of it, or the exception that ended it, as soon as it is done; one that fails
        fails alone.
    """
    asked: dict[int, Asked] = {}
    ended: list[tuple[int, T | Exception]] = []
    makers: dict[int, StepsTogether] = {}

    def go_on(place: int, resume: Callable[[Any], Asked], answer: Any) -> None:
        try:
            asked[place] = resume(answer)
        except StopIteration as done:
            ended.append((place, done.value))
        except Exception as error:
            ended.append((place, error))

    try:
        for place, steps in enumerate(every):
            go_on(place, steps.send, None)
        while asked or ended:
            yield from ended
            now = asked.copy()
            ended.clear()
            asked.clear()
            for place, answer in _answered(now, makers).items():
                go_on(place, every[place].throw if isinstance(answer, Exception) else every[place].send, answer)
    finally:
        for steps in every:
            steps.close()


def _answered(asked: dict[int, Asked], makers: dict[int, StepsTogether]) -> dict[int, Velocity | Exception]:
    """Make the steps that are asked for, each model's together."""
    models = {id(step.model): step.model for step in asked.values()}
    answers: dict[int, Velocity | Exception] = {}
    for key, model in models.items():
        maker = makers.setdefault(key, StepsTogether(model))
        places = [place for place, step in asked.items() if step.model is model]
        with evaluating(model), record_function(asked[places[0]].stage):
            answers |= zip(places, maker.step([asked[place].call for place in places]), strict=True)
    return answers


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Have a model in eval mode; its mode is put back."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
