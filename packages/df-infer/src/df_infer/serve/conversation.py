"""A session from the first message to the last, whatever carries it: its place, its face, its limits, its end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from df_infer.serve.engine import AFTER_S, soon
from df_infer.serve.house import House
from df_infer.serve.logs import event, failure
from df_infer.serve.protocol import Clear, End, Microphone, Settings, Start, read_control, to_json
from df_infer.serve.seats import Full
from df_infer.serve.speaker import Playout, Speaker, keep_frames
from df_models.errors import UserError
from df_models.time import FPS

MOST_MESSAGES = 250
"""A second, on average over the session; sound in pieces of 20 ms is 50."""
BURST_MESSAGES = 1_000
STATS_S = 1.0
STOPS = "the server stops"


class Conversation:
    """Holds one session.

    Args:
        playout: where the pieces go.
        say: sends a message to the client, after what was made before it.
        transport: what carries it, for the log.

    Raises:
        UserError: the portrait is not known, or the settings are beyond the limits.
    """

    def __init__(
        self, house: House, start: Start, playout: Playout, say: Callable[[str], None], transport: str
    ) -> None:
        house.check(start.settings)
        self._house, self._start, self._playout, self._say = house, start, playout, say
        self._portrait = house.portrait(start.portrait)
        self._transport, self._settings = transport, start.settings
        self._speaker: Speaker | None = None
        self._frames = 0
        self._tokens, self._filled = float(BURST_MESSAGES), time.monotonic()
        self._took_s = self._speed = 0.0
        self._told = time.monotonic()
        self.microphone = start.microphone
        self.id = secrets.token_hex(4)

    def sound(self, wave_N: np.ndarray, *, live: bool) -> None:
        """Take sound that was sent, float32 mono at the session's rate; ``live``: see :meth:`Speaker.push`.

        Raises:
            UserError: it comes before the session is ready, or too much of it.
        """
        self._count()
        if self._speaker is None:
            raise UserError("sound came before the session was ready; wait for the message 'ready'")
        self._speaker.push(wave_N, live=live)

    def hear(self, wave_N: np.ndarray) -> None:
        """Take a microphone's sound, float32 mono; what comes before the session is ready is not heard."""
        if self._speaker is not None:
            self._speaker.push(wave_N, live=True)

    async def control(self, text: str) -> None:
        """Follow a message.

        Raises:
            UserError: it is none, or comes before the session is ready.
        """
        self._count()
        message = read_control(text)
        self._told = time.monotonic()
        speaker = self._speaker
        if speaker is None:
            raise UserError("a message came before the session was ready; wait for the message 'ready'")
        match message:
            case Clear():
                frame = await speaker.clear(message.shown)
                self._say(to_json("cleared", frame=frame, turn=speaker.turn))
            case Settings():
                self._house.check(message.settings)
                self._settings = message.settings
                frame = await speaker.change(self._new_face, self._after_s)
                self._say(to_json("cleared", frame=frame, turn=speaker.turn, settings=message.settings.model_dump()))
            case Microphone():
                self.microphone = message.on
            case End():
                speaker.end()

    def _count(self) -> None:
        now = time.monotonic()
        self._tokens = min(BURST_MESSAGES, self._tokens + (now - self._filled) * MOST_MESSAGES) - 1
        self._filled = now
        if self._tokens < 0:
            raise UserError(f"more than {MOST_MESSAGES} messages a second; send sound in larger pieces")

    async def run(self) -> str:
        """Wait for a place, then speak until it ends; return why it ended.

        Raises:
            UserError: the settings do not fit the model, nobody else may wait, or a limit was passed.
        """
        began, reason = time.monotonic(), "failed"
        try:
            async with self._house.seats.one(lambda position: self._say(to_json("waiting", position=position))):
                reason = STOPS
                if not self._house.stopping.is_set():  # else a place became free since the others were ended
                    self._house.metrics.begun.labels(self._transport).inc()
                    event("session begins", session=self.id, transport=self._transport, waited_s=_since(began))
                    began = time.monotonic()
                    reason = await self._speak()
        except Full:
            reason = "full"
            raise
        except UserError:
            reason = "refused"
            raise
        except asyncio.CancelledError:
            reason = "left"
            raise
        except Exception:
            failure("session failed", session=self.id)
            raise
        finally:
            self._house.metrics.ended.labels(reason).inc()
            self._house.metrics.left_out_s.inc(0.0 if self._speaker is None else self._speaker.left_out_s)
            event("session ends", session=self.id, reason=reason, lasted_s=_since(began), frames=self._frames)
        return reason

    def _new_face(self) -> Any:
        keep = keep_frames(self._house.config.ahead_s)
        return self._house.backend.open(self._portrait, self._start.rate, self._settings, keep)

    @property
    def _after_s(self) -> float:
        return AFTER_S if self._house.backend.takes_more(self._settings) else 0.0

    async def _speak(self) -> str:
        house, limits = self._house, self._house.config
        face = await house.engine.do(soon(), self._new_face)
        speaker = self._speaker = Speaker(
            face,
            house.engine,
            self._playout,
            ahead_s=limits.ahead_s,
            sound_ahead_s=limits.sound_ahead_s,
            made=self._made,
        )
        speaker.after_s = self._after_s
        about = house.backend.about
        self._say(to_json("ready", session=self.id, size=about.size, fps=FPS, rate=face.rate, latency_s=face.latency_s))
        tasks = {
            asyncio.create_task(speaker.run()): "ended",
            asyncio.create_task(self._watch(speaker)): "idle",
            asyncio.create_task(asyncio.sleep(limits.session_s)): "time",
            asyncio.create_task(house.stopping.wait()): STOPS,
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return next(tasks[task] for task in tasks if task in done)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, frames: int, took_s: float, waited: bool) -> None:
        metrics = self._house.metrics
        self._frames += frames
        metrics.chunk_s.observe(took_s)
        metrics.frames.inc(frames)
        if waited:
            metrics.late.inc()
        speed = frames / FPS / max(took_s, 1e-6)
        self._took_s, self._speed = took_s, 0.8 * self._speed + 0.2 * speed if self._speed else speed

    async def _watch(self, speaker: Speaker) -> None:
        """Tell how it goes, once a second, until nobody has spoken or sent a message for too long."""
        while min(speaker.quiet_s, time.monotonic() - self._told) < self._house.config.idle_s:
            await asyncio.sleep(STATS_S)
            self._say(
                to_json(
                    "stats",
                    heard=round(speaker.heard, 1),
                    seen=round(self._playout.position(), 1),
                    chunk_ms=round(1000 * self._took_s),
                    speed=round(self._speed, 2),
                    left_out_ms=round(1000 * speaker.left_out_s),
                    dropped=self._playout.dropped,
                )
            )


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
