"""A web server on this machine that misbehaves as told."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Page:
    """What the server answers at one path, request by request; the last answer is repeated.

    Attributes:
        body: the whole file.
        faults: per request one of ``ok``, ``cut`` (half of what was asked, then the connection is closed), ``404``,
            ``429``, ``503``, ``403``, ``slow`` (a byte, then nothing), ``long`` (a Content-Length that is too large),
            ``no_range`` (the Range is ignored), ``redirect_file``.
        etag: names the version of the body.
        asked: the Range of each request, or None.
    """

    body: bytes
    faults: list[str] = field(default_factory=lambda: ["ok"])
    etag: str | None = '"one"'
    asked: list[str | None] = field(default_factory=list)


class Site:
    """The server's pages by path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Page] = {}
        self.release = threading.Event()

    def put(self, path: str, body: bytes, *faults: str) -> str:
        """Add a page and return its address."""
        self.pages[path] = Page(body, list(faults) or ["ok"])
        return self.url + path


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer(head=False)

    def answer(self, head: bool) -> None:
        page = self.site.pages.get(self.path)
        if page is None:
            self.send_error(404)
            return
        fault = page.faults[min(len(page.asked), len(page.faults) - 1)]
        page.asked.append(self.headers.get("Range"))
        self.close_connection = True
        if fault.isdigit():
            self.send_response(int(fault))
            if fault == "429":
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "redirect_file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_body(page, fault, head)

    def send_body(self, page: Page, fault: str, head: bool) -> None:
        start = 0
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if asked and fault != "no_range" and condition in (None, page.etag):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(page.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        rest = page.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
        self.send_header("Content-Length", str(len(rest) + (1000 if fault == "long" else 0)))
        self.send_header("Content-Type", "video/mp4")
        if page.etag:
            self.send_header("ETag", page.etag)
        self.end_headers()
        if head:
            return
        if fault == "slow":
            self.wfile.write(rest[:1])
            self.wfile.flush()
            self.site.release.wait(20)
            return
        self.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)


@contextmanager
def serving() -> Iterator[Site]:
    """Serve on 127.0.0.1 as long as the context lasts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    found = Site(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass.site = found  # type: ignore[attr-defined]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.release.set()
        server.shutdown()
        server.server_close()
