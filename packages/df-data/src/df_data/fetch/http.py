"""Download a plain file over HTTP: resumed by Range, at a limited rate, its length checked.

Sources: RFC 9110 (sections 13.1.5 If-Range, 14 Range Requests, 15 status codes, 10.2.3 Retry-After).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from df_data.fetch.download import Downloaded, DownloadFailed, Gone, Passing, Progress, Throttle
from df_models.files import atomic_write

BLOCK = 64 * 1024
PASSING_CODES = (408, 425, 429, 500, 502, 503, 504)
FILE = "video"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HttpDownloader:
    """Downloads the file at an address.

    Args:
        throttle: keeps the rate.
        timeout_s: seconds after which a silent connection is given up.
        max_bytes: a larger file is refused.
    """

    tool = "http"

    def __init__(self, throttle: Throttle, timeout_s: float = 30.0, max_bytes: int = 8 * 10**9) -> None:
        self.throttle = throttle
        self.timeout_s = timeout_s
        self.max_bytes = max_bytes
        self._opener = _web_opener()

    def download(self, url: str, folder: Path, progress: Progress) -> Downloaded:
        """Download to ``folder/video``; what an earlier try left of the same file is kept and continued.

        Raises:
            Gone: 4xx, or larger than ``max_bytes``.
            Passing: 5xx, 429, a timeout, a connection that was cut.
            OSError: the disk is full.
        """
        part, final = folder / f"{FILE}.part", folder / FILE
        if not final.is_file():
            try:
                self._fill(url, part, progress)
            except urllib.error.HTTPError as error:
                with error:
                    raise _refused(error) from error
            except (http.client.HTTPException, urllib.error.URLError) as error:
                raise Passing("connection", f"{type(error).__name__}: {error}") from error
            _fsync(part)
            os.replace(part, final)
        return Downloaded(video=FILE, bytes=final.stat().st_size, tool=self.tool)

    def _fill(self, url: str, part: Path, progress: Progress) -> None:
        """Ask for what is missing of the file and append it."""
        mark = part.with_suffix(".mark")
        have, validator = _state(part, mark)
        request = urllib.request.Request(url, headers={"User-Agent": "df-data", "Accept-Encoding": "identity"})
        if have and validator:
            request.add_header("Range", f"bytes={have}-")
            request.add_header("If-Range", validator)
        try:
            response = self._opener.open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            part.unlink(missing_ok=True)
            raise Passing("range_refused", "the server has another file now; it is begun again") from error
        with response:
            start, total = _extent(response, have)
            if total is not None and total > self.max_bytes:
                raise Gone("too_large", f"{total} bytes, at most {self.max_bytes} are wanted")
            atomic_write(mark, json.dumps(_validator(response)))
            self._append(response, part, start, total, progress)

    def _append(self, response: Any, part: Path, start: int, total: int | None, progress: Progress) -> None:
        with open(part, "r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            have = start
            for block in _blocks(response):
                have += len(block)
                if have > self.max_bytes:
                    raise Gone("too_large", f"more than {self.max_bytes} bytes")
                file.write(block)
                progress(len(block))
                self.throttle.passed(len(block))
        if total is not None and have != total:
            raise Passing("cut_off", f"the connection ended at {have} of {total} bytes")
        if not have:
            raise Passing("empty", "the server sent no byte")


def _blocks(response: Any) -> Iterator[bytes]:
    """The bytes of an answer; whatever goes wrong with the connection is passing."""
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise Passing("connection", f"{type(error).__name__}: {error}") from error
        if not block:
            return
        yield block


def _web_opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https alone: a redirect must not lead to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _state(part: Path, mark: Path) -> tuple[int, str | None]:
    """Bytes that are there, and what names the version of the file that they are of."""
    try:
        return part.stat().st_size, json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0, None


def _validator(response: Any) -> str | None:
    """What names the version of a file: a strong ETag, or the time of its last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """Where the answer's bytes begin in the file, and the file's length if the server says it."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise Passing("wrong_range", f"asked for byte {have}, got {response.headers.get('Content-Range')}")
        return have, None if match[3] == "*" else int(match[3])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length is not None and length.isdigit() else None


def _refused(error: urllib.error.HTTPError) -> DownloadFailed:
    text = f"HTTP {error.code} {error.reason}"
    if error.code in PASSING_CODES:
        return Passing(f"http_{error.code}", text, _retry_after(error.headers.get("Retry-After")))
    return Gone(f"http_{error.code}", text)


def _retry_after(value: str | None) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    if value is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(int(value)))
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _fsync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
