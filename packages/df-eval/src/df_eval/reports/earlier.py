"""What becomes of an earlier evaluation in the place of a new one: its numbers are kept, if they are others."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EARLIER = "earlier"
KEPT = ("per_clip.jsonl", "table.md", "metrics.json")
"""Files of numbers, `metrics.json` last: while it is in its place, the rest may still be moved."""
NUMBERS = ("lengths", "differences", "drift", "interventions", "sync_codecs")
"""Parts of `metrics.json` that are equal where nothing was measured otherwise."""


def keep_earlier(out: Path, document: Mapping[str, Any]) -> None:
    """Move the numbers of an evaluation in ``out`` to ``out/earlier/HASH`` and say so on stderr; not those that were
    measured as the new ones, or are the same.

    Args:
        document: the new `metrics.json`.
    """
    path = out / "metrics.json"
    if not path.is_file():
        return
    text = path.read_bytes()
    there = _read(text)
    if there is not None and _same(there, document):
        return
    place = out / EARLIER / hashlib.sha256(text).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (out / name).is_file():
            (out / name).replace(place / name)
    print(f"{out} held another evaluation ({_told(there)}): its numbers are kept in {place}", file=sys.stderr)


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
