"""Who is held out in place of inputs that were refused, so that a dataset does not end without a validation split.

Held-out inputs are taken first. If none of them is accepted, the group (person or file) whose turn would have been next
is held out as well, all of it and before anything of it was trained on, until one is accepted. Which it is follows from
what became of the inputs before it, so a build that was killed comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from df_data.format.ledger import Ledger
from df_data.sources.config import SplitConfig
from df_data.sources.holdout import in_turn
from df_data.sources.listing import Input, grouped, originals


def as_the_ledger_has_it(inputs: Sequence[Input], ledger: Ledger, split: SplitConfig) -> list[Input]:
    """Return inputs of which those are held out too that were, by the ledger, with the rest of their groups."""
    found = list(inputs)
    for members in grouped(inputs, split).values():
        entries = [ledger.get(made.name) for made in members]
        if any(entry is not None and entry.split == "val" for entry in entries):
            found = moved(found, members)
    return found


@dataclass(frozen=True)
class StandIns:
    """Who may be held out in place of others, in order of turns.

    The order follows from the inputs alone, whatever became of them, so all runs of a build have the same; a run looks
    into files for it once, when it first needs it.

    Attributes:
        planned: the inputs as they were divided when the build began.
        split: how.
        least_s: seconds that a validation clip lasts.
    """

    planned: Sequence[Input]
    split: SplitConfig
    least_s: float

    @cached_property
    def _turns(self) -> Iterator[str]:
        """Groups of which nothing was to be held out; one that was passed over is never free again."""
        trained = {
            name: members
            for name, members in grouped(self.planned, self.split).items()
            if all(made.split == "train" for made in members)
        }
        return iter(list(in_turn(originals(trained), self.split, self.least_s)))

    def next_held_out(self, inputs: Sequence[Input], ledger: Ledger) -> list[Input] | None:
        """Return inputs with one more group held out, or None where none is wanted or none is left but one.

        Raises:
            UserError: a file cannot be read on whose length it depends.
        """
        ends = [(made, ledger.get(made.name)) for made in inputs if made.split == "val"]
        if not ends or any(entry is None or entry.status == "accepted" for _, entry in ends):
            return None
        free = {
            name: members
            for name, members in grouped(inputs, self.split).items()
            if all(made.split == "train" and ledger.get(made.name) is None for made in members)
        }
        if len(free) < 2:
            return None
        return moved(inputs, next(free[name] for name in self._turns if name in free))


def moved(inputs: Sequence[Input], members: Sequence[Input]) -> list[Input]:
    """Return inputs of which some are held out."""
    names = {made.name for made in members}
    return [replace(made, split="val") if made.name in names else made for made in inputs]
