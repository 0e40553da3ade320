"""Chunks as generators that ask for the model's steps, one after the other: run alone, or several in step.

Whoever makes a chunk yields each step that it needs of a model, then what is to be decoded, and is sent the results. So
nothing of a chunk knows whether it is made alone or in a batch with others, and each may have its own number of steps.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

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


def together(every: Sequence[Steps[T]]) -> Iterator[tuple[int, T | Exception]]:
    """Run several in step: what they ask for at a time is made in as few batches as there can be.

    Yields:
        The place of each and what came of it, or the exception that ended it, as soon as it is done; one that fails
        fails alone, and one that is held up by another thread holds nobody up.
    """
    asked: dict[int, Request] = {}
    ended: list[tuple[int, T | Exception]] = []
    makers: dict[int, StepsTogether] = {}

    def go_on(place: int, resume: Callable[[Any], Request], answer: Any) -> None:
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
            if all(isinstance(request, HeldUp) for request in now.values()):
                time.sleep(HELD_S)
            for place, answer in _answered(now, makers).items():
                go_on(place, every[place].throw if isinstance(answer, Exception) else every[place].send, answer)
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
