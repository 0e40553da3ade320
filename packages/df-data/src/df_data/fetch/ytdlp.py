"""Download from video sites with yt-dlp as a library (extra ``df-data[fetch]``).

Images and audio are downloaded as the site has them, mostly one file each, and never merged: that would need the
ffmpeg program, and the cutter reads two files as well as one. Source of the options and of the errors' words:
``yt_dlp/YoutubeDL.py`` and ``yt_dlp/extractor/youtube`` of yt-dlp 2026.10.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from df_data.fetch.download import Downloaded, DownloadFailed, Gone, Passing, Progress, raise_if_disk_full
from df_models.errors import UserError

INSTALL = "yt-dlp is not installed; install it with: pip install 'df-data[fetch]'"
JS_RUNTIMES = ("deno", "node", "bun")
"""Programs that yt-dlp can run YouTube's scripts with; without one YouTube offers few formats or none."""

_PASSING = re.compile(
    r"not a bot|rate.?limit|too many requests|HTTP Error (?:408|425|429|5\d\d)|try again|timed? ?out|temporar"
    r"|connection|reset by peer|network|resolve|content too short|incompleteread|bytes read|needs to be reloaded"
    r"|unable to download",
    re.IGNORECASE,
)
_BLOCKED = re.compile(r"not a bot|rate.?limit|too many requests|HTTP Error 429", re.IGNORECASE)
_GONE = {
    "private": r"private video|video is private",
    "removed": r"been removed|no longer available|been terminated|account.*closed|deleted",
    "blocked_here": r"your country|your location|geo.?restrict",
    "needs_login": r"confirm your age|members.only|join this channel|login required|sign in|HTTP Error 401",
    "copyright": r"copyright",
    "not_found": r"HTTP Error (?:404|410|451)",
    "unsupported": r"unsupported url|no video formats|is not a valid url|drm",
    "unavailable": r"video unavailable|not available|isn.t available|does not exist",
}


class YtDlpDownloader:
    """Downloads the video of a page.

    Args:
        max_height: the largest height that is chosen where there is a choice.
        rate_limit: bytes per second, None for none.
        timeout_s: seconds after which a silent connection is given up.
        max_bytes: a larger file is refused.
        cookies: Netscape cookie file, or none.

    Raises:
        UserError: yt-dlp is not installed.
    """

    def __init__(
        self,
        max_height: int = 1080,
        rate_limit: int | None = None,
        timeout_s: float = 30.0,
        max_bytes: int = 8 * 10**9,
        cookies: str | None = None,
    ) -> None:
        self.max_height, self.max_bytes = max_height, max_bytes
        self.tool = f"yt-dlp {ytdlp_version()}"
        self._options: dict[str, Any] = {
            "ratelimit": rate_limit,
            "socket_timeout": timeout_s,
            "max_filesize": max_bytes,
            "cookiefile": cookies,
            "format": self._select,
            "outtmpl": {"default": "part-%(format_id)s.%(ext)s"},
            "js_runtimes": {name: {} for name in JS_RUNTIMES if shutil.which(name)},
            "continuedl": True,
            "match_filter": _not_live,
            "noplaylist": True,
            "playlist_items": "1",
            "retries": 0,
            "fragment_retries": 2,
            "skip_unavailable_fragments": False,
            "fixup": "never",
            "cachedir": False,
            "quiet": True,
            "noprogress": True,
            "no_warnings": True,
            "restrictfilenames": True,
        }

    def download(self, url: str, folder: Path, progress: Progress) -> Downloaded:
        """Download to ``folder``; what an earlier try left there is continued.

        Raises:
            Gone: private, removed, blocked, too large, a live broadcast, or of no site that yt-dlp knows.
            Passing: too many requests, a timeout, or an error whose words are not known.
            OSError: the disk is full.
        """
        import yt_dlp
        from yt_dlp.utils import YoutubeDLError

        told = _Told(progress)
        options: Any = self._options | {"paths": {"home": str(folder)}, "logger": _Silent()}
        try:
            with yt_dlp.YoutubeDL(options | {"progress_hooks": [told.hook]}) as program:
                info: Any = program.extract_info(url, download=True)
        except YoutubeDLError as error:
            raise_if_disk_full(error)
            raise classify(str(error)) from error
        except OSError as error:
            raise_if_disk_full(error)
            raise Passing("connection", str(error)) from error
        return self._result(info, folder)

    def _select(self, context: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from choose_formats(context["formats"], self.max_height)

    def _result(self, info: Any, folder: Path) -> Downloaded:
        if info and info.get("entries") is not None:
            info = next(iter(info["entries"]), None)
        done = (info or {}).get("requested_downloads") or []
        names = {part["filepath"]: part for part in done if part.get("filepath") and Path(part["filepath"]).is_file()}
        images = [path for path, part in names.items() if part.get("vcodec") != "none"]
        audio = [path for path, part in names.items() if part.get("vcodec") == "none"]
        if (info or {}).get("is_live"):
            raise Gone("live", "a broadcast that is still going on")
        if not images or len(names) < len(done):
            raise Gone("too_large", f"yt-dlp left no file (more than {self.max_bytes} bytes?)")
        files = [_inside(folder, path) for path in (images[0], *audio[:1])]
        return Downloaded(
            video=files[0].name,
            audio=files[1].name if audio else None,
            bytes=sum(file.stat().st_size for file in files),
            tool=self.tool,
            video_licence=info.get("license"),
        )


def ytdlp_version() -> str:
    """Return the version of yt-dlp.

    Raises:
        UserError: it is not installed.
    """
    try:
        from yt_dlp.version import __version__
    except ModuleNotFoundError as error:
        raise UserError(INSTALL) from error
    return __version__


def choose_formats(formats: list[dict[str, Any]], max_height: int) -> list[dict[str, Any]]:
    """Return what to download: one format with both streams, or the best images and the best audio.

    The highest image up to ``max_height`` is taken (the lowest of all, where all are higher), of standard dynamic
    range if there is one; among equals the later, which is the better in yt-dlp's order.

    Args:
        formats: yt-dlp's format records, from worst to best.
    """
    images = [f for f in formats if f.get("vcodec") != "none" and not f.get("has_drm")]
    audio = [f for f in formats if f.get("vcodec") == "none" and f.get("acodec") != "none" and not f.get("has_drm")]
    if not images:
        return []
    standard = [f for f in images if f.get("dynamic_range") in (None, "SDR")] or images
    low = [f for f in standard if (f.get("height") or 0) <= max_height]
    height = max((f.get("height") or 0) for f in low) if low else min(f["height"] for f in standard)
    best = [f for f in standard if (f.get("height") or 0) == height]
    whole = [f for f in best if f.get("acodec") != "none"]
    if whole and (best[-1] is whole[-1] or not audio):
        return [whole[-1]]
    return [best[-1], *audio[-1:]]


def classify(message: str) -> DownloadFailed:
    """Return what an error of yt-dlp means; words that are not known count as passing, so that nothing is given up."""
    text = re.sub(r"\x1b\[[0-9;]*m|^ERROR:\s*", "", message)
    gone = next((reason for reason, words in _GONE.items() if re.search(words, text, re.IGNORECASE)), None)
    if gone == "not_found":
        return Gone(gone, text)
    if _PASSING.search(text):
        return Passing("too_many_requests" if _BLOCKED.search(text) else "connection", text)
    return Gone(gone, text) if gone else Passing("unknown", text)


def _inside(folder: Path, path: str) -> Path:
    """A file that yt-dlp names, if it lies in the folder that it was told to use."""
    file = Path(path)
    if file.resolve().parent != folder.resolve():
        raise Gone("unsafe_name", f"yt-dlp wrote outside its folder: {file.name}")
    return file


def _not_live(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
    """yt-dlp's filter: a reason to skip a broadcast, which has no end."""
    return "live" if info.get("is_live") else None


class _Told:
    """Turns yt-dlp's running totals into the bytes that came since."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._so_far: dict[str, int] = {}

    def hook(self, state: dict[str, Any]) -> None:
        name, total = str(state.get("filename")), int(state.get("downloaded_bytes") or 0)
        before = self._so_far.get(name, total if state.get("status") == "finished" else 0)
        self._so_far[name] = total
        if total > before:
            self._progress(total - before)


class _Silent:
    """A logger that says nothing: what goes wrong is raised."""

    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...
