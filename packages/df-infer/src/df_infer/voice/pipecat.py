"""Pipecat: a session as a processor behind a speech synthesiser (needs the extra ``[pipecat]``).

``FaceService`` takes the audio out of the pipeline and puts it in again, in time, beside the pictures that
belong to it. Other frames pass. An interruption undoes what was not sent. If the face fails, an ``ErrorFrame`` says so,
what it had not said yet is lost, and speech passes without a picture from then on.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from df_infer.live.session import Session
from df_infer.voice.talk import Moment, Talk
from df_models.errors import UserError
from df_models.time import FPS

LATE_S = 0.5
"""What a slow moment costs is caught up within this much; a face that is slower falls behind instead of hurrying."""


class FaceService(FrameProcessor):
    """One face for one pipeline; it sets the pace of 25 frames a second itself, and ends when all was said.

    Args:
        session: a new one, at the rate of the synthesiser.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(name="dualforce")
        self._talk = Talk(session)
        self._sending: asyncio.Task[None] | None = None
        self._failed = False
        self._stopped: list[TTSStoppedFrame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take speech and what ends or interrupts it; pass the rest on."""
        await super().process_frame(frame, direction)
        if self._failed:
            await self.push_frame(frame, direction)
            return
        if isinstance(frame, TTSAudioRawFrame):
            self._talk.push(self._samples(frame))
            return
        if isinstance(frame, TTSStoppedFrame) and self._talk.end_turn():
            self._stopped.append(frame)  # it is passed on when the turn was sent
            return
        if isinstance(frame, StartFrame):
            self._sending = self.create_task(self._send_or_tell())
        elif isinstance(frame, InterruptionFrame):
            await self._talk.interrupt()
            self._stopped.clear()
        elif isinstance(frame, EndFrame):
            await self._say_the_rest()
            await self._stop()
        elif isinstance(frame, CancelFrame):
            await self._stop()
        await self.push_frame(frame, direction)

    def _samples(self, frame: TTSAudioRawFrame) -> np.ndarray:
        if (frame.sample_rate, frame.num_channels) != (self._talk.session.rate, 1):
            raise UserError(
                f"the synthesiser speaks at {frame.sample_rate} Hz on {frame.num_channels} channels, the session hears "
                f"{self._talk.session.rate} Hz mono; open the session at its rate"
            )
        return np.frombuffer(frame.audio, np.int16)

    async def _send_or_tell(self) -> None:
        try:
            await self._send()
        except Exception as error:
            self._talk.close()
            while self._stopped:
                await self.push_frame(self._stopped.pop(0))
            self._failed = True
            why = " ".join(str(error).split()) or type(error).__name__
            await self.push_error(f"the face failed, and speech goes on without it: {why}", exception=error)

    async def _send(self) -> None:
        """Send moments by the clock; what is a little late is caught up, beyond that the clock is set anew."""
        due = time.monotonic()
        async for moment in self._talk:
            due = max(due + 1 / FPS, time.monotonic() - LATE_S)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._send_moment(moment)

    async def _send_moment(self, moment: Moment) -> None:
        height, width = moment.image.shape[:2]
        image = OutputImageRawFrame(image=moment.image.tobytes(), size=(width, height), format="RGB")
        if moment.audio is not None:
            pcm = (moment.audio.clip(-1, 1) * 32767).round().astype(np.int16)
            rate = self._talk.session.rate
            await self.push_frame(TTSAudioRawFrame(audio=pcm.tobytes(), sample_rate=rate, num_channels=1))
        await self.push_frame(image)
        if moment.ends and self._stopped:
            await self.push_frame(self._stopped.pop(0))

    async def _say_the_rest(self) -> None:
        """Wait until all that was handed over is sent, or nothing is sent any more."""
        if self._sending is not None:
            rest = asyncio.ensure_future(self._talk.spoken())
            await asyncio.wait((rest, self._sending), return_when=asyncio.FIRST_COMPLETED)
            rest.cancel()

    async def _stop(self) -> None:
        self._talk.close()
        if self._sending is not None:
            await self.cancel_task(self._sending)
            self._sending = None

    async def cleanup(self) -> None:
        """End the sending."""
        await self._stop()
        await super().cleanup()
