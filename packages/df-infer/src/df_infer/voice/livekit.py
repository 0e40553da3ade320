"""LiveKit agents: a session as the avatar of an agent (needs the extra ``[livekit]``).

``Avatar`` is the ``VideoGenerator`` that ``livekit.agents.voice.avatar.AvatarRunner`` drives: the runner hands over the
agent's speech, takes frames and sound in step, and tells the agent when a turn was played or interrupted, and how far.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator

from df_infer.live.session import Session
from df_infer.voice.talk import Talk
from df_models.errors import UserError
from df_models.time import FPS


class Avatar(VideoGenerator):
    """One face for one agent.

    Args:
        session: a new one, at the rate of the agent's speech.
    """

    def __init__(self, session: Session) -> None:
        self._talk = Talk(session)

    @property
    def options(self) -> AvatarOptions:
        """What the runner needs to know of picture and sound."""
        size, rate = self._talk.session.size, self._talk.session.rate
        return AvatarOptions(
            video_width=size, video_height=size, video_fps=FPS, audio_sample_rate=rate, audio_channels=1
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Take the agent's speech; a segment's end ends the turn.

        Raises:
            UserError: it is at another rate than the session, or not mono.
        """
        if isinstance(frame, AudioSegmentEnd):
            self._talk.end_turn()
            return
        wanted = self._talk.session.rate
        if (frame.sample_rate, frame.num_channels) != (wanted, 1):
            raise UserError(
                f"the agent speaks at {frame.sample_rate} Hz on {frame.num_channels} channels, the session hears "
                f"{wanted} Hz mono; open the session at the agent's rate (QueueAudioOutput(sample_rate=...))"
            )
        self._talk.push(np.frombuffer(frame.data, np.int16))

    async def clear_buffer(self) -> None:
        """Interrupt: the face closes its mouth and goes on from what was taken."""
        await self._talk.interrupt()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Yield a picture and, while the agent speaks, its sound, frame by frame; the end of a turn after its last."""
        async for moment in self._talk:
            height, width = moment.image.shape[:2]
            yield rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, moment.image.tobytes())
            if moment.audio is not None:
                pcm = (moment.audio.clip(-1, 1) * 32767).round().astype(np.int16)
                yield rtc.AudioFrame(pcm.tobytes(), self._talk.session.rate, 1, len(pcm))
            if moment.ends:
                yield AudioSegmentEnd()

    def close(self) -> None:
        """End the stream."""
        self._talk.close()
