"""What a study asks is fixed by its first run: later calls that ask otherwise are refused.

Arms and hypotheses may be added only by an amendment, which is dated and shown in the report. Seeds may be added at any
time; the report shows when, and what the verdicts were before, since who adds seeds until a verdict comes will get one.
Metrics may be added to the tables of what is done, dated too; a hypothesis about one that comes later is called so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from df_eval.study.config import StudyConfig
from df_eval.study.stored import StoredAmendment
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import Location, dump_config, load_config

STUDY, AMENDMENTS, ARMS = "study.yaml", "amendments.json", "arms.json"
_FREE = ("seeds", "executor", "slots", "slurm", "out")
"""Keys that change no run and no verdict's rule."""


def frozen_config(directory: Path) -> StudyConfig | None:
    """The study as it was fixed; None before its first run."""
    path = directory / STUDY
    if not path.is_file():
        return None
    return load_config(StudyConfig, path, recorded=True).model_copy(update={"out": Location(directory)})


def amendments(directory: Path) -> list[dict[str, Any]]:
    """What was added after the first run: date, text, and the names that were added.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / AMENDMENTS
    if not path.is_file():
        return []
    try:
        entries = TypeAdapter(list[StoredAmendment]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} is damaged ({error.errors()[0]['msg']}); restore it") from error
    return [entry.model_dump(exclude_defaults=True) for entry in entries]


def looked_at(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics that amendments added to the tables."""
    return [name for entry in entries for name in entry.get("metrics", ())]


def look_at(directory: Path, metrics: Sequence[str], done: str) -> None:
    """Note that metrics are in a study's tables from now on.

    Args:
        done: how many runs were done, in words.
    """
    text = f"looked at when {done} were done; nothing was claimed of it before"
    entry = {**(_entry([f"the metric {name}" for name in metrics], text) or {}), "metrics": list(metrics)}
    atomic_write(directory / AMENDMENTS, json.dumps([*amendments(directory), entry], indent=1) + "\n")


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
        if any((directory / name).exists() for name in ("plan.json", "runs", AMENDMENTS)):
            raise UserError(
                f"{directory} holds runs but no {STUDY}, which says what was fixed before them; restore it, or take "
                "another name="
            )
        _write(directory, config)
        return config
    added = held_against(fixed, config)
    if added and not (amend or "").strip():
        raise UserError(
            f"{', '.join(added)} stood not in {directory / STUDY} when the study began; say why it is added now: "
            '--amend "TEXT" (the report shows it), or take another name='
        )
    if amend is not None and not added:
        raise UserError("--amend, but no arm or hypothesis is new; leave it out")
    for entry in (_entry(added, (amend or "").strip()), _seeds_entry(fixed, config, directory)):
        if entry is not None and entry not in amendments(directory):
            atomic_write(directory / AMENDMENTS, json.dumps([*amendments(directory), entry], indent=1) + "\n")
    merged = _in_fixed_order(fixed, config)
    _write(directory, merged)
    return merged


def held_against(fixed: StudyConfig, config: StudyConfig) -> list[str]:
    """What a configuration adds to a study that was fixed, in words; nothing is written.

    Raises:
        UserError: something that was fixed is otherwise now, with what differs.
    """
    _check_unchanged(fixed, config, config.directory)
    return _added(fixed, config, looked_at(amendments(config.directory)))


def _entry(added: list[str], text: str) -> dict[str, Any] | None:
    return {"date": datetime.now(UTC).date().isoformat(), "text": text, "added": added} if added else None


def _seeds_entry(fixed: StudyConfig, config: StudyConfig, directory: Path) -> dict[str, Any] | None:
    """What to note of new seeds: they, and the verdicts that could be seen before."""
    new = [f"the seed {seed}" for seed in config.seeds if seed not in fixed.seeds]
    seen = directory / "study.json"
    verdicts = json.loads(seen.read_text(encoding="utf-8")).get("verdicts", []) if seen.is_file() else []
    before = "; ".join(verdict["line"] for verdict in verdicts)
    return _entry(new, f"seeds added after: {before}" if before else "seeds added before any verdict")


def _in_fixed_order(fixed: StudyConfig, config: StudyConfig) -> StudyConfig:
    """The configuration with what was there before first: which run trains for others goes by the order of arms."""
    axes: dict[str, Any] = {}
    for axis, values in config.axes.items():
        before = fixed.axes[axis]
        if isinstance(values, dict):
            axes[axis] = {label: values[label] for label in dict.fromkeys([*before, *values])}
        else:
            axes[axis] = (*before, *(value for value in values if not _among(value, before)))
    return config.model_copy(
        update={
            "seeds": tuple(dict.fromkeys([*fixed.seeds, *config.seeds])),
            "arms": {name: config.arms[name] for name in dict.fromkeys([*fixed.arms, *config.arms])},
            "axes": axes,
        }
    )


def _among(value: Any, values: Iterable[Any]) -> bool:
    """Whether a value is there as it is written: 1, 1.0 and true are three."""
    return json.dumps(value) in map(json.dumps, values)


def hold(directory: Path, configs: Mapping[str, Any], evaluations: Mapping[str, Any]) -> None:
    """Fix what the arms' settings are resolved to, or hold them against it: the files that they start from may change.

    Args:
        configs, evaluations: by arm, the whole configuration of its training and of its evaluation.

    Raises:
        UserError: an arm is not what it was when it was first run, with the first setting that differs.
    """
    path = directory / ARMS
    fixed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {name: _flat({"train": tree, "evaluate": evaluations.get(name, {})}) for name, tree in configs.items()}
    for name, before in fixed.items():
        for key in (key for key in {**before, **now[name]} if before.get(key) != now[name].get(key)):
            raise UserError(
                f"arm {name} was first run with {key.replace('.', ': ', 1)}={json.dumps(before.get(key))}, and the "
                f"files that it starts from now give {json.dumps(now[name].get(key))}; put it back, or take another "
                "name="
            )
    atomic_write(path, json.dumps({**fixed, **now}, indent=1, sort_keys=True) + "\n")


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A tree's values by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


def _write(directory: Path, config: StudyConfig) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    atomic_write(directory / STUDY, dump_config(config))


def _added(fixed: StudyConfig, config: StudyConfig, looked: Collection[str]) -> list[str]:
    """New arms, values of axes and hypotheses, in words, and which of these were stated when the metric was seen."""
    known = {hypothesis.name for hypothesis in fixed.hypotheses}
    new = [hypothesis for hypothesis in config.hypotheses if hypothesis.name not in known]
    seen = {hypothesis.name: f" (stated after {hypothesis.metric} was looked at)" for hypothesis in new
            if hypothesis.metric in looked}  # fmt: skip
    return [
        *(f"the arm {name}" for name in config.arms if name not in fixed.arms),
        *(
            f"{axis}={value}"
            for axis, values in config.axes.items()
            for value in values
            if not _among(value, fixed.axes.get(axis, ()))
        ),
        *(f"the hypothesis {hypothesis.name!r}{seen.get(hypothesis.name, '')}" for hypothesis in new),
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
