"""`study.json`: everything that a study found, from which the page, the tables and the paper's files are made."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from df_eval.measure import GENERATED
from df_eval.metrics import SPECS
from df_eval.reports.table import long_title
from df_eval.study.arms import arms_of
from df_eval.study.config import StudyConfig
from df_eval.study.cost import seconds_of, summary
from df_eval.study.freeze import looked_at
from df_eval.study.measured import Measured
from df_eval.study.plan import Plan
from df_eval.study.programs import Programs
from df_eval.study.records import read_record, state_of
from df_eval.study.stored import StoredStudy
from df_eval.study.verdicts import counted, verdicts_of
from df_models.errors import UserError
from df_models.intervals.estimate import LEVEL

DOCUMENT = "study.json"
SCHEMA_VERSION = 2
STATISTICS = (
    "Value +- t times the standard error of a bootstrap that resamples seeds and people (clips, where all are of one "
    "person), crossed (Owen 2007, one of each fewer than there are); degrees of freedom by Satterthwaite (1946). "
    "Differences are paired: the same seeds and clips of both arms. p is that of the same t against the margin; Holm "
    "(1979) over the study's hypotheses. With one seed the interval is over people alone, and nothing is decided."
)


def study_document(
    config: StudyConfig, plan: Plan, measured: Measured, amendments: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything, as plain JSON without NaN."""
    verdicts = verdicts_of(config, measured)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "question": config.question,
        "study": config.model_dump(mode="json"),
        "amendments": amendments,
        "arms": {name: {"at": dict(arm.at), "measured": arm.measured} for name, arm in arms_of(config).items()},
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "counts": counted(verdicts),
        "tables": tables_of(config, plan, measured, looked_at(amendments)),
        "runs": [_step(plan, index) for index in range(len(plan.steps))],
        "left_aside": left_aside(plan),
        "cost": summary(plan),
        "protocol": _protocol(config, plan, measured),
        "versions": dict(plan.versions),
    }


def read_document(directory: Path) -> dict[str, Any]:
    """The stored document of a study; one of version 1 lacks the numbers of people.

    Raises:
        UserError: it is missing or damaged, a part is missing or not what it should be, or it is of a version that is
            not known here.
    """
    path = directory / DOCUMENT
    if not path.is_file():
        raise UserError(f"{path} is missing: df-study report writes it where a study's runs are")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or report where the study's runs are") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{path} is of version {version}, and this df-study reads up to {SCHEMA_VERSION}; update it")
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path} is no study's document: it says no schema_version; report where the study's runs are")
    try:
        StoredStudy.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc'])) or 'its parts'}: {first['msg']}"
        raise UserError(f"{path} is no study's document: {told!r}; report where the study's runs are") from error
    return document


def tables_of(config: StudyConfig, plan: Plan, measured: Measured, looked: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A table for each metric and length: every arm's value, and its paired difference to the reference arm.

    Args:
        looked: metrics that were added afterwards.
    """
    arms = [name for name, arm in arms_of(config).items() if arm.measured]
    asked = [(h.metric, h.row) for h in config.hypotheses] + [(metric, GENERATED) for metric in config.metrics]
    asked += (later := [(metric, GENERATED) for metric in looked])
    lengths = sorted({frames for tree in plan.evaluations.values() for frames in tree.get("frames", [])})
    found: list[dict[str, Any]] = []
    if not measured.lines:
        return found
    for frames in lengths:
        for metric, row in dict.fromkeys(asked):
            rows = [_row(arm, config.reference or arms[0], config, measured, (frames, row, metric)) for arm in arms]
            found.append(_table(metric, row, frames, config.reference or arms[0], rows))
            if (metric, row) in later:
                found[-1]["title"] += ", looked at afterwards"
    return found


def _table(metric: str, row: str, frames: int, reference: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    spec = SPECS[metric]
    told = {"title": long_title(metric), "unit": spec.unit, "better": spec.better, "definition": spec.definition}
    place = {"metric": metric, "row": row, "frames": frames, "decimals": spec.decimals + 1}
    return told | place | {"reference": reference, "rows": rows}


def _row(
    arm: str, reference: str, config: StudyConfig, measured: Measured, asked: tuple[int, str, str]
) -> dict[str, Any]:
    own = measured.matched([arm], config.seeds, *asked)
    value = own.estimate(config.resamples)
    row = {"arm": arm, "value": asdict(value), "difference": None, "left_out": own.left_out}
    if arm != reference:
        both = measured.matched([arm, reference], config.seeds, *asked)
        row["difference"] = asdict(both.estimate(config.resamples))
        row["left_out"] = both.left_out
    return row


def _step(plan: Plan, index: int) -> dict[str, Any]:
    step, study = plan.steps[index], Path(plan.directory)
    state, record, programs = state_of(step, study), read_record(step, study), Programs()
    return {
        "key": step.key,
        "arm": step.arm,
        "seed": step.seed if step.is_run else None,
        "place": step.place,
        "state": state,
        "why": record.failure if state == "failed" else "",
        "before": record.before,
        "seconds": seconds_of(step, study),
        "commands": {stage: shlex.join(programs.shown(argv)) for stage, argv in step.commands.items()},
    }


def left_aside(plan: Plan) -> list[str]:
    """Run directories of the study that are of another base, version or setting than now, and in no table."""
    runs = Path(plan.directory) / "runs"
    known = {step.key for step in plan.runs}
    there = (path.relative_to(runs).as_posix() for path in runs.glob("*/seed-*"))
    return sorted(key for key in there if key not in known)


def _protocol(config: StudyConfig, plan: Plan, measured: Measured) -> dict[str, str]:
    """The protocol for people, as (name, text)."""
    first = next(iter(measured.protocols.values()), {})
    told = {
        "base": str(config.base),
        "shared settings": ", ".join(f"{key}={value}" for key, value in config.set.items()) or "none",
        "seeds": ", ".join(map(str, config.seeds)),
        "clips": str(first.get("clips_from", "not known yet")),
        "reader": str(first.get("reader", "not known yet")),
        "machines": ", ".join(sorted({str(p.get("device")) for p in measured.protocols.values()})) or "not known yet",
        "statistics": STATISTICS,
        "interval": f"{LEVEL:.0%}, {config.resamples} resamples",
        "versions": ", ".join(f"{name} {version}" for name, version in plan.versions.items()),
    }
    others = sorted({str(p.get("clips_from")) for p in measured.protocols.values()})
    return told | ({"clips of other runs": "; ".join(others)} if len(others) > 1 else {})
