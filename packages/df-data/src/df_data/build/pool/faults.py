"""What a worker makes of an exception: an input's fault, in one line, or one that ends the build."""

from __future__ import annotations

import errno
from pathlib import Path

from df_models.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_ours(error: Exception) -> bool:
    """Whether an exception is no input's fault: a package is missing, or the disk is full."""
    return isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno in DISK_FULL)


def error_line(error: Exception, path: Path) -> str:
    """Return an error as one line that does not say where on this machine the input lies."""
    known = error.strerror if isinstance(error, OSError) else None
    text = " ".join((known or str(error)).replace(str(path), path.name).split()) or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
