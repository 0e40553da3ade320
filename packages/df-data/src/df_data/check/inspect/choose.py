"""Which clips a page shows: half of them at random but always the same, half the strangest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from df_data.check.inspect.scan import ClipFacts
from df_data.check.summary import Spread
from df_data.common.hashing import hash_int


@dataclass(frozen=True)
class Choice:
    """A clip to show, and why."""

    facts: ClipFacts
    why: str


def choose_clips(facts: Sequence[ClipFacts], ranges: Mapping[str, Spread], count: int) -> list[Choice]:
    """Return at most ``count`` clips: one half by a hash of the key, the other with the most extreme values.

    A value's strangeness is its distance from the median in units of the 5-95 % range; every score gives its lowest
    and its highest clip, and the strangest of these are taken, so that no one score fills the page.
    """
    strange = _extremes(facts, ranges)[: count // 2]
    taken = {choice.facts.key for choice in strange}
    others = sorted((f for f in facts if f.key not in taken), key=lambda f: hash_int("inspect", f.key))
    spread = [Choice(fact, "picked by a hash of its key") for fact in others[: count - len(strange)]]
    return [*spread, *strange]


def _extremes(facts: Sequence[ClipFacts], ranges: Mapping[str, Spread]) -> list[Choice]:
    found: dict[str, tuple[float, ClipFacts, list[str]]] = {}
    for name, spread in ranges.items():
        having = [fact for fact in facts if name in fact.values]
        for word, pick in (("lowest", min), ("highest", max)):
            fact = pick(having, key=lambda f: (f.values[name], f.key))
            strangeness = strangeness_of(fact.values[name], spread)
            if strangeness > 0:
                before, _, reasons = found.get(fact.key, (0.0, fact, []))
                found[fact.key] = (max(before, strangeness), fact, [*reasons, f"{word} {name}"])
    ranked = sorted(found.values(), key=lambda item: (-item[0], item[1].key))
    return [Choice(fact, ", ".join(reasons)) for _, fact, reasons in ranked]


def strangeness_of(value: float, spread: Spread) -> float:
    """Return how far a value lies from the median, in 5-95 % ranges; 0 where all values are (nearly) equal."""
    width = spread.q95 - spread.q05
    if width <= 1e-9 * max(1.0, abs(spread.median)):
        width = spread.max - spread.min
    return abs(value - spread.median) / width if width > 0 else 0.0
