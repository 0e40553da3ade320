"""Checkpoints to resume from: whole or absent, verified before use, independent of the number of processes.

A checkpoint is a directory `checkpoints/step-N/`:

    tensors/            model, average and optimizer, written by `torch.distributed.checkpoint` (DCP), each process
                        its own shards; loading on another number of processes reshards
    rank-R.json         what process R alone knows: where its reader stands
    rank-R.safetensors  its tensors, if it has any (the recorded errors of error recycling)
    files-R.json        size and sha256 of every file that process R wrote
    trainer.json        step, number of processes, configuration; written last

It is written as `step-N.tmp` and renamed when everything is on disk. When, and by which thread:
`df_train.saving.saves`. Checkpoints are for resuming one's own runs; what is given to others is the safetensors export
in `model/`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

from df_models.cli_support import NO_PLACE, MachineError, disk_full
from df_models.errors import UserError
from df_models.files import atomic_path, atomic_write, sha256_file, sync
from df_train.processes.distributed import World
from df_train.processes.peers import PeerFailed

FORMAT = 1
_CUT_SHORT = "unexpected pos"  # what torch's zip writer says when a write was cut short
_NO_SPACE_BYTES = 16 << 20  # more than file systems keep back, less than any checkpoint's last piece leaves
_NAME = re.compile(r"step-(\d+)")


class DamagedCheckpoint(UserError):
    """A checkpoint directory that is not whole; the message says what is wrong with it."""


@dataclass(frozen=True)
class RankState:
    """What one process keeps for itself: JSON values, and tensors by name (may be empty)."""

    values: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint and what it says of itself."""

    path: Path
    step: int
    world_size: int
    values: dict[str, Any]


# --------------------------------------------------------------------------------------------------------------- saving


def save(
    root: Path, step: int, tensors: dict[str, Any], own: RankState, shared: Mapping[str, Any], world: World, keep: int
) -> None:
    """Write `root/step-N` and remove all but the newest `keep`; every process must call it.

    What goes wrong in one process ends it in all, before anything has the checkpoint's final name.

    Args:
        tensors: the state dict for DCP; sharded tensors are written once, by their owners.
        own: this process's own state.
        shared: JSON values that are the same in every process.

    Raises:
        MachineError: the disk is full or faulty. What was written of this checkpoint is removed, earlier ones stay.
        UserError: the directory cannot be written; the same.
        PeerFailed: another process met one of these.
    """
    part = root / f"step-{step}.tmp"
    trainer = {"format": FORMAT, "step": step, "world_size": world.size, **shared}
    try:
        _together(partial(_begin, part), world, world.is_main)
        _together(partial(_write, part, tensors, own, world), world)
        _together(partial(_finish, part, trainer, keep), world, world.is_main)
    except Exception as error:
        if world.is_main:
            shutil.rmtree(part, ignore_errors=True)
        if (told := _told(error, root, step)) is None:
            raise
        raise told from error


def _together(work: Callable[[], None], world: World, mine: bool = True) -> None:
    """Do `work` in this process if it is `mine`; come back when all processes have done theirs, or fail in all."""
    failure: Exception | None = None
    try:
        if mine:
            work()
    except Exception as error:
        failure = error
    failed = world.each_beside(failure is not None)
    if failure is not None:
        raise failure
    if any(failed):
        raise PeerFailed("another process could not write its part of the checkpoint")


def _begin(part: Path) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()


def _write(part: Path, tensors: dict[str, Any], own: RankState, world: World) -> None:
    _save_tensors(part / "tensors", tensors, world)
    _write_own(part, own, world.rank)


def _finish(part: Path, trainer: Mapping[str, Any], keep: int) -> None:
    final = part.with_suffix("")
    atomic_write(part / "trainer.json", json.dumps(trainer, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    os.rename(part, final)
    sync(final.parent)
    prune(final.parent, keep)


def _told(error: Exception, root: Path, step: int) -> Exception | None:
    """The line for the user about what stopped a checkpoint; None if the error is to speak for itself."""
    kept = next((f"; {path.name} is kept" for path in _newest_first(root)), "")
    what = f"the checkpoint of step {step} could not be written{kept}"
    if _for_want_of_space(error, root):
        return MachineError(f"the disk is full: {what}; free some space for {root} and give the same command again")
    if not isinstance(error, OSError):
        return None
    why = f"{error.strerror or error}: {what}; mend {error.filename or root} and give the same command again"
    return UserError(why) if error.errno in (*NO_PLACE, errno.EPERM) else MachineError(why)


def _for_want_of_space(error: Exception, root: Path) -> bool:
    """torch's writer tells a full disk only in what its error came from, and another process's comes without that."""
    if disk_full(error) is not None:
        return True
    cut_short = isinstance(error, RuntimeError) and _CUT_SHORT in str(error)
    return cut_short and shutil.disk_usage(root).free < _NO_SPACE_BYTES


def _save_tensors(path: Path, tensors: dict[str, Any], world: World) -> None:
    """DCP wraps what goes wrong in any process; a full disk or a refused permission is told as itself.

    A process alone needs no collectives. Their threads would keep OpenMP teams of their own, after which GNU OpenMP
    takes the cores for overbooked and every later step on the CPU takes half as long again.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            writer = FileSystemWriter(path)
            if not _on_device(tensors):
                writer.per_thread_copy_ahead = 0
            dcp.save(tensors, storage_writer=writer, process_group=world.beside, no_dist=world.size == 1)
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if disk_full(failure) is not None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            if isinstance(failure, OSError | KeyboardInterrupt) or _CUT_SHORT in str(failure):
                raise failure from error
        raise RuntimeError(f"the checkpoint {path.parent} could not be written") from error


def _on_device(tensors: Mapping[str, Any]) -> bool:
    """Whether any tensor is not in host memory.

    Where CUDA is there, DCP's writer copies ahead on a stream, and waits for training's own, even for what is on the
    host already (torch 2.11 and 2.15, `_OverlappingCpuLoader`).
    """
    return any(
        value.device.type != "cpu" if isinstance(value, Tensor) else _on_device(value) for value in tensors.values()
    )


def _write_own(part: Path, own: RankState, rank: int) -> None:
    atomic_write(part / f"rank-{rank}.json", json.dumps(own.values))
    if own.tensors:
        with atomic_path(part / f"rank-{rank}.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in own.tensors.items()}, temporary)
    mine = [path for path in _files(part) if _owner(path) == rank]
    digests = {str(path.relative_to(part)): [path.stat().st_size, sha256_file(path)] for path in mine}
    atomic_write(part / f"files-{rank}.json", json.dumps(digests, indent=1))


def _files(part: Path) -> list[Path]:
    return sorted(path for path in part.rglob("*") if path.is_file() and not path.name.endswith(".tmp"))


def _owner(path: Path) -> int | None:
    """The process that wrote a file; DCP names its files `__RANK_i.distcp`, its index is rank 0's."""
    if path.name == ".metadata":
        return 0
    match = re.fullmatch(r"__(\d+)_\d+\.distcp|rank-(\d+)\.\w+", path.name)
    return int(match[1] or match[2]) if match else None


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what killed processes left behind."""
    for part in root.glob("step-*.tmp"):
        shutil.rmtree(part, ignore_errors=True)
    for path in list(_newest_first(root))[keep:]:
        # Renamed first: a removal that is interrupted must not leave half a checkpoint under a final name.
        doomed = path.with_name(path.name + ".tmp")
        os.rename(path, doomed)
        shutil.rmtree(doomed)


def bytes_held(root: Path) -> int:
    """Bytes of all checkpoints under a directory, whole or not; each will be replaced."""
    return sum(file.stat().st_size for path in root.glob("step-*") for file in path.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------------------------- choosing


def _newest_first(root: Path) -> Iterator[Path]:
    found = [(int(match[1]), path) for path in root.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    for _, path in sorted(found, reverse=True):
        yield path


def verify(path: Path) -> CheckpointInfo:
    """Check that every file is there with its size and sha256.

    Raises:
        DamagedCheckpoint: with the first file that is missing or changed.
    """
    info = read_info(path)
    for rank in range(info.world_size):
        for name, (size, digest) in _read_json(path / f"files-{rank}.json").items():
            file = path / name
            if not file.is_file() or file.stat().st_size != size:
                raise DamagedCheckpoint(f"{path}: {name} is missing or has the wrong size")
            if sha256_file(file) != digest:
                raise DamagedCheckpoint(f"{path}: {name} has changed since it was written (its sha256 differs)")
    return info


def newest_info(root: Path) -> CheckpointInfo | None:
    """What the newest checkpoint that can be read says of itself, without checking its files; None if there is none."""
    for path in _newest_first(root):
        with contextlib.suppress(DamagedCheckpoint):
            return read_info(path)
    return None


def read_info(path: Path) -> CheckpointInfo:
    """What a checkpoint says of itself, without checking its files."""
    trainer = _read_json(path / "trainer.json")
    if trainer.get("format") != FORMAT:
        raise DamagedCheckpoint(f"{path}: format {trainer.get('format')} is not {FORMAT}, which this version reads")
    return CheckpointInfo(path, trainer["step"], trainer["world_size"], trainer)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedCheckpoint(f"{path.parent}: {path.name} is missing or cannot be read") from error


def newest(root: Path, say: Callable[[str], None]) -> CheckpointInfo | None:
    """The newest whole checkpoint; damaged ones are named through `say` and passed over. None if there are none.

    Raises:
        UserError: there are checkpoints, but not one of them is whole.
    """
    damaged: list[str] = []
    for path in _newest_first(root):
        try:
            return verify(path)
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            say(f"damaged checkpoint passed over: {error}")
    if damaged:
        raise UserError(f"no whole checkpoint in {root}; start over with --fresh, or mend this one: {damaged[0]}")
    return None


# -------------------------------------------------------------------------------------------------------------- loading


def load_tensors(info: CheckpointInfo, tensors: dict[str, Any]) -> None:
    """Read DCP's tensors in place into `tensors`, resharding to the present number of processes.

    Raises:
        UserError: other names or shapes than the checkpoint's.
    """
    try:
        dcp.load(tensors, storage_reader=FileSystemReader(info.path / "tensors"))
    except (RuntimeError, ValueError, KeyError, CheckpointException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{info.path} does not fit the model of the config ({reason})") from error


def load_rank(info: CheckpointInfo, rank: int) -> RankState:
    """The own state of process `rank` at the time of saving."""
    path = info.path / f"rank-{rank}.safetensors"
    return RankState(_read_json(info.path / f"rank-{rank}.json"), load_file(path) if path.is_file() else {})
