"""The adapters to voice stacks, driven by those libraries' own classes on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, ClassVar

import numpy as np
import pytest

from df_infer import Segment, Session
from df_infer.pipeline import Pipeline
from df_infer.voice.talk import Talk
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_image

RATE = 24_000
SIZE = RATE // 25
SPEECH = (np.random.default_rng(0).normal(scale=0.1, size=SIZE * 11) * 2**15).astype(np.int16)


@pytest.fixture(scope="module")
def pipeline(files) -> Pipeline:
    return Pipeline.from_run(files.run, "cpu", vae=random_tiny_vae())


@pytest.fixture
def session(pipeline: Pipeline, files) -> Session:
    return Session(pipeline, read_image(files.image), rate=RATE)


def within(seconds: float, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, seconds))


def test_turns_are_heard_whole_with_silence_between_them(session: Session) -> None:
    async def talk() -> list:
        talk, moments = Talk(session), []
        async for moment in talk:
            moments.append(moment)
            if len(moments) == 6:
                for piece in np.split(SPEECH, [100, 5000]):
                    talk.push(piece)
                talk.end_turn()
            if any(m.ends for m in moments[:-5]):
                talk.close()
        return moments

    moments = within(60, talk())
    spoken = [m.audio for m in moments if m.audio is not None]
    heard = np.concatenate(spoken)
    at = int(np.flatnonzero(heard)[0])
    np.testing.assert_allclose(heard[at : at + len(SPEECH)], SPEECH / 2**15, atol=1e-6)
    assert len(spoken) in (11, 12) and [m.ends for m in moments if m.audio is not None][-1]
    assert moments[5].audio is None and moments[-1].audio is None, "the face lives on before and after"
    assert all(m.image.shape == (16, 16, 3) for m in moments)


def test_interruptions_may_overlap(session: Session) -> None:
    """What comes before the last of them has ended is one turn, and spoken whole."""

    async def talk() -> int:
        talk = Talk(session)
        talk.push(SPEECH)
        await asyncio.to_thread(session.make)
        first, second = (asyncio.create_task(talk.interrupt()) for _ in range(2))
        await asyncio.sleep(0)
        talk.push(SPEECH[:SIZE])
        await first
        talk.push(SPEECH[SIZE : 3 * SIZE])
        await second
        assert talk.end_turn()
        return session.samples - session.frame * SIZE

    assert within(60, talk()) == 3 * SIZE


class Numbered:
    """A session whose frames are their own numbers; it is told what it heard and what was undone."""

    rate, size = 200, 1

    def __init__(self) -> None:
        self.samples = self.frame = 0

    @property
    def due(self) -> bool:
        return self.frame + 8 <= self.samples // 8

    def push(self, pcm_N: np.ndarray) -> None:
        self.samples += len(pcm_N)

    def idle(self, frames: int) -> None:
        self.samples += 8 * frames

    def make(self) -> Segment:
        first, count = self.frame, 1 if self.frame == 0 else 4
        self.frame += count
        images = np.arange(first, self.frame, dtype=np.uint8)[:, None, None, None]
        return Segment(first, images, np.zeros(8 * count, np.float32), np.zeros((count, 0), np.float32))

    def clear(self, shown: int) -> int:
        self.frame = min(self.frame, 0 if shown == 0 else 1 + 4 * -(-(shown - 1) // 4))
        self.samples = 8 * self.frame
        return self.frame


def test_an_interruption_drops_the_turn_and_no_frame() -> None:
    async def talk() -> tuple[list, list]:
        talk, moments, late = Talk(Numbered()), [], np.ones(80, np.float32)  # pyright: ignore[reportArgumentType]
        talk.push(np.ones(800, np.float32))
        async for moment in talk:
            moments.append(moment)
            if len(moments) == 3:
                clearing = asyncio.create_task(talk.interrupt())
                await asyncio.sleep(0)
                talk.push(late)
                assert talk.end_turn() and not talk.end_turn()
                await clearing
            if len(moments) == 40:
                talk.close()
        return moments, [place for place, moment in enumerate(moments) if moment.ends]

    moments, ends = within(20, talk())
    assert [int(m.image.item()) for m in moments] == list(range(40)), "the face goes on from what is seen"
    assert moments[2].audio is not None and moments[3].audio is None is moments[4].audio
    spoken = [place for place, moment in enumerate(moments) if moment.audio is not None and place > 4]
    assert spoken == list(range(5, 15)) and ends == [14], "what came during the interruption is the next turn, whole"


def test_frames_are_made_while_others_are_shown() -> None:
    async def talk() -> int:
        session = Numbered()
        talk = Talk(session)  # pyright: ignore[reportArgumentType]
        async for _ in talk:
            for _ in range(50):
                await asyncio.sleep(0.002)
                if session.frame >= 5:
                    break
            talk.close()
        return session.frame

    assert within(20, talk()) >= 5


def test_an_end_without_speech_passes(session: Session) -> None:
    frames = pytest.importorskip("pipecat.frames.frames")
    from pipecat.tests.utils import run_test

    from df_infer.voice.pipecat import FaceService

    stopped = frames.TTSStoppedFrame()
    down, _ = within(60, run_test(FaceService(session), frames_to_send=[stopped]))
    assert any(isinstance(frame, frames.TTSStoppedFrame) for frame in down)


class Synchroniser:
    """Takes what the runner plays."""

    pushed: ClassVar[list[Any]] = []

    def __init__(self, **_: Any) -> None: ...

    async def push(self, frame: Any) -> None:
        self.pushed.append(frame)
        await asyncio.sleep(0.001)

    async def aclose(self) -> None: ...


class Room:
    """A room that is connected."""

    def on(self, *_: Any) -> None: ...
    def off(self, *_: Any) -> None: ...
    def isconnected(self) -> bool:
        return True


def test_a_livekit_agent_s_avatar(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """livekit's AvatarRunner and QueueAudioOutput; only the room and its synchroniser are replaced."""
    rtc = pytest.importorskip("livekit.rtc")
    from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

    from df_infer.voice.livekit import Avatar

    pushed = Synchroniser.pushed
    pushed.clear()

    async def publish(self: Any) -> None:
        self._video_publication = True

    monkeypatch.setattr(rtc, "AVSynchronizer", Synchroniser)
    monkeypatch.setattr(AvatarRunner, "_publish_track", publish)

    async def converse() -> tuple[list[Any], int]:
        avatar, out, played = Avatar(session), QueueAudioOutput(sample_rate=RATE), []
        out.on("playback_finished", played.append)
        runner = AvatarRunner(Room(), audio_recv=out, video_gen=avatar, options=avatar.options)
        await runner.start()
        for start in range(0, len(SPEECH), SIZE):
            piece = SPEECH[start : start + SIZE]
            await out.capture_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, len(piece)))
        out.flush()
        while not played:
            await asyncio.sleep(0.01)
        first = len(pushed)
        for _ in range(50):
            await out.capture_frame(rtc.AudioFrame(SPEECH[:SIZE].tobytes(), RATE, 1, SIZE))
        while sum(isinstance(f, rtc.AudioFrame) for f in pushed[first:]) < 3:
            await asyncio.sleep(0.005)
        out.clear_buffer()
        while len(played) < 2:
            await asyncio.sleep(0.01)
        avatar.close()
        await runner.aclose()
        return played, first

    (finished, interrupted), first = within(60, converse())
    heard = [f for f in pushed[:first] if isinstance(f, rtc.AudioFrame)]
    assert not finished.interrupted and finished.playback_position == pytest.approx(len(heard) * 0.04)
    sound = np.concatenate([np.frombuffer(f.data, np.int16) for f in heard])
    at = int(np.flatnonzero(sound)[0])
    assert np.abs(sound[at : at + len(SPEECH)].astype(int) - SPEECH[: len(sound) - at]).max() <= 1
    assert interrupted.interrupted and 0.08 < interrupted.playback_position < 1.5
    assert sum(isinstance(f, rtc.VideoFrame) for f in pushed) >= len(heard)


def test_a_livekit_agent_of_another_rate_is_told(session: Session) -> None:
    rtc = pytest.importorskip("livekit.rtc")
    from df_infer.voice.livekit import Avatar

    with pytest.raises(UserError, match="speaks at 16000 Hz on 1 channels, the session hears 24000"):
        asyncio.run(Avatar(session).push_audio(rtc.AudioFrame(bytes(640), 16_000, 1, 320)))


def test_a_face_that_fails_is_told_to_pipecat_and_speech_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pytest.importorskip("pipecat.frames.frames")
    from pipecat.tests.utils import SleepFrame, run_test

    from df_infer.voice.pipecat import FaceService

    monkeypatch.setattr(session, "make", lambda: time.sleep(0.2) or 1 / 0)
    spoken = frames.TTSAudioRawFrame(audio=SPEECH[:SIZE].tobytes(), sample_rate=RATE, num_channels=1)
    asked = [spoken, frames.TTSStoppedFrame(), SleepFrame(0.5), spoken, frames.TTSStoppedFrame()]
    down, up = within(60, run_test(FaceService(session), frames_to_send=asked))
    (error,) = (frame for frame in up if isinstance(frame, frames.ErrorFrame))
    assert "the face failed" in error.error and isinstance(error.exception, ZeroDivisionError)
    kinds = [type(frame) for frame in down if isinstance(frame, frames.TTSAudioRawFrame | frames.TTSStoppedFrame)]
    assert kinds == [frames.TTSStoppedFrame, frames.TTSAudioRawFrame, frames.TTSStoppedFrame]


def test_a_pipecat_pipeline(session: Session) -> None:
    """pipecat's own pipeline and worker around the service."""
    frames = pytest.importorskip("pipecat.frames.frames")
    from pipecat.tests.utils import run_test

    from df_infer.voice.pipecat import FaceService

    speech = [
        frames.TTSAudioRawFrame(audio=SPEECH[start : start + SIZE].tobytes(), sample_rate=RATE, num_channels=1)
        for start in range(0, len(SPEECH), SIZE)
    ]
    asked = [frames.TTSStartedFrame(), *speech, frames.TTSStoppedFrame()]
    down, _ = within(60, run_test(FaceService(session), frames_to_send=asked))
    kinds = [type(frame) for frame in down]
    sound = [frame for frame in down if isinstance(frame, frames.TTSAudioRawFrame)]
    images = [frame for frame in down if isinstance(frame, frames.OutputImageRawFrame)]
    heard = np.concatenate([np.frombuffer(frame.audio, np.int16) for frame in sound])
    at = int(np.flatnonzero(heard)[0])
    assert np.abs(heard[at : at + len(SPEECH)].astype(int) - SPEECH).max() <= 1
    assert kinds.index(frames.TTSStoppedFrame) > max(i for i, k in enumerate(kinds) if k is frames.TTSAudioRawFrame)
    assert len(images) >= len(sound) and images[0].size == (16, 16) and images[0].format == "RGB"
