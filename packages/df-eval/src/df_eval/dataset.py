"""The dataset that a run is measured on: the one it was trained on, wherever it lies now."""

from __future__ import annotations

from pathlib import Path

from df_data.reading.same import difference, find_dataset
from df_data.reading.source import is_remote
from df_eval.config import EvalConfig
from df_infer.run_dir import RunDir, RunRecord, read_record
from df_models.errors import UserError
from df_models.settings import Location

SPLIT = "val"


def dataset_of(run: RunDir, config: EvalConfig) -> Path | None:
    """The run's dataset, known by its digest; None if held-out people are to be rendered instead.

    They are rendered for a run on the synthetic corpus if `config.render` or the protocol says so, or if the run never
    had held-out clips of its own.

    Raises:
        UserError: the run names no dataset, or it is not found, or another one was given.
    """
    record = read_record(run.record) or RunRecord()
    synthetic = run.section("data").get("synth") is not None
    if config.protocol is not None and config.protocol.clips_from == "rendered":
        if not synthetic:
            raise UserError(
                f"the protocol {config.protocol.name} shows rendered people, and {run.root} was trained on other "
                "videos; take a protocol of its dataset"
            )
        return None
    if config.data is not None:
        return _given(config.data.path, record)
    if config.render:
        if not synthetic:
            raise UserError("render=true is for runs on the synthetic corpus; name the dataset with --data DIR")
        return None
    root = _root(run)
    if is_remote(root):
        found = find_dataset([Path(record.data_root)] if _local(record.data_root) else [], record.splits, SPLIT)
    else:
        found = find_dataset(run.places(root, record) if record.splits else [Path(root)], record.splits, SPLIT)
    if found is None and (SPLIT in record.splits or not synthetic):
        raise UserError(_not_found(run, root, record, synthetic))
    return found


def _given(root: Path, record: RunRecord) -> Path:
    if not (root / SPLIT).is_dir():
        raise UserError(f"--data {root}: there is no {SPLIT}/ in it; give the directory that holds train/ and {SPLIT}/")
    if (why := difference(root, record.splits, SPLIT)) is not None:
        raise UserError(f"--data {root} is not the dataset that the run was trained on: {why}")
    return root


def _root(run: RunDir) -> str:
    root = run.section("data").get("root")
    if not isinstance(root, str):
        raise UserError(f"{run.config} names no dataset (data.root); restore what df-train wrote")
    return Location.recorded(root)


def _local(root: str) -> bool:
    return bool(root) and not is_remote(root)


def _not_found(run: RunDir, root: str, record: RunRecord, synthetic: bool) -> str:
    if is_remote(root):
        return (
            f"the run was trained on {root}, and evaluation reads clips from a directory; copy the dataset's "
            f"config.yaml and {SPLIT}/ to a disk and name that directory with --data DIR"
        )
    why = difference(Path(root), record.splits, SPLIT) if (Path(root) / SPLIT).is_dir() else None
    why = why or f"{Path(root) / SPLIT} is not there (data.root as seen from {Path.cwd()})"
    rendered = ", or have held-out people rendered with render=true" if synthetic else ""
    return f"the dataset of {run.root} is not found: {why}; name its directory with --data DIR{rendered}"
