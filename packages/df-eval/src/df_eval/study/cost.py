"""What a study costs: planned from the measured time of runs that are done, and what was spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from df_eval.reports.markdown import NOTHING, markdown_table
from df_eval.study.config import StudyConfig
from df_eval.study.execute import to_do
from df_eval.study.plan import Plan, Step
from df_eval.study.records import is_running, read_record, stage_done, state_of

STAGES = ("corpus", "train", "evaluate")


def seconds_of(step: Step, study: Path) -> dict[str, float]:
    """Wall seconds by stage, all attempts; without a stage whose one attempt nobody saw end, as with a study that was
    killed before it."""
    stages = read_record(step, study).stages
    there = [name for name in step.commands if name in stages and (stages[name].seconds or stages[name].began is None)]
    return {name: round(stages[name].seconds, 1) for name in there}


def expected(plan: Plan) -> dict[str, float | None]:
    """Expected wall seconds of one run by stage: the mean of those that are done; None while there is none."""
    study = Path(plan.directory)
    found: dict[str, float | None] = {}
    for stage in STAGES[1:]:
        spent = [
            record.stages[stage].seconds
            for step in plan.runs
            if stage in (record := read_record(step, study)).stages and record.stages[stage].code == 0
        ]
        found[stage] = sum(spent) / len(spent) if spent else None
    return found


def summary(plan: Plan) -> dict[str, Any]:
    """What was spent and what is left, in seconds of one slot, with where the expectation comes from."""
    study = Path(plan.directory)
    spent = {stage: sum(seconds_of(step, study).get(stage, 0.0) for step in plan.steps) for stage in STAGES}
    per_run = expected(plan)
    left = dict.fromkeys(STAGES[1:], 0)
    for step in to_do(plan):
        for stage in left:
            left[stage] += stage in step.commands and not stage_done(step, stage, study)
    known = all(per_run[stage] is not None or not count for stage, count in left.items())
    rest = sum((per_run[stage] or 0.0) * count for stage, count in left.items()) if known else None
    source = "measured: mean of the runs that are done" if known else "not known before the first run is done"
    return {"spent_s": spent, "left": left, "expected_s": per_run, "left_s": rest, "source": source}


def duration(seconds: float | None) -> str:
    """``1 h 05 min``, ``12 min``, ``40 s``; a dash where it is not known."""
    if seconds is None:
        return NOTHING
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def cost_line(plan: Plan) -> str:
    """Spent and left, in one line."""
    found = summary(plan)
    spent = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in found["spent_s"].items() if seconds)
    left = ", ".join(f"{count} x {stage}" for stage, count in found["left"].items() if count) or "nothing"
    if unseen := _unseen(plan):
        spent = f"{spent or 'not known'}, without {unseen} command{'s' * (unseen > 1)} that outlived a killed df-study"
    return f"spent: {spent or 'nothing'}; left: {left}, {duration(found['left_s'])} of one slot ({found['source']})"


def _unseen(plan: Plan) -> int:
    """Commands that are done and that nobody saw end, so that their time is not known."""
    study = Path(plan.directory)
    ended = [step for step in plan.steps if not is_running(step, study)]
    done = [(step, stage) for step in ended for stage in step.commands if stage_done(step, stage, study)]
    records = [(read_record(step, study).stages, seconds_of(step, study), stage) for step, stage in done]
    return sum(stage in stages and stage not in seconds for stages, seconds, stage in records)


def plan_lines(config: StudyConfig, plan: Plan) -> list[str]:
    """What `df-study plan` prints."""
    study = Path(plan.directory)
    rows = [
        [step.key, state_of(step, study), _what(step, plan), ", ".join(step.needs) or NOTHING] for step in plan.steps
    ]
    counts = [f"{sum(stage in step.commands for step in plan.steps)} x {stage}" for stage in STAGES]
    return [
        f"{config.name}: {config.question}",
        "",
        markdown_table(["step", "state", "what", "after"], rows),
        "",
        f"{', '.join(counts)}; {config.slots.count} at a time ({config.executor})",
        cost_line(plan),
        *(["", *(f"{h.name}: {h.claim}" for h in config.hypotheses)] if config.hypotheses else []),
    ]


def _what(step: Step, plan: Plan) -> str:
    if not step.is_run:
        return f"corpus in {step.place}"
    parts = []
    if "train" in step.commands:
        optim = plan.configs[step.arm].get("optim")
        parts.append(f"train {optim['steps']} steps" if isinstance(optim, dict) and "steps" in optim else "train")
    if "evaluate" in step.commands:
        told = plan.evaluations[step.arm]
        parts.append(f"measure {told.get('clips')} clips at {told.get('frames')}")
    return ", ".join(parts)


def status_lines(plan: Plan) -> list[str]:
    """What `df-study status` prints."""
    study = Path(plan.directory)
    rows = []
    for step in plan.steps:
        spent = seconds_of(step, study)
        record = read_record(step, study)
        state = "running" if is_running(step, study) else state_of(step, study)
        times = [duration(spent.get(stage)) for stage in STAGES[1:]]
        why = record.failure if state == "failed" else ""
        rows.append([step.key, state, *times, "; ".join(filter(None, [why, record.before]))])
    return [markdown_table(["step", "state", "train", "evaluate", "why"], rows), "", cost_line(plan)]
