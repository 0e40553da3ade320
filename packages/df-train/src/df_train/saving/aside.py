"""What a run had written, kept until the one that `--fresh` begins in its place is sure to go on.

Whether a time budget is long enough is known only when the first steps were measured, which is the last of all checks.
Until then the old run lies in a hidden folder of the same directory, so moving it costs nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from df_infer.run_dir import RunDir
from df_train.saving.start import clear

FOLDER = ".before-fresh"


def set_aside(run: RunDir) -> None:
    """Move what a run has written out of the way, and nothing else.

    Raises:
        UserError: an evaluation is being written there; nothing is moved then.
    """
    clear(run, into=_folder(run))


def put_back(run: RunDir) -> None:
    """Undo :func:`set_aside`, and remove what was written since; nothing happens where nothing was set aside."""
    folder = _folder(run)
    if folder.is_dir():
        clear(run)
        for path in folder.iterdir():
            path.rename(run.root / path.name)
        folder.rmdir()


def forget(run: RunDir) -> None:
    """Remove what was set aside."""
    shutil.rmtree(_folder(run), ignore_errors=True)


def recover(run: RunDir, say: Callable[[str], None]) -> None:
    """Settle what a kill left aside: a new run that can be gone on with or used stays, else the old one comes back."""
    if not _folder(run).is_dir():
        return
    if run.finished or any(run.checkpoints.glob("step-*/trainer.json")):
        forget(run)
        return
    put_back(run)
    say(f"{run.root}: a run that --fresh had begun was killed in its first steps; what was there before is put back")


def _folder(run: RunDir) -> Path:
    return run.root / FOLDER
