"""What becomes of an earlier evaluation in the place of a new one: its numbers are kept, if they are others."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from df_eval.reading.measured_as import NOT_DECIDING
from df_models.files import atomic_write

EARLIER = "earlier"
KEPT = ("metrics.json", "table.md", "per_clip.jsonl")
"""Files of numbers. `metrics.json` is copied first and leaves its place last, so that a kill loses nothing and what was
kept can be told."""
NUMBERS = ("lengths", "differences", "drift", "interventions", "sync_codecs")
"""Parts of `metrics.json` that are equal where nothing was measured otherwise."""
MOST_TOLD, LONGEST = 3, 60
"""Settings that the line names, and characters of each value: it stays a line."""
_NO_SETTINGS = ("device", "parameters", "systems", "told")
"""Parts of the protocol that follow from others, or change no number."""


def keep_earlier(out: Path, document: Mapping[str, Any]) -> None:
    """Move the numbers of an evaluation in ``out`` to ``out/earlier/HASH`` and say so on stderr; not those that were
    measured as the new ones, or are the same.

    Args:
        document: the new `metrics.json`.
    """
    path = out / "metrics.json"
    if not path.is_file():
        return
    there = _read(path.read_bytes())
    if there is not None and _same(there, document):
        return
    place = out / EARLIER / _name(path, there)
    place.mkdir(parents=True, exist_ok=True)
    atomic_write(place / KEPT[0], path.read_bytes())
    for name in KEPT[1:]:
        if (out / name).is_file():
            (out / name).replace(place / name)
    path.unlink()
    told = f"{_told(there)}; {differing(there, document)}" if there is not None else _told(there)
    print(f"{out} held another evaluation ({told}): its numbers are kept in {place}", file=sys.stderr)


def _name(path: Path, there: Mapping[str, Any] | None) -> str:
    """A hash of what was measured and how, not of how long it took: the same numbers are kept once."""
    parts = None if there is None else {name: there.get(name) for name in ("run", "measured_as", *NUMBERS)}
    text = path.read_bytes() if parts is None else json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:12]


def _read(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _same(there: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    if there.get("measured_as") and there["measured_as"] == document["measured_as"]:
        return True
    new = json.loads(json.dumps({name: document[name] for name in NUMBERS}))
    return there.get("run") == document["run"] and all(there.get(name) == new[name] for name in NUMBERS)


def differing(there: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """The first settings that differ from those of now: ``differs in clips: 4 -> 16, rollout.steps: 2 -> 4, and 1
    more``."""
    before, now = _settings(there), _settings(json.loads(json.dumps(document)))
    if not before:
        return "its settings are not known"
    changed = [name for name in now if before.get(name) != now[name]] + [name for name in before if name not in now]
    if not changed:
        return "its settings are the same, so weights, clips, other systems' videos, readers' files or software differ"
    told = [f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}" for name in changed[:MOST_TOLD]]
    more = [f"and {len(changed) - MOST_TOLD} more"] if len(changed) > MOST_TOLD else []
    return f"differs in {', '.join([*told, *more])}"


def _settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """The run, the settings that decide numbers, then the rest of the protocol, by dotted name."""
    facts = document.get("protocol")
    if not isinstance(facts, Mapping):
        return {}
    hidden = NOT_DECIDING - {"baseline"}  # it decides what of other systems' videos is measured
    asked = {name: value for name, value in facts.get("config", {}).items() if name not in hidden}
    rest = {name: value for name, value in facts.items() if name not in ("config", "clips", *_NO_SETTINGS)}
    names = [clip.get("key") for clip in facts.get("clips", [])]
    shown = f"{len(names)}, of hash {hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]}"
    return {"run": document.get("run"), **_flat(asked), **_flat(rest), "clips measured": shown}


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _told(there: Mapping[str, Any] | None) -> str:
    """``run quickstart, bench (test), 32 clips, 33 and 129 frames``; what can be told of it."""
    try:
        assert there is not None
        facts = there["protocol"]
        protocol = facts["protocol"]
        name = "no protocol" if protocol is None else f"{protocol['name']} ({protocol['split']})"
        lengths = " and ".join(there["lengths"])
        return f"run {there['run']}, {name}, {len(facts['clips'])} clips, {lengths} frames"
    except (AssertionError, KeyError, TypeError):
        return "its metrics.json cannot be read"
