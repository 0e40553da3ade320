"""Figures of the server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from df_infer.serve.engine import Engine
from df_infer.serve.seats import Seats

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.24, 0.32, 0.64, 1.28)
"""Around the 0.16 s that a latent frame lasts."""


class Metrics:
    """One registry per server, so that two in one process do not mix."""

    def __init__(self, engine: Engine, seats: Seats, jobs: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        Gauge("df_sessions", "People who talk", registry=registry).set_function(lambda: seats.taken)
        Gauge("df_sessions_waiting", "People who wait", registry=registry).set_function(lambda: seats.line)
        Gauge("df_jobs", "Whole videos held", registry=registry).set_function(jobs)
        Gauge("df_engine_waiting", "Calls that the engine has not begun", registry=registry).set_function(
            lambda: engine.waiting
        )
        Gauge("df_engine_busy_seconds", "Time that the engine computed", registry=registry).set_function(
            lambda: engine.busy_s
        )
        self.begun = Counter("df_sessions_begun", "Sessions that got a place", ["transport"], registry=registry)
        self.ended = Counter("df_sessions_ended", "Sessions that ended, and why", ["reason"], registry=registry)
        self.refused = Counter("df_refused", "Requests that were refused, by status", ["status"], registry=registry)
        self.frames = Counter("df_frames_made", "Pixel frames made in live sessions", registry=registry)
        self.dropped = Counter("df_frames_dropped", "Pixel frames that came too late to be shown", registry=registry)
        self.late = Counter("df_chunks_late", "Chunks that the picture had to wait for", registry=registry)
        self.chunk_s = Histogram(
            "df_chunk_seconds",
            "Time to make a chunk, with those made in the same batch",
            buckets=SECONDS,
            registry=registry,
        )
        self.left_out_s = Counter("df_pauses_left_out_seconds", "Silence left out to catch up", registry=registry)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
