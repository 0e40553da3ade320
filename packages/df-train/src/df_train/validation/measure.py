"""Losses of the held-out clips: by history, loss and sigma bucket, and one number for the whole.

They are measured on the averaged weights, which are what a run exports. The parameters and their averages are sharded
alike, so each process exchanges its own shards for as long as it measures (`ParameterAverage.in_place`): that takes no
memory beyond one parameter's shard, where a gathered copy would take the whole model in every process, and the forward
passes are those of training, in its precision. A measurement costs `clips x histories x BUCKETS` clips forward, and
twice the frames with `teacher_forcing`.

A clip is a batch of its own, so a figure does not depend on which clips a process got. The figures of each clip have
their own place in one table, in which all processes fill different rows; adding zeros is exact, and all processes then
add the rows in the same order. So one process and eight give the same bits for the same weights.

Shape legend: N clips, H histories, L losses, K sigma buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from df_data.reading import Batch
from df_models import DualForce
from df_train.figures.meter import BUCKETS, LossTerm, add_by_bucket, means
from df_train.given import given_whole
from df_train.noising import clean_streams
from df_train.objective import Objective
from df_train.processes.distributed import World
from df_train.saving.state import TrainState
from df_train.validation.config import HeldOutHistory
from df_train.validation.showing import repeated, show_held_out

_WEIGHTS = {"video": 1.0, "structure": 0.5}
"""Of `val/loss`: the objective's default weights of the two streams, whatever a run's own are, and none for losses that
a run may lack, so that the number means the same in every run on the same structure statistics."""


class Validation:
    """Measures the held-out clips; every process must call it, at the same steps.

    Args:
        clips: all of them, in every process, a batch of one each.
    """

    def __init__(
        self, clips: Sequence[Batch], histories: Sequence[HeldOutHistory], objective: Objective, world: World
    ) -> None:
        self._clips, self._histories, self._objective, self._world = clips, histories, objective, world

    @torch.no_grad()
    def __call__(self, training: TrainState) -> dict[str, float]:
        """The figures by name, equal in all processes."""
        count, names, world = len(self._clips), self._objective.names, self._world
        shape = (count, len(self._histories), len(names), BUCKETS, 2)
        sums_NHLK2 = torch.zeros(shape, dtype=torch.float64, device=world.device)
        with training.average.in_place(), _without_dropout(training.model):
            for place in range(world.rank, _whole_turns(count, world.size), world.size):
                passes = repeated(self._clips[place % count].to(world.device))
                for index, history in enumerate(self._histories):
                    terms = self._terms(training.model, passes, history)
                    if place < count:  # beyond, a process only takes part in what the others compute
                        for loss, name in enumerate(names):
                            add_by_bucket(sums_NHLK2[place, index, loss], terms[name])
        return figures(alike(world.sum(sums_NHLK2)).sum(dim=0), self._histories, names)

    def _terms(self, model: DualForce, passes: Batch, history: HeldOutHistory) -> dict[str, LossTerm]:
        """The losses of a clip; frames that are given clean count in none, and structure as a condition is clean."""
        clean = clean_streams(model, passes)
        shown = show_held_out(passes, clean, history)
        if model.config.structure_given == "always":
            shown = given_whole(shown, torch.ones(len(passes), dtype=torch.bool, device=clean.video.device))
        answer = self._objective.answer(model, passes, shown)
        terms = self._objective.terms(answer)
        return {name: term._replace(counts_BT=term.counts_BT * (term.sigma_BT > 0)) for name, term in terms.items()}


@contextmanager
def _without_dropout(model: DualForce) -> Iterator[None]:
    """Evaluation mode, which only an adapter's dropout minds."""
    model.eval()
    try:
        yield
    finally:
        model.train()


def alike(sums_NHLK2: Tensor) -> Tensor:
    """Each clip's sums divided by what it counts in all buckets, so that a clip counts the same whatever its length."""
    counts_NHL11 = sums_NHLK2[..., 1].sum(dim=-1)[..., None, None]
    return sums_NHLK2 / torch.where(counts_NHL11 > 0, counts_NHL11, 1.0)


def _whole_turns(count: int, size: int) -> int:
    """`count`, raised to a multiple of `size`: sharded parameters are gathered by all processes together."""
    return -(-count // size) * size


def figures(sums_HLK2: Tensor, histories: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """The means by their names in `metrics.jsonl`.

    `val/<history>/loss/<name>` and `val/<history>/sigma/<name>/<bucket>`; `val/loss/<name>`, the mean over histories;
    `val/loss`, the weighted sum of the latter, of the streams that the model makes.
    """
    values: dict[str, float] = {}
    for history, sums_LK2 in zip(histories, sums_HLK2.tolist()):
        for name, sums_K2 in zip(names, sums_LK2):
            values |= means(name, sums_K2, f"val/{history}/")
    for name in names:
        found = [values[key] for history in histories if (key := f"val/{history}/loss/{name}") in values]
        if found:
            values[f"val/loss/{name}"] = sum(found) / len(found)
    total = sum(weight * values.get(f"val/loss/{name}", 0.0) for name, weight in _WEIGHTS.items())
    return {"val/loss": total, **values}
