"""What downloads a video: an interface, and the two ways in which a download fails."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from df_models.settings import FrozenModel

Progress = Callable[[int], None]
"""Told the bytes that came since it was last told."""


class Downloaded(FrozenModel):
    """A whole video on disk: one file, or images and audio in one each.

    Attributes:
        video: name of the file with the images, in the folder that it was downloaded to.
        audio: name of the file with the audio if that is another one, else None.
        bytes: of both.
        tool: name and version of what downloaded it.
        video_licence: what the site says of the video's licence, if anything.
    """

    video: str
    audio: str | None = None
    bytes: int
    tool: str
    video_licence: str | None = None


class DownloadFailed(Exception):
    """A download that failed, with a short machine-readable reason and one line of detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = " ".join(detail.split())[:500]


class Gone(DownloadFailed):
    """The video will not come: removed, private, refused for good."""


class Passing(DownloadFailed):
    """Another try may succeed: a timeout, a cut connection, too many requests.

    Attributes:
        wait_s: how long the server asks to wait, if it does.
    """

    def __init__(self, reason: str, detail: str, wait_s: float | None = None) -> None:
        super().__init__(reason, detail)
        self.wait_s = wait_s


class Downloader(Protocol):
    """Downloads a video to a folder, and goes on with what an earlier try left there."""

    def download(self, url: str, folder: Path, progress: Progress) -> Downloaded:
        """Return the whole video's files.

        Raises:
            Gone: it will not come.
            Passing: another try may succeed.
            OSError: the disk is full.
        """
        ...


@dataclass
class Throttle:
    """Keeps the mean rate since it was made at or below a limit by sleeping; a pause does not save up for a burst.

    Attributes:
        bytes_per_s: the limit, None for none.
    """

    bytes_per_s: int | None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _free_at: float = 0.0

    def passed(self, count: int) -> None:
        """Wait as long as so many bytes take."""
        if not self.bytes_per_s:
            return
        now = self.clock()
        self._free_at = max(now, self._free_at) + count / self.bytes_per_s
        if self._free_at > now:
            self.sleep(self._free_at - now)


def raise_if_disk_full(error: BaseException | None) -> None:
    """Raise an OSError if one of a chain of exceptions says that the disk is full (tools wrap it in their own)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, error.filename) from error
        wrapped = getattr(error, "exc_info", None)
        error = wrapped[1] if wrapped else error.__cause__ or error.__context__
