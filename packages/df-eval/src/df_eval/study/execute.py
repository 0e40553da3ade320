"""Doing a plan: steps whose needs are met, as many at a time as there are slots, on this machine or on Ray."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Protocol

from df_eval.study.config import SlotsConfig, StudyConfig
from df_eval.study.perform import Stopping, block, perform
from df_eval.study.plan import Plan, Step
from df_eval.study.records import read_record, state_of, write_record
from df_models.errors import UserError

Say = Callable[[str], None]


class Executor(Protocol):
    """Does steps somewhere."""

    def submit(self, step: Step) -> Future[str]:
        """Begin a step; the future gives its state afterwards."""
        ...

    def stop(self) -> None:
        """Tell what runs to stop, and wait for it."""
        ...


def environment_of(slots: SlotsConfig, slot: int | None = None) -> dict[str, str]:
    """What a step's commands are told by their environment."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    told = dict.fromkeys(names, str(slots.threads))
    return told | ({"CUDA_VISIBLE_DEVICES": slots.gpus[slot]} if slots.gpus and slot is not None else {})


class LocalExecutor:
    """Slots on this machine."""

    def __init__(self, config: StudyConfig, plan: Plan, say: Say) -> None:
        self._slots, self._plan, self._say = config.slots, plan, say
        self._pool = ThreadPoolExecutor(config.slots.count)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopping = Stopping()
        for slot in range(config.slots.count):
            self._free.put(slot)

    def submit(self, step: Step) -> Future[str]:
        """See `Executor`."""
        return self._pool.submit(self._do, step)

    def _do(self, step: Step) -> str:
        slot = self._free.get()
        try:
            return perform(step, self._plan, environment_of(self._slots, slot), self._stopping, self._say)
        finally:
            self._free.put(slot)

    def stop(self) -> None:
        """See `Executor`."""
        self._stopping.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)


class RayExecutor:
    """Tasks of a Ray cluster; every machine must see the study, its data and the cwd under the same paths."""

    def __init__(self, config: StudyConfig, plan: Plan) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UserError("executor=ray needs the package ray; install df-eval[ray] or use executor=local") from error
        self._ray, self._ours = ray, not ray.is_initialized()
        if self._ours:
            _connect(ray, config.slots)
        self._slots, self._plan = config.slots, plan
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self._task = ray.remote(num_cpus=config.slots.threads, num_gpus=gpus, max_retries=0)(_remotely)

    def submit(self, step: Step) -> Future[str]:
        """See `Executor`."""
        return self._task.remote(step, self._plan, environment_of(self._slots), os.getcwd()).future()

    def stop(self) -> None:
        """See `Executor`. Tasks that run elsewhere end with the connection; what they began goes on next time."""
        if self._ours:
            self._ray.shutdown()


def _connect(ray: Any, slots: SlotsConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    cores = None if address else slots.count * slots.threads
    try:
        ray.init(address=address or "local", num_cpus=cores, include_dashboard=None if address else False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error


def _remotely(step: Step, plan: Plan, environment: Mapping[str, str], cwd: str) -> str:
    os.chdir(cwd)
    return perform(step, plan, environment)


def execute(config: StudyConfig, plan: Plan, say: Say, *, retry: bool = False) -> None:
    """Do all steps that are not done. Failed ones stay as they are unless they are to be retried.

    Raises:
        KeyboardInterrupt: after telling the commands to stop; the same call goes on.
    """
    if retry:
        forget_failures(plan)
    if not to_do(plan):
        return
    executor = RayExecutor(config, plan) if config.executor == "ray" else LocalExecutor(config, plan, say)
    try:
        _drive(plan, executor, say)
    finally:
        executor.stop()


def to_do(plan: Plan) -> list[Step]:
    """Steps that are not done and can be: neither they nor what they need has failed."""
    study, hopeless, left = Path(plan.directory), set[str](), list[Step]()
    for step in plan.steps:  # what is needed stands before what needs it
        if state_of(step, study) == "done":
            continue
        failed = any(stage.failed for stage in read_record(step, study).stages.values())
        if failed or hopeless.intersection(step.needs):
            hopeless.add(step.key)
        else:
            left.append(step)
    return left


def forget_failures(plan: Plan) -> None:
    """Let failed steps, and those that needed them, be tried again; their logs and reasons stay."""
    study = Path(plan.directory)
    for step in plan.steps:
        record = read_record(step, study)
        if record.failure:
            record.blocked = ""
            for stage in record.stages.values():
                if stage.failed:
                    stage.forget()
            write_record(record, step, study)


def _drive(plan: Plan, executor: Executor, say: Say) -> None:
    study, steps = Path(plan.directory), {step.key: step for step in plan.steps}
    order = TopologicalSorter({step.key: step.needs for step in plan.steps})
    order.prepare()
    running: dict[Future[str], Step] = {}
    while order.is_active():
        for key in order.get_ready():
            step = steps[key]
            if _settled(step, steps, plan, say):
                order.done(key)
            else:
                running[executor.submit(step)] = step
        if not running:
            continue
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            step = running.pop(future)
            state = _state_after(future, step, study)
            say(f"{step.key}: {state}{_why(step, study, state)}")
            order.done(step.key)


def _state_after(future: Future[str], step: Step, study: Path) -> str:
    """The state of a step that ended; a full disk or a lost Ray node is a reason to fail, until the next call."""
    try:
        return future.result()
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        record = read_record(step, study)
        record.blocked = f"{type(error).__name__}: {lines[-1].strip() if lines else 'it said nothing'}"
        with contextlib.suppress(OSError):  # the disk is full, or gone; what is known is said all the same
            write_record(record, step, study)
        return f"failed: {record.blocked}"


def _settled(step: Step, steps: Mapping[str, Step], plan: Plan, say: Say) -> bool:
    """Whether there is nothing to do: it is done, has failed before, or needs what failed."""
    study = Path(plan.directory)
    if state_of(step, study) == "done":
        return True
    unmet = [needed for needed in step.needs if state_of(steps[needed], study) != "done"]
    if unmet:
        block(step, plan, unmet[0])
        say(f"{step.key}: not begun, it needs {unmet[0]}")
        return True
    return any(stage.failed for stage in read_record(step, study).stages.values())


def _why(step: Step, study: Path, state: str) -> str:
    failure = read_record(step, study).failure
    return f": {failure}" if state == "failed" and failure else ""
