"""What is known of a step: `study-run.json` in its directory, and what the commands themselves left there."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from df_eval.study.plan import Step
from df_infer.run_dir import RunDir
from df_models.cli_support import EXIT_AGAIN, EXIT_INTERRUPTED, EXIT_TERMINATED
from df_models.files import atomic_write
from df_models.locks import open_locked

RECORD = "study-run.json"
HELD = ".study-lock"
"""Held by a step's commands themselves, so that one that outlives a killed study is waited for, not doubled."""
State = Literal["done", "failed", "interrupted", "waiting"]
_STOPPED = (EXIT_AGAIN, EXIT_INTERRUPTED, EXIT_TERMINATED)
"""Exit codes of a command that was told to stop, and goes on when it is given again."""


@dataclass
class StageRecord:
    """One command of a step.

    Attributes:
        code: its last exit code; None while it runs, or if the study was killed meanwhile.
        seconds: wall time of all attempts.
        began: Unix time of the attempt that was not seen to end.
        reason: what its log says last, if it failed.
        failures: of earlier attempts, each with its reason.
    """

    code: int | None = None
    seconds: float = 0.0
    began: float | None = None
    attempts: int = 0
    reason: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and not well. A signal's end counts, unless it was told to stop."""
        return self.code is not None and self.code != 0 and self.code not in _STOPPED

    @property
    def failure(self) -> str:
        """Why it failed, with how it ended; empty if it did not."""
        if not self.failed:
            return ""
        ended = f"exit code {self.code}" if (self.code or 0) > 0 else f"signal {-(self.code or 0)}"
        return f"{self.reason or 'it said nothing'} ({ended})"

    def forget(self) -> None:
        """Let it be tried again; a failure is kept among the earlier ones."""
        if self.failed:
            self.failures.append(self.failure)
        self.code, self.reason = None, ""


@dataclass
class Record:
    """A step's record: its stages by name, and why it could not begin, if so."""

    key: str
    stages: dict[str, StageRecord] = field(default_factory=dict)
    blocked: str = ""

    def stage(self, name: str) -> StageRecord:
        """A stage's record, made if need be."""
        return self.stages.setdefault(name, StageRecord())

    @property
    def failure(self) -> str:
        """Which stage failed and why, in one line; empty if none did."""
        for name, stage in self.stages.items():
            if stage.failed:
                return f"{name}: {stage.failure}"
        return self.blocked

    @property
    def before(self) -> str:
        """Failures of earlier attempts: ``1 failure before: train: loss is not finite (exit code 1)``; or empty."""
        found = [f"{name}: {failure}" for name, stage in self.stages.items() for failure in stage.failures]
        return f"{len(found)} failure{'s' if len(found) > 1 else ''} before: {'; '.join(found)}" if found else ""


def record_place(step: Step, study: Path) -> Path:
    """The directory of a step's record and logs."""
    return Path(step.place) if step.is_run else study / "corpora" / step.key.rpartition("/")[2]


def read_record(step: Step, study: Path) -> Record:
    """A step's record; an empty one if it was never begun."""
    return _read(record_place(step, study) / RECORD) or Record(step.key)


def _read(path: Path) -> Record | None:
    if not path.is_file():
        return None
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    stages = {name: StageRecord(**stage) for name, stage in tree["stages"].items()}
    return Record(tree["key"], stages, tree["blocked"])


def write_record(record: Record, step: Step, study: Path) -> None:
    """Write a step's record."""
    place = record_place(step, study)
    place.mkdir(parents=True, exist_ok=True)
    atomic_write(place / RECORD, json.dumps(asdict(record), indent=1) + "\n")


def stage_done(step: Step, stage: str, study: Path) -> bool:
    """Whether a stage is done, by what its command left: a record alone does not prove it."""
    if stage == "train":
        return trained(step)
    if stage == "evaluate":
        return metrics_whole(step.results)
    return read_record(step, study).stage(stage).code == 0 and (Path(step.place) / "train").is_dir()


def trained(step: Step) -> bool:
    """Whether the training that a run rests on is done: a model is there, which df-train exports last.

    A lip-sync expert is exported while it is still trained. It is done if its command was seen to end well, or by what
    df-train itself goes by: the checkpoint of the last step, which is saved after the last export.
    """
    run = RunDir(Path(step.trained_in))
    if run.finished or not (run.root / "expert" / "model.safetensors").is_file():
        return run.finished
    record = _read(run.root / RECORD)
    if record is not None and record.stage("train").code == 0:
        return True
    last = run.section("optim").get("steps") if run.config.is_file() else None
    return last is not None and (run.checkpoints / f"step-{last}" / "trainer.json").is_file()


def metrics_whole(folder: Path) -> bool:
    """Whether df-eval finished there; it writes `metrics.json` last."""
    try:
        return "lengths" in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def state_of(step: Step, study: Path) -> State:
    """How far a step is."""
    if all(stage_done(step, stage, study) for stage in step.commands) and (not step.is_run or trained(step)):
        return "done"
    record = read_record(step, study)
    if record.failure:
        return "failed"
    return "interrupted" if record.stages else "waiting"


def is_running(step: Step, study: Path) -> bool:
    """Whether a process works on the step just now."""
    held = record_place(step, study) / HELD
    if not held.is_file():
        return False
    try:
        os.close(open_locked(held, wait=False))
    except BlockingIOError:
        return True
    return False


def begin(record: Record, stage: str, log: Path) -> StageRecord:
    """Note that a stage begins; the time of an attempt whose end nobody saw is that until its log's last line."""
    found = record.stage(stage)
    if found.began is not None and log.is_file():
        found.seconds += max(0.0, log.stat().st_mtime - found.began)
    found.forget()
    found.began = time.time()
    found.attempts += 1
    return found
