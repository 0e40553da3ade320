"""Where a run starts: at step 0, or at a checkpoint of the run that stands in its directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from df_data.reading.peek import manifest_of
from df_data.reading.same import digests_of, find_dataset
from df_infer.run_dir import RunDir, RunRecord, read_record
from df_infer.run_log import read_log
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.locks import one_writer
from df_models.settings import Location, dump_config, load_config
from df_train.config import DataConfig, TrainConfig
from df_train.saving.checkpoint import CheckpointInfo, newest, newest_info

Wish = Literal["default", "resume", "fresh"]


def clear(run: RunDir, into: Path | None = None) -> None:
    """Remove what a run has written, and nothing else that someone may have put there.

    Args:
        into: a folder of the same directory to move it to instead.

    Raises:
        UserError: an evaluation is being written there; nothing is removed then.
    """
    evaluations = [run.eval, *run.eval.glob("step-*")]
    with ExitStack() as held:
        for path in evaluations if not run.eval.is_symlink() else ():
            if path.is_dir():
                held.enter_context(one_writer(path, "df-train --fresh"))
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
        for path in run.written:
            if into is not None:
                if path.exists() or path.is_symlink():
                    path.rename(into / path.name)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def go_back(run: RunDir, step: int) -> list[int]:
    """Remove the milestones of later steps than the one that a run goes on from, and what df-eval measured of them.

    They will be taken again, perhaps otherwise (a lower `optim.lr` after a run that diverged).

    Returns:
        The steps whose milestones are gone.

    Raises:
        UserError: one of them is being measured; nothing is removed then.
    """
    later = [taken for taken in run.milestone_steps if taken > step]
    evaluations = [path for taken in later if (path := run.evaluation(taken)).is_dir()]
    with ExitStack() as held:
        for path in evaluations:
            held.enter_context(one_writer(path, "df-train"))
        for path in [*map(run.milestone, later), *evaluations]:
            shutil.rmtree(path)
    return later


def write_config(run: RunDir, config: TrainConfig) -> None:
    """Write the resolved configuration; it reads back equal."""
    run.root.mkdir(parents=True, exist_ok=True)
    atomic_write(run.config, dump_config(config))


def steps_taken(run: RunDir) -> int:
    """The last step that was logged, 0 if none."""
    lines = read_log(run.metrics)
    return int(lines[-1]["step"]) if lines else 0


def record_of(config: TrainConfig, known: Mapping[str, str]) -> RunRecord:
    """What `run.json` says of a run on a dataset that is made; what is `known` of splits that are gone stays."""
    data = config.data
    root = data.root if data.remote else str(Path(data.root).resolve())
    return RunRecord(root, {**known, **digests_of(data.root, manifest_of(data.split("train")))})


def in_its_place(config: TrainConfig, file: Path) -> TrainConfig:
    """A configuration read from a run's own `config.yaml` means that run, wherever it was moved."""
    run = RunDir(file.parent)
    if not run.ours or file.resolve() != run.config.resolve():
        return config
    return config.model_copy(update={"run_dir": Location(run.root)})


def check_named(data: DataConfig) -> None:
    """Refuse a directory given by `--data` that holds no dataset: nothing is made or looked for elsewhere then.

    Raises:
        UserError: there is no training split.
    """
    if not data.remote and not (Path(data.root) / "train").is_dir():
        raise UserError(f"--data {data.root}: there is no train/ in it; give the directory that holds train/ and val/")


def located(config: TrainConfig, wish: Wish, say: Callable[[str], None]) -> TrainConfig:
    """The configuration with the dataset's place as it is now.

    A run that goes on, and finds nothing at `data.root`, looks where its dataset was and beside the run.
    """
    run = RunDir(config.directory)
    record = None if wish == "fresh" else read_record(run.record)
    root = config.data.root
    if record is None or config.data.remote or (Path(root) / "train").is_dir():
        return config
    found = find_dataset(run.places(root, record), record.splits, "train")
    if found is None:
        return config
    say(f"the run's dataset is found at {found}")
    return config.model_copy(update={"data": config.data.model_copy(update={"root": Location(found)})})


def digests_known(run: RunDir, start: CheckpointInfo | None) -> Mapping[str, str]:
    """The digests that the dataset of a run that goes on must have; none at step 0, or in a run without a record."""
    record = None if start is None else read_record(run.record)
    return {} if record is None else record.splits


def check_place(run: RunDir, wish: Wish) -> None:
    """Refuse a directory that holds what a run would overwrite or remove, and that df-train did not write.

    `run.json` is what tells; a run of an earlier version, which has none, can only be gone on with.

    Raises:
        UserError: naming what is there.
    """
    there = [path for path in run.written if path.exists()]
    if run.ours or not there:
        return
    if wish != "fresh" and any(run.checkpoints.glob("step-*/trainer.json")):
        return
    names = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in there)
    raise UserError(
        f"{run.root} holds {names}, and no {run.record.name} says that df-train wrote them; move them away, or take "
        "another name= or run_dir="
    )


def choose_start(config: TrainConfig, wish: Wish, say: Callable[[str], None]) -> CheckpointInfo | None:
    """The checkpoint to continue from, or None to start at step 0. It never restarts a run unless asked to.

    Args:
        wish: `resume` (there must be something to resume), `fresh` (what is there will be removed), or `default`.

    Raises:
        UserError: as :func:`check_start`, or the run has taken steps but left no whole checkpoint.
    """
    run = RunDir(config.directory)
    check_start(config, wish)
    if wish == "fresh" or not _resumes(config, wish):
        return None
    info = newest(run.checkpoints, say)
    if info is None and wish == "resume":
        raise UserError(f"nothing to resume: {run.checkpoints} holds no checkpoint; leave out --resume")
    if info is None and (taken := steps_taken(run)):
        raise UserError(f"{run.root} stopped at step {taken} before its first checkpoint; say --fresh to start over")
    return info


def check_start(config: TrainConfig, wish: Wish) -> None:
    """Refuse what the run that stands in the directory is not to be begun or gone on with; its weights are not read.

    Raises:
        UserError: the run is finished, has taken more steps than are asked for, or is another model's or seed's.
    """
    run = RunDir(config.directory)
    check_place(run, wish)
    if wish == "fresh":
        return
    if run.finished and wish == "default":
        raise UserError(f"{run.root} holds a finished run; say --fresh to train it anew, --resume to train it further")
    if not _resumes(config, wish):
        if run.config.is_file():
            raise UserError(f"{run.root} holds a run and checkpoint.resume is never; say --fresh, or another name=")
        return
    if (info := newest_info(run.checkpoints)) is None:
        return
    if info.step > config.optim.steps:
        raise UserError(
            f"{run.root} is at step {info.step}, beyond optim.steps={config.optim.steps}; ask for more steps, or take "
            "another name="
        )
    _check_same_model(run, config)


def _resumes(config: TrainConfig, wish: Wish) -> bool:
    return wish == "resume" or config.checkpoint.resume == "auto"


def _check_same_model(run: RunDir, config: TrainConfig) -> None:
    old = load_config(TrainConfig, run.config, recorded=True)
    if old.seed != config.seed:
        raise UserError(
            f"{run.root} trains with seed={old.seed}, the config now says {config.seed}; take another name=, or --fresh"
        )
    if old.adapter != config.adapter:
        raise UserError(
            f"{run.root} trains with adapter {old.adapter.model_dump()}, the config now says "
            f"{config.adapter.model_dump()}; take another name=, or --fresh"
        )
    before, now = old.model.model_dump(), config.model.model_dump()
    if config.task == "distill" or config.adapter.kind != "none":
        before.pop("start_from")  # a model that is read again may have moved: its digest tells whether it is the same
    for name in before:
        if before[name] != now[name]:
            raise UserError(
                f"{run.root} trains with model.{name}={before[name]}, the config now says {now[name]}; take another "
                "name=, or --fresh"
            )
    expert, given = old.objective.sync.sha256, config.objective.sync.sha256
    if expert and given and expert != given:
        raise UserError(
            f"{run.root} was begun with another lip-sync expert (sha256 {expert[:12]}) than "
            f"objective.sync.expert={config.objective.sync.expert} ({given[:12]}); give that one, or say --fresh"
        )
