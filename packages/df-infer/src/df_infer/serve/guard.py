"""Who may come in, and how much they may send: token, host and origin, size and time of bodies.

An ASGI middleware before everything else, so that no route can forget it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from df_infer.serve.config import ServeConfig
from df_infer.serve.protocol import SUBPROTOCOL
from df_infer.serve.seats import CONNECTING
from df_models.errors import UserError

TOKEN_VARIABLE = "DF_INFER_TOKEN"
SHORTEST_TOKEN = 16
TURN_VARIABLES = ("DF_INFER_TURN_USER", "DF_INFER_TURN_PASSWORD")
TOKEN_PREFIX = "token."
"""Browsers cannot give a WebSocket headers; they offer ``token.`` and the token in base64url as a subprotocol."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/", "/healthz", "/readyz", "/openapi.json", "/docs")
"""What needs no token: nothing of these pages is secret, and probes have none."""
OPEN_FOLDER = "/page/"
UPLOADS = ("/v1/portraits", "/v1/videos")
MOST_UPLOADS = 8
"""At the same time: each may lie on the disk while it arrives."""
_SAFE_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"permissions-policy": b"microphone=(self), camera=()",
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        b"connect-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}


def turn_login() -> tuple[str | None, str | None]:
    """Name and password at the TURN server; None both: it asks for none.

    Raises:
        UserError: one of them alone is given.
    """
    name, password = (os.environ.get(variable) or None for variable in TURN_VARIABLES)
    if (name is None) != (password is None):
        there, missing = TURN_VARIABLES if password is None else reversed(TURN_VARIABLES)
        raise UserError(f"{there} is set, and {missing} is not; a TURN server wants both, or neither")
    return name, password


def read_token(config: ServeConfig) -> bytes | None:
    """The token that requests must bear; None: none.

    Raises:
        UserError: its file cannot be read, it is too short, or there is none where the address needs one.
    """
    if config.token_file is not None:
        try:
            text = Path(config.token_file).read_text().strip()
        except OSError as error:
            raise UserError(f"the token's file {config.token_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"the token's file {config.token_file} is no text; write the token into it") from error
    else:
        text = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not text and config.token_file is None:
        if not is_loopback(config.host):
            raise UserError(
                f"host {config.host} can be reached from other machines, so a token is needed: give --token-file FILE "
                f"or set {TOKEN_VARIABLE} (python -c 'import secrets; print(secrets.token_urlsafe())' makes one)"
            )
        return None
    if len(text) < SHORTEST_TOKEN:
        raise UserError(f"the token must have {SHORTEST_TOKEN} characters or more")
    if not text.isascii():
        raise UserError("the token must be of ASCII characters: a header carries no others")
    return text.encode()


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Refuses in one line of JSON what may not come in; a WebSocket before it is accepted."""

    def __init__(self, app: ASGIApp, config: ServeConfig, token: bytes | None) -> None:
        self._app, self._config, self._token = app, config, token
        self._uploads = self._sockets = 0
        self._names = {
            *LOOPBACK_NAMES,
            config.host.lower(),
            *(name.strip().lower() for name in (config.allow_hosts or "").split(",")),
        } - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = self._host(headers) or self._bearer(scope, headers) or self._crowd(scope)
        if refusal is not None:
            status, why = refusal
            scope["app"].state.house.metrics.refused.labels(str(status)).inc()
            return await JSONResponse({"error": why}, status)(scope, receive, send)
        if scope["type"] == "websocket":
            self._sockets += 1
            try:
                return await self._app(scope, receive, send)
            finally:
                self._sockets -= 1
        upload = scope["method"] == "POST" and scope["path"] in UPLOADS
        self._uploads += upload
        try:
            await self._app(scope, self._limited(headers, receive, upload), _with_headers(send))
        finally:
            self._uploads -= upload

    def _host(self, headers: Headers) -> tuple[int, str] | None:
        """Refuse other names than the server's own (DNS rebinding) and other sites' pages (Origin)."""
        host = headers.get("host", "")
        if not self._known(_name(host)):
            return 403, "this server is not known by that name; start it with --allow-hosts if it should be"
        origin = headers.get("origin")
        if origin is not None and _origin(origin) != host.lower():
            return 403, "another site's page may not use this server"
        return None

    def _known(self, name: str) -> bool:
        if name in self._names:
            return True
        if is_loopback(self._config.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # a name cannot be rebound to it: it is no name

    def _bearer(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        path = scope["path"]
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        found = given.strip().encode() if kind.lower() == "bearer" else _offered(scope)
        if found is None:
            return 401, "a token is needed: send it as 'Authorization: Bearer TOKEN'"
        if not hmac.compare_digest(found, self._token):
            return 401, "this is not the server's token; ask whoever runs the server for it"
        return None

    def _crowd(self, scope: Scope) -> tuple[int, str] | None:
        """Refuse WebSockets beyond those that talk, wait or connect; the web server counts none that it accepts."""
        most = self._config.sessions + self._config.waiting + CONNECTING
        if scope["type"] == "websocket" and self._sockets >= most:
            return 429, "too many connections are open; try again later"
        return None

    def _limited(self, headers: Headers, receive: Receive, upload: bool) -> Receive:
        """Count a body's bytes and its time, whatever its header says of them."""
        most = self._config.upload_bytes if upload else self._config.json_bytes
        crowded = upload and self._uploads > MOST_UPLOADS
        until, got = time.monotonic() + self._config.upload_s, 0
        stated = headers.get("content-length", "0")

        async def limited() -> Message:
            nonlocal got
            if crowded:
                raise HTTPException(429, f"{MOST_UPLOADS} uploads are under way; try again later")
            if stated.isdigit() and int(stated) > most:
                raise HTTPException(413, f"at most {most} bytes may be sent here")
            if done:
                return await receive()
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"it took longer than {self._config.upload_s:g} s to arrive") from None
            got += len(message.get("body", b""))
            if not message.get("more_body", False):
                done.append(True)
            if got > most:
                raise HTTPException(413, f"at most {most} bytes may be sent here")
            return message

        done: list[bool] = []
        return limited


def _name(host: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _origin(origin: str) -> str:
    """The host and port of an Origin header."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _offered(scope: Scope) -> bytes | None:
    """The token among a WebSocket's subprotocols."""
    for name in scope.get("subprotocols", ()):
        if name.startswith(TOKEN_PREFIX):
            text = name.removeprefix(TOKEN_PREFIX)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except ValueError:
                return None
    return None


def subprotocol(scope: Scope) -> str | None:
    """The subprotocol to accept a WebSocket with: ours where it is offered, never the one with the token."""
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_SAFE_HEADERS.items()]
        await send(message)

    return sending
