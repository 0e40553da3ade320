"""Doing one step: its commands in turn, each in a process of its own, with a log and a record.

    python -m df_eval.study.perform STUDY_DIR KEY       # what a Slurm job does

The same code does it in every executor.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from df_eval.study.plan import Plan, Step, read_plan
from df_eval.study.records import (
    HELD,
    Record,
    StageRecord,
    begin,
    read_record,
    record_place,
    stage_done,
    state_of,
    write_record,
)
from df_infer.run_dir import RunDir
from df_models.cli_support import EXIT_INTERRUPTED, run_cli
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.locks import open_locked
from df_models.settings import dump_config, validate_config

LONGEST_REASON = 400
POLL_S = 0.2
_PROGRESS = re.compile(r"\d+%\|")
"""In a line of tqdm."""


class Stopping:
    """Tells running commands to stop, from another thread."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.asked = False

    @contextlib.contextmanager
    def watching(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Count a process among those to stop."""
        with self._lock:
            self._running.add(process)
            if self.asked:
                process.terminate()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Send SIGTERM to all that runs; df-train then saves a checkpoint."""
        with self._lock:
            self.asked = True
            for process in self._running:
                process.terminate()


def perform(
    step: Step,
    plan: Plan,
    environment: Mapping[str, str] | None = None,
    stopping: Stopping | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Do what is left of a step; returns its state afterwards. A command's failure is recorded, not raised.

    Raises:
        OSError: the study's directory cannot be written.
    """
    study, stopping = Path(plan.directory), stopping or Stopping()
    place = record_place(step, study)
    place.mkdir(parents=True, exist_ok=True)
    lock = _hold(place / HELD, stopping, lambda: say(f"{step.key}: waits for a command of a study that was killed"))
    if lock is None:
        return state_of(step, study)
    try:
        record = read_record(step, study)
        record.blocked = ""
        if step.commands.get("corpus"):
            _write_corpus_config(step, plan)
        for stage, argv in step.commands.items():
            if stage_done(step, stage, study):
                continue
            if stopping.asked:
                break
            if stage == "train":
                _forget_measured(step, plan)
            log = place / f"{stage}.log"
            found = begin(record, stage, log)
            write_record(record, step, study)
            say(f"{step.key}: {stage} begins, log {log}")
            _run(found, [*argv, *_again(step, stage)], log, environment, lock, stopping)
            write_record(record, step, study)
            if found.code == 0 and stage != "corpus" and not stage_done(step, stage, study):
                found.code, found.reason = 1, "it ended with exit code 0, but its result is not there or not whole"
                write_record(record, step, study)
            if found.code != 0:
                break
    finally:
        os.close(lock)
    return state_of(step, study)


def _hold(held: Path, stopping: Stopping, tell: Callable[[], None]) -> int | None:
    """Hold a step's lock, after telling once that another holds it; None if told to stop meanwhile."""
    told = False
    while not stopping.asked:
        try:
            return open_locked(held, wait=False)
        except BlockingIOError:
            if not told:
                tell()
            told = True
            time.sleep(POLL_S)
    return None


def _forget_measured(step: Step, plan: Plan) -> None:
    """What was measured of an earlier training in the same place is not of the one that begins."""
    for other in plan.runs:
        if other.trained_in == step.place:
            (other.results / "metrics.json").unlink(missing_ok=True)


def _run(
    found: StageRecord,
    argv: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None,
    lock: int,
    stopping: Stopping,
) -> None:
    started = time.monotonic()
    with open(log, "ab") as file:
        since = file.tell()
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(environment or {}),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C comes to the study alone, which tells its commands in its own way
            )
        except OSError as error:
            found.code, found.reason = 127, f"{argv[0]}: {error.strerror}"
        else:
            with stopping.watching(process):
                found.code = _wait(process)
            found.reason = "" if found.code == 0 else last_line(log, since)
    if stopping.asked and found.code not in (0, None):
        found.code = EXIT_INTERRUPTED
    found.seconds += time.monotonic() - started
    found.began = None


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code; whoever is interrupted here (a Slurm job) tells the command first, and waits for it."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _again(step: Step, stage: str) -> list[str]:
    """What df-train needs to hear beside its first command: one killed before its first checkpoint starts over."""
    run = RunDir(Path(step.place))
    begun = stage == "train" and run.ours and run.metrics.is_file()
    return ["--fresh"] if begun and not any(run.checkpoints.glob("step-*/trainer.json")) else []


def _write_corpus_config(step: Step, plan: Plan) -> None:
    """The file that the corpus's command reads."""
    from df_data.synth.config import SynthConfig

    argv = step.commands["corpus"]
    file = Path(argv[argv.index("--config") + 1])
    synth = next(
        tree["data"]["synth"]
        for tree in plan.configs.values()
        if isinstance(tree.get("data"), dict) and tree["data"].get("synth") and tree["data"]["root"] == step.place
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, dump_config(validate_config(SynthConfig, synth, str(file), recorded=True)))


def last_line(log: Path, since: int = 0) -> str:
    """What a log says last: of an error, or if it names none, anything but a progress bar, or that.

    Args:
        since: the byte at which the attempt began; what stands before is of earlier ones.
    """
    with open(log, "rb") as file:
        file.seek(max(since, log.stat().st_size - 8192))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    told = [line for line in lines if not _PROGRESS.search(line)]
    errors = [line for line in told if "error" in line.lower()]
    found = errors or told or lines
    return found[-1][:LONGEST_REASON] if found else ""


def block(step: Step, plan: Plan, needed: str) -> None:
    """Record that a step could not begin because one that it needs is not done."""
    study = Path(plan.directory)
    record: Record = read_record(step, study)
    record.blocked = f"needs {needed}, which is not done"
    write_record(record, step, study)


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("df_eval.study.perform", description="Do one step of a study.")
    parser.add_argument("study", type=Path, help="the study's directory")
    parser.add_argument("key", help="the step's key, as plan.json has it")
    options = parser.parse_args(argv)
    plan = read_plan(options.study)
    steps = {step.key: step for step in plan.steps}
    if options.key not in steps:
        raise UserError(
            f"{options.study} has no step {options.key!r}; the study was planned anew: write its scripts again"
        )
    step, study = steps[options.key], options.study
    if any(state_of(steps[needed], study) != "done" for needed in step.needs):
        block(step, plan, next(needed for needed in step.needs if state_of(steps[needed], study) != "done"))
        return 1
    return 0 if perform(step, plan) == "done" else 1


if __name__ == "__main__":
    raise SystemExit(run_cli(_main, "df_eval.study.perform"))
