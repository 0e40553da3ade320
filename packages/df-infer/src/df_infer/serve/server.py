"""The web server around the application: its limits, and an end that sessions are told of."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from df_infer.serve.config import ServeConfig
from df_infer.serve.house import House
from df_infer.serve.logs import event
from df_infer.serve.seats import CONNECTING

GRACE_S = 5.0
"""Sessions have so long to hear that the server stops, and connections to close."""
MOST_CONNECTIONS = 200
"""Beside those of sessions: pages being loaded, and sockets on which nothing comes."""
FIRST_REQUEST_S = 10.0
"""A connection on which no whole header came in so long is closed."""
PING_S = 20.0
"""A WebSocket whose other end does not answer within as long again is taken for dead."""


_Protocol: Any = AutoHTTPProtocol


class Connection(_Protocol):  # type: ignore[misc]
    """uvicorn's connection, which by itself waits for a first request for ever.

    Beyond its limit of connections uvicorn answers requests with 503; beyond twice as many they are closed here.
    """

    _first: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > 2 * self.limit_concurrency:
            transport.abort()
        else:
            self._first = self.loop.call_later(FIRST_REQUEST_S, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        if self._first is not None:
            self._first.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self.cycle is None and self in self.connections:  # else it has a request, or became a WebSocket
            self.transport.abort()


class Server(uvicorn.Server):
    """A server that tells its sessions before it closes their sockets, and ends well when told to."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See :class:`uvicorn.Server`; logs where it listens, once it does."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            event("serving", model=self._app.state.house.backend.about.model, host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See :class:`uvicorn.Server`."""
        house: House = self._app.state.house
        house.stopping.set()
        for _ in range(int(GRACE_S / 0.05)):
            if not house.seats.taken and not house.seats.line:
                break
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See :class:`uvicorn.Server`; a second Ctrl-C ends it at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """Whether a record is no complaint of uvicorn about a WebSocket that was answered in HTTP.

    uvicorn 0.54 takes such an answer (401, 403, 429 of :class:`df_infer.serve.guard.Guard`) for none at all, though it
    has sent it, and logs an error: whoever has no token could fill the log. Refusals are counted in the metrics.
    """
    return record.msg != "ASGI callable returned without completing handshake."


def make_server(app: FastAPI, config: ServeConfig) -> Server:
    """Return the server for an application of :func:`df_infer.serve.app.build_app`; ``run()`` or ``serve()`` it."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)
    return Server(
        app,
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            ws_max_size=config.message_bytes,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PING_S,
            ws_per_message_deflate=False,
            limit_concurrency=MOST_CONNECTIONS + config.sessions + config.waiting + CONNECTING,
            timeout_graceful_shutdown=int(GRACE_S),
        ),
    )
