"""Chunks as generators that ask for the model's steps, one after the other: run alone, or several in step.

Whoever makes a chunk yields each step that it needs of a model, then what is to be decoded, and is sent the results. So
nothing of a chunk knows whether it is made alone or in a batch with others, and each may have its own number of steps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch import Tensor
from torch.profiler import record_function

from df_models import DualForce
from df_models.encoders import DecoderSession, VideoVAE
from df_models.encoders.video.together import decode_together
from df_models.model.dualforce import Velocity
from df_models.model.together import StepCall, StepsTogether

T = TypeVar("T")


class Asked(NamedTuple):
    """A step of a model that is needed next; its answer is the velocity."""

    model: DualForce
    call: StepCall

    @property
    def stage(self) -> str:
        """Name of the stage for :mod:`df_infer.profiling`."""
        return "df: write into the cache" if self.call.write else "df: denoise"

    def alone(self) -> Velocity:
        """Make it by itself."""
        with evaluating(self.model):
            return self.model.step(**self.call._asdict())


class Decoding(NamedTuple):
    """Latent frames of a stream that are to be decoded next; the answer is their pixels."""

    vae: VideoVAE
    stream: DecoderSession
    latents_BTChw: Tensor
    stage: str = "df: decode"

    def alone(self) -> Tensor:
        """Decode them by themselves."""
        return self.stream.decode(self.latents_BTChw)


class HeldUp(NamedTuple):
    """Another thread is at work on what a chunk needs: it asks again when that may be over."""

    lock: threading.Lock
    stage: str = "df: wait"

    def alone(self) -> None:
        """Wait for it."""
        with self.lock:
            pass


HELD_S = 0.002
"""Seconds after which those that are held up ask again, where nobody else has anything to do."""

Request: TypeAlias = Asked | Decoding | HeldUp
Steps: TypeAlias = Generator[Request, Any, T]
"""What makes something of type T by steps."""


def alone(steps: Steps[T]) -> T:
    """Make all steps one by one; return what comes of them."""
    resume: Callable[[Any], Request] = steps.send
    answer: Any = None
    with contextlib.closing(steps):
        while True:
            try:
                asked = resume(answer)
            except StopIteration as done:
                return done.value
            try:
                with record_function(asked.stage):
                    answer, resume = asked.alone(), steps.send
            except Exception as error:
                answer, resume = error, steps.throw


class Running(Generic[T]):
    """Something that is being made by steps; it has begun.

    Attributes:
        asked: the request that is to be answered next; None once it has ended.
        outcome: what came of it, or the exception that ended it.
    """

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.asked: Request | None = None
        self.outcome: T | Exception | None = None
        self._go_on(steps.send, None)

    @property
    def ended(self) -> bool:
        """Whether nothing more is asked for."""
        return self.asked is None

    @property
    def held_up(self) -> bool:
        """Whether it waits for another thread, or for another one that runs in this."""
        return isinstance(self.asked, HeldUp)

    def answer(self, answer: Any) -> None:
        """Go on to the next request; an exception is raised where the request was made."""
        self._go_on(self._steps.throw if isinstance(answer, Exception) else self._steps.send, answer)

    def close(self) -> None:
        """Give it up."""
        self._steps.close()

    def _go_on(self, resume: Callable[[Any], Request], answer: Any) -> None:
        self.asked = None
        try:
            self.asked = resume(answer)
        except StopIteration as done:
            self.outcome = done.value
        except Exception as error:
            self.outcome = error


class Rounds:
    """Answers what several ask for, one request of each at a time, in as few batches as there can be.

    Who takes part may change from round to round. What is laid together for a batch is kept for the next round; let go
    of it (:meth:`rest`) when nobody is left.
    """

    def __init__(self) -> None:
        self._makers: dict[int, StepsTogether] = {}

    def go(self, running: Sequence[Running[Any]]) -> None:
        """Answer one request of each; none has ended. One that fails fails alone, one held up holds nobody up."""
        asked = {place: each.asked for place, each in enumerate(running) if each.asked is not None}
        if running and all(each.held_up for each in running):
            time.sleep(HELD_S)
        for place, answer in _answered(asked, self._makers).items():
            running[place].answer(answer)

    def rest(self) -> None:
        """Let go of all memory."""
        self._makers.clear()


def together(every: Sequence[Steps[T]]) -> Iterator[tuple[int, T | Exception]]:
    """Run several in step, from the first to the last (:class:`Rounds`).

    Yields:
        The place of each and what came of it, or the exception that ended it, as soon as it is done.
    """
    rounds, running = Rounds(), dict[int, Running[T]]()
    try:
        for place, steps in enumerate(every):
            running[place] = Running(steps)
        while running:
            for place in [place for place, each in running.items() if each.ended]:
                yield place, cast("T | Exception", running.pop(place).outcome)
            if running:
                rounds.go(list(running.values()))
    finally:
        for steps in every:
            steps.close()


def _answered(asked: dict[int, Request], makers: dict[int, StepsTogether]) -> dict[int, Any]:
    """Make the steps that are asked for, each model's together, and decode, each decoder's together."""
    batches: dict[tuple[str, int], list[int]] = {}
    answers: dict[int, Any] = {}
    for place, request in asked.items():
        if isinstance(request, HeldUp):
            answers[place] = None
            continue
        whose = request.model if isinstance(request, Asked) else request.vae
        batches.setdefault((type(request).__name__, id(whose)), []).append(place)
    for places in batches.values():
        steps = [request for place in places if isinstance(request := asked[place], Asked)]
        frames = [request for place in places if isinstance(request := asked[place], Decoding)]
        with record_function(asked[places[0]].stage):
            answers |= zip(places, _stepped(steps, makers) if steps else _decoded(frames), strict=True)
    return answers


def _stepped(asked: list[Asked], makers: dict[int, StepsTogether]) -> list[Velocity | Exception]:
    model = asked[0].model
    maker = makers.setdefault(id(model), StepsTogether(model))
    with evaluating(model):
        return maker.step([each.call for each in asked])


def _decoded(asked: list[Decoding]) -> list[Tensor | Exception]:
    return decode_together(asked[0].vae, [each.stream for each in asked], [each.latents_BTChw for each in asked])


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
