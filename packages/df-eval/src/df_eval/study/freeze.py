"""What a study asks is fixed by its first run: later calls that ask otherwise are refused.

Seeds may be added at any time. Arms and hypotheses only by an amendment, which is dated and shown in the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from df_eval.study.config import StudyConfig
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import Location, dump_config, load_config

STUDY, AMENDMENTS = "study.yaml", "amendments.json"
_FREE = ("seeds", "executor", "slots", "slurm", "out")
"""Keys that change no run and no verdict's rule."""


def frozen_config(directory: Path) -> StudyConfig | None:
    """The study as it was fixed; None before its first run."""
    path = directory / STUDY
    if not path.is_file():
        return None
    return load_config(StudyConfig, path, recorded=True).model_copy(update={"out": Location(directory)})


def amendments(directory: Path) -> list[dict[str, Any]]:
    """What was added after the first run: date, text, and the names that were added."""
    path = directory / AMENDMENTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def freeze(config: StudyConfig, amend: str | None = None) -> StudyConfig:
    """Fix a study, or hold it against what was fixed; returns it with all seeds that it ever had.

    Args:
        amend: why arms or hypotheses are added now.

    Raises:
        UserError: it asks otherwise than at its first run, with what differs; or nothing is to be amended.
    """
    directory = config.directory
    fixed = frozen_config(directory)
    if fixed is None:
        if amend is not None:
            raise UserError(f"{directory} was not begun yet: there is nothing to amend; leave out --amend")
        _write(directory, config)
        return config
    added = _added(fixed, config)
    _check_unchanged(fixed, config, directory)
    if added and not (amend or "").strip():
        raise UserError(
            f"{', '.join(added)} stood not in {directory / STUDY} when the study began; say why it is added now: "
            '--amend "TEXT" (the report shows it), or take another name='
        )
    if amend is not None and not added:
        raise UserError("--amend, but no arm or hypothesis is new; leave it out")
    merged = config.model_copy(update={"seeds": tuple(dict.fromkeys([*fixed.seeds, *config.seeds]))})
    if added:
        entry = {"date": datetime.now(UTC).date().isoformat(), "text": (amend or "").strip(), "added": added}
        atomic_write(directory / AMENDMENTS, json.dumps([*amendments(directory), entry], indent=1) + "\n")
    _write(directory, merged)
    return merged


def _write(directory: Path, config: StudyConfig) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    atomic_write(directory / STUDY, dump_config(config))


def _added(fixed: StudyConfig, config: StudyConfig) -> list[str]:
    """New arms, values of axes and hypotheses, in words."""
    known = {hypothesis.name for hypothesis in fixed.hypotheses}
    return [
        *(f"the arm {name}" for name in config.arms if name not in fixed.arms),
        *(
            f"{axis}={value}"
            for axis, values in config.axes.items()
            for value in values
            if value not in [*fixed.axes.get(axis, ())]
        ),
        *(f"the hypothesis {h.name!r}" for h in config.hypotheses if h.name not in known),
    ]


def _check_unchanged(fixed: StudyConfig, config: StudyConfig, directory: Path) -> None:
    before, now = _comparable(fixed), _comparable(config)
    for key, value in before.items():
        if key not in now:
            raise UserError(_differs(directory, key, value, "is not there any more"))
        if now[key] != value:
            raise UserError(_differs(directory, key, value, f"is now {json.dumps(now[key])}"))


def _differs(directory: Path, key: str, before: Any, now: str) -> str:
    return (
        f"{directory / STUDY} was fixed by the study's first run, and {key} (then {json.dumps(before)}) {now}; "
        "put it back, or take another name="
    )


def _comparable(config: StudyConfig) -> dict[str, Any]:
    """What must stay, by dotted name: each arm, value and hypothesis for itself, so that more may come."""
    tree = config.model_dump(mode="json")
    flat = {key: value for key, value in tree.items() if key not in (*_FREE, "arms", "axes", "hypotheses")}
    flat["axes"] = [*tree["axes"]]
    flat |= {f"arms.{name}": settings for name, settings in tree["arms"].items()}
    for axis, values in tree["axes"].items():
        labelled: Mapping[str, Any] = values if isinstance(values, dict) else {json.dumps(v): v for v in values}
        flat |= {f"axes.{axis}.{label}": value for label, value in labelled.items()}
    for entry in tree["hypotheses"]:
        flat |= {f"hypotheses.{entry['name']}.{key}": value for key, value in entry.items()}
    return flat
