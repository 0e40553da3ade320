"""What a run that goes on does otherwise than before: told in one line, and kept in `run.json` with the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from df_infer.run_dir import Changed, RunDir, RunRecord, read_record
from df_models.settings import load_config
from df_train.config import TrainConfig

_PLACES = ("run_dir", "data.root", "data.cache_dir")
"""Where things lie, which a run that was moved tells otherwise; its dataset is known by its digest."""


def changes_noted(run: RunDir, config: TrainConfig, step: int, say: Callable[[str], None]) -> tuple[Changed, ...]:
    """What `run.json` is to say of a run that goes on from a step with this configuration; what is new is told."""
    changes = changed_settings(load_config(TrainConfig, run.config, recorded=True), config)
    if changes:
        named = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changes.items())
        say(f"changed since it stopped: {named} ({run.record.name} keeps it)")
    return with_changes((read_record(run.record) or RunRecord()).changes, step, changes)


def changed_settings(before: TrainConfig, now: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, dotted, as (before, now)."""
    found = _differences(before.model_dump(mode="json"), now.model_dump(mode="json"), "")
    return {name: values for name, values in found if name not in _PLACES}


def with_changes(past: Sequence[Changed], step: int, changes: dict[str, tuple[Any, Any]]) -> tuple[Changed, ...]:
    """The record with what is changed at a step that the run goes on from.

    What was changed at that step before, or at later ones that are taken again, becomes one change with it.
    """
    kept = tuple(change for change in past if change.step < step)
    net = dict[str, tuple[Any, Any]]()
    for settings in (*(change.settings for change in past if change.step >= step), changes):
        for name, (old, new) in settings.items():
            net[name] = (net[name][0] if name in net else old, new)
    net = {name: values for name, values in net.items() if values[0] != values[1]}
    return (*kept, Changed(step, net)) if net else kept


def _differences(before: Any, now: Any, name: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    sections = [isinstance(each, dict) or each is None for each in (before, now)]
    if all(sections) and (before or now):  # a section that came, or went, is told setting by setting
        before, now = before or {}, now or {}
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield name, (before, now)
