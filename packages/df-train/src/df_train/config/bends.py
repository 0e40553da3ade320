"""Where a time budget changed a schedule: pairs of a step and of the length that the schedule had until then."""

from __future__ import annotations


def rising(bends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    places = [step for step, _ in bends]
    if places != sorted(set(places)) or any(step < 0 or step >= steps for step, steps in bends):
        raise ValueError("give pairs [step, steps] of rising steps, each before its steps")
    return bends
