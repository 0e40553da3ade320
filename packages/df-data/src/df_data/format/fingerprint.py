"""What a dataset was made with, in one hash, and how a dataset of an older program is known again.

A fingerprint covers every setting that decides the bytes. A setting that was added since a dataset was begun is not in
that dataset's own `config.yaml`; while it is at its default it changes nothing, so the dataset is still the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from df_data.format.dataset import CONFIG_NAME
from df_models.settings import FrozenModel, read_tree


def digest(document: Mapping[str, Any]) -> str:
    """Return the sha256 of plain values."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def fingerprints(
    config: FrozenModel, ignored: set[str], out: Path, made_by: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the fingerprint of a configuration, and after it that of a program that did not know all of its settings.

    Args:
        ignored: settings that do not decide the bytes.
        out: the dataset, whose `config.yaml` tells which settings were known.
        made_by: from the settings, everything that is hashed.
    """
    settings = config.model_dump(mode="json", exclude=ignored)
    file = out / CONFIG_NAME
    if not file.is_file():
        return (digest(made_by(settings)),)
    changed = config.model_dump(mode="json", exclude=ignored, exclude_defaults=True)
    reduced = _known_to(settings, changed, read_tree(file))
    known = [settings] if reduced is None or reduced == settings else [settings, reduced]
    return tuple(digest(made_by(tree)) for tree in known)


def _known_to(settings: dict[str, Any], changed: dict[str, Any], recorded: Any) -> dict[str, Any] | None:
    """Return the settings that a recorded configuration has too; None if another one is not at its default."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in recorded:
            if name in changed:
                return None
            continue
        inner = recorded[name]
        if isinstance(value, dict) and isinstance(inner, dict):
            value = _known_to(value, changed.get(name, {}), inner)
            if value is None:
                return None
        found[name] = value
    return found
