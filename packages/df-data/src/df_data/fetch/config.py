"""Configuration of `df-data plan` and `df-data fetch`."""

from __future__ import annotations

from pydantic import Field

from df_data.sources.catalogue import DatasetName
from df_models.settings import FrozenModel, Location


class FetchConfig(FrozenModel):
    """Which dataset is fetched, to where, and how gently.

    Attributes:
        source: name of the dataset.
        lists: file or folder of its lists (of its videos, for one of local files); ``${NAME:-default}`` is
            replaced from the environment.
        out: directory that gets ``clips/``, ``journal.jsonl`` and, while it works, ``raw/``.
        limit: use only the first so many videos of the lists; none for all.
        piece_s: cut listed clips that are longer into pieces of so many seconds; none keeps them whole (a build
            takes long videos in stretches).
        max_height: the largest height that is downloaded where there is a choice, in pixels.
        expand: factor by which the listed crops are enlarged about their centre.
        crf: x264's quality of the clips (smaller is better; 12 cannot be told from the source by eye).
        rate_limit: bytes per second of all downloads together; none for no limit.
        pause_s: seconds between one video and the next.
        timeout_s: seconds after which a silent connection is given up.
        attempts: tries of one video in one run.
        backoff_s: wait after the first failed try, doubled after each.
        longest_wait_s: upper limit of any wait, one that a server asks for as well.
        stop_after: end the run when so many videos in a row failed for a passing reason (no network, blocked).
        max_gb: a larger video is refused.
        keep_raw: keep the downloaded videos after their clips are cut.
        retry_dead: try videos again that are recorded as dead.
        cookies: Netscape cookie file for sites that want a login, or none.
    """

    source: DatasetName
    lists: Location
    out: Location | None = None
    limit: int | None = Field(default=None, ge=1)
    piece_s: float | None = Field(default=None, ge=4)
    max_height: int = Field(default=1080, ge=144)
    expand: float = Field(default=1.0, ge=1.0, le=4.0)
    crf: int = Field(default=12, ge=0, le=30)
    rate_limit: int | None = Field(default=8_000_000, ge=10_000)
    pause_s: float = Field(default=5.0, ge=0)
    timeout_s: float = Field(default=30.0, gt=0)
    attempts: int = Field(default=4, ge=1, le=20)
    backoff_s: float = Field(default=5.0, ge=0)
    longest_wait_s: float = Field(default=300.0, ge=0)
    stop_after: int = Field(default=5, ge=1)
    max_gb: float = Field(default=8.0, gt=0)
    keep_raw: bool = False
    retry_dead: bool = False
    cookies: Location | None = None
