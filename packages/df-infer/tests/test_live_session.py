from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from df_infer import Session
from df_infer.live.saved import SessionState, read_state, write_state
from df_infer.live.session import Segment, _motion
from df_infer.pipeline import Pipeline
from df_infer.run_dir import Trained
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_audio, read_image
from df_models.media.audio import write_wav
from df_models.motion import Motion

NOISE = np.random.default_rng(0)
WAVE = NOISE.normal(scale=0.1, size=640 * 14 + 100).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline(files) -> Pipeline:
    return Pipeline.from_run(files.run, "cpu", vae=random_tiny_vae())


@pytest.fixture(scope="module")
def image(files) -> np.ndarray:
    return read_image(files.image)


def in_pieces(wave: np.ndarray, seed: int) -> list[np.ndarray]:
    """Divide a wave at random places, empty pieces and single samples among them."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(wave), 12))
    return np.split(wave, [0, 1, *cuts])


def spoken(session: Session, wave: np.ndarray, seed: int = 0) -> list[Segment]:
    """Push a wave in random pieces, making what is due after each, and close."""
    made = []
    for piece in in_pieces(wave, seed):
        session.push(piece)
        made += session.segments()
    session.close()
    made += session.segments()
    assert session.done and session.make() is None
    return made


def joined(segments: list[Segment]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.concatenate(x) for x in zip(*((s.frames, s.structure, s.audio) for s in segments)))  # pyright: ignore


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"chunk": 2, "window": 4},
        {"audio_future": 0},
        {"audio_future": 3, "start": "generate"},
        {"context_noise": 0.3},
    ],
    ids=str,
)
def test_speech_in_any_pieces_is_the_recording(pipeline: Pipeline, image: np.ndarray, changes: dict) -> None:
    rollout = pipeline.rollout.model_copy(update=changes)
    whole = list(pipeline.stream(image, WAVE, rollout=rollout, seed=3, keep_level=True))
    for pieces in (0, 1):
        segments = spoken(Session(pipeline, image, rollout=rollout, seed=3), WAVE, pieces)
        frames, structure, audio = joined(segments)
        assert np.array_equal(frames, np.concatenate([clip.frames for clip in whole]))
        assert np.array_equal(structure, np.concatenate([clip.structure for clip in whole]))
        assert (
            np.array_equal(audio[: len(WAVE)], WAVE)
            and len(audio) == 640 * len(frames)
            and not audio[len(WAVE) :].any()
        )
        assert [s.frame for s in segments] == np.cumsum([0, *(len(s.frames) for s in segments[:-1])]).tolist()


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_sound_of_another_rate_is_heard_as_in_a_file(
    pipeline: Pipeline, image: np.ndarray, tmp_path: Path, rate: int
) -> None:
    pcm = (NOISE.normal(scale=0.1, size=rate // 25 * 9) * 2**15).astype(np.int16)
    write_wav(tmp_path / "a.wav", (pcm / 32767.0), rate)
    whole = list(pipeline.generate(image, read_audio(tmp_path / "a.wav"), keep_level=True))
    frames, _, audio = joined(spoken(Session(pipeline, image, rate=rate), pcm))
    assert np.array_equal(frames, whole[: len(frames)]) and len(frames) == 9
    assert np.array_equal(audio, pcm / np.float32(2**15))


def test_a_frame_waits_for_its_chunk_and_what_is_heard_ahead(pipeline: Pipeline, image: np.ndarray) -> None:
    rollout = pipeline.rollout.model_copy(update={"audio_future": 2})
    session = Session(pipeline, image, rollout=rollout)
    waited = []
    for _ in range(640 * 12 // 40):
        session.push(np.zeros(40, np.float32))
        while session.due:
            segment = session.make()
            assert segment is not None
            waited.append((segment.frame + len(segment.frames)) * 0.04)
            assert session._sound.samples / 16_000 <= waited[-1] + 2 * 0.04 + 0.005
    assert session.latency_s == pytest.approx(0.16 + 0.08 + 0.0025) and waited[:2] == pytest.approx([0.04, 0.2])


def test_an_interruption_goes_on_from_what_was_seen(pipeline: Pipeline, image: np.ndarray) -> None:
    session = Session(pipeline, image)
    session.push(WAVE)
    session.close()
    before, _, _ = joined(list(session.segments()))
    assert session.clear(shown=10) == 13, "the latent frame of what was shown last is shown to its end"
    other = NOISE.normal(scale=0.3, size=640 * 8).astype(np.float32)
    after = spoken(session, other)
    straight, _, _ = joined(spoken(Session(pipeline, image), np.concatenate([WAVE[: 640 * 13], other])))
    frames, _, audio = joined(after)
    assert after[0].frame == 13 and np.array_equal(audio[: len(other)], other)
    assert len(before[:13]) + len(frames) == len(straight)
    # frames 5 to 12 were made when they heard ahead into the speech that was taken back; those before, alike
    assert np.array_equal(before[:5], straight[:5]) and not np.array_equal(before[9:13], straight[9:13])
    assert not np.array_equal(frames[0], before[13]), "what follows hears other speech"


def test_what_was_undone_leaves_no_trace(pipeline: Pipeline, image: np.ndarray) -> None:
    """Chunks made of one future and undone, then made of another: as if the first had never been."""
    speech, other = WAVE[: 640 * 13], NOISE.normal(scale=0.3, size=640 * 12).astype(np.float32)
    twice, once = (
        Session(pipeline, image, rollout=pipeline.rollout.model_copy(update={"audio_future": 0})) for _ in "ab"
    )
    for session in (twice, once):
        session.push(speech[: 640 * 5 + 40])
        list(session.segments())
        assert session.frame == 5
    twice.push(speech[640 * 5 + 40 :])
    assert len(list(twice.segments())) >= 1
    for session in (twice, once):
        assert session.clear(shown=5) == 5
    again, first = joined(spoken(twice, other)), joined(spoken(once, other))
    assert all(np.array_equal(a, b) for a, b in zip(again, first))


def test_what_can_be_undone_is_told(pipeline: Pipeline, image: np.ndarray) -> None:
    session = Session(pipeline, image, keep=2)
    session.push(WAVE)
    assert len(list(session.segments())) == 3
    with pytest.raises(UserError, match="10 pixel frames cannot have been shown, of 9"):
        session.clear(10)
    with pytest.raises(UserError, match="further back than can be undone, the last 2 chunks"):
        session.clear(0)
    assert session.clear(1) == 1 and session.clear(1) == 1
    session.push(WAVE)
    assert [s.frame for s in session.segments()] == [1, 5]


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_saved_session_goes_on_as_if_it_had_never_stopped(
    pipeline: Pipeline, image: np.ndarray, tmp_path: Path, rate: int
) -> None:
    wave = NOISE.normal(scale=0.1, size=rate // 25 * 21).astype(np.float32)
    motion = Motion(NOISE.normal(size=(13, 70)).astype(np.float32), pipeline.model.config.structure_layout)
    session = Session(pipeline, image, rate=rate, seed=5, gain_db=3.0, motion=motion)
    session.push(wave[: rate // 25 * 11 + 7])
    begun = list(session.segments())
    write_state(tmp_path / "s.safetensors", session.state())
    resumed = Session.resumed(pipeline, read_state(tmp_path / "s.safetensors"))
    assert resumed.frame == session.frame == len(joined(begun)[0])
    rest = wave[rate // 25 * 11 + 7 :]
    assert all(np.array_equal(a, b) for a, b in zip(joined(spoken(session, rest)), joined(spoken(resumed, rest))))


def damaged(state: SessionState, at: str, value: Any) -> SessionState:
    """A state with another fact or tensor; None takes it away."""
    tensors, facts = dict(state.tensors), json.loads(json.dumps(state.facts))
    *way, last = at.split("/")
    where: dict[str, Any] = facts if way else tensors
    for name in way[1:]:
        where = where[name]
    if value is None:
        del where[last]
    else:
        where[last] = value(where[last]) if callable(value) else value
    return SessionState(tensors, facts)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        ("facts/settings/rate", "fast", "settings.rate"),
        ("facts/settings/rate", 12_345, "multiple of 25"),
        ("facts/settings/gain_db", float("inf"), "settings.gain_db"),
        ("facts/settings/keep", -1, "settings.keep"),
        ("facts/settings/rollout/steps", 0, "rollout.steps"),
        ("facts/settings", None, "settings"),
        ("facts/making/latent", 99, "393 are made of it"),
        ("facts/making/latent", 0, "holds 'decoder"),
        ("facts/making/latent", -1, "making.latent"),
        ("facts/sound/first", 8, "holds the sound of frames 8"),
        ("facts/sound/resampled_from", 90, "as much sound is not heard"),
        ("facts/sound/ended", "perhaps", "sound.ended"),
        ("facts/more", 1, "more"),
        ("facts/settings/rollout/window", 10**12, "its window is more than"),
        ("given.motion", lambda x: x[:, :0], "'given.motion' must be float32 [1, 1, 4, 70]"),
        ("facts/settings/gain_db", 1e9, "settings.gain_db"),
        ("facts/fields", ["nose"], "nose"),
        ("given.latent", None, "lacks 'given.latent'"),
        ("given.latent", lambda x: x[..., :1], "'given.latent' must be float32 [1, 16, 2, 2]"),
        ("given.motion", lambda x: x[..., :3], "'given.motion' must be"),
        ("given.motion", lambda x: x * torch.nan, "'given.motion' holds values that are no numbers"),
        ("sampler.structure", None, "lacks 'sampler.structure'"),
        ("sampler.audio_past", lambda x: x[:, :1], "'sampler.audio_past' must be"),
        ("sampler.0.keys", lambda x: x * torch.inf, "'sampler.0.keys' holds values"),
        ("sampler.0.values", lambda x: x.half(), "must be float32"),
        ("decoder.0", lambda x: x[:, :1], "'decoder.0' must be"),
        ("sound.heard", lambda x: x[:-2000], "as much sound is not heard"),
        ("sound.pushed", lambda x: x[None], "'sound.pushed' must be"),
        ("sound.heard", lambda x: x * torch.nan, "'sound.heard' holds values"),
        ("stranger", torch.zeros(1), "holds 'stranger', which such a session does not"),
    ],
)
def test_a_damaged_session_is_refused_in_a_line(
    pipeline: Pipeline, image: np.ndarray, at: str, value: Any, why: str
) -> None:
    motion = Motion(NOISE.normal(size=(13, 70)).astype(np.float32), pipeline.model.config.structure_layout)
    session = Session(pipeline, image, rate=24_000, motion=motion)
    session.push(NOISE.normal(scale=0.1, size=960 * 14).astype(np.float32))
    list(session.segments())
    state = session.state()
    assert Session.resumed(pipeline, damaged(state, "sampler.structure", lambda x: x)).frame == session.frame > 0
    if at == "stranger":
        state.tensors[at] = torch.ones(1)
    if at == "facts/more":
        state.facts["more"] = 0
    with pytest.raises(UserError, match=re.escape(why)) as told:
        Session.resumed(pipeline, damaged(state, at, value))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_a_session_saved_right_after_an_interruption_goes_on(pipeline: Pipeline, image: np.ndarray, rate: int) -> None:
    wave = NOISE.normal(scale=0.1, size=rate // 25 * 20).astype(np.float32)
    session = Session(pipeline, image, rate=rate)
    session.push(wave)
    list(session.segments())
    session.clear(shown=7)
    resumed = Session.resumed(pipeline, session.state())
    assert all(np.array_equal(a, b) for a, b in zip(joined(spoken(session, wave)), joined(spoken(resumed, wave))))


def test_a_chunk_whose_decoding_fails_can_be_made_again(
    pipeline: Pipeline, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, straight = Session(pipeline, image), Session(pipeline, image)
    for one in (session, straight):
        one.push(WAVE)
        one.make()
    with monkeypatch.context() as broken:
        broken.setattr("df_infer.clip_decoder._to_uint8", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.make()
    again, wanted = session.make(), straight.make()
    assert again is not None and wanted is not None and np.array_equal(again.frames, wanted.frames)


def test_a_saved_session_of_another_model_is_refused(pipeline: Pipeline, image: np.ndarray, tmp_path: Path) -> None:
    state = Session(pipeline, image).state()
    with pytest.raises(UserError, match="of another model"):
        Session.resumed(pipeline, state._replace(facts=state.facts | {"model": "0" * 64}))
    with pytest.raises(UserError, match="was told 'a man sings', the model None"):
        Session.resumed(pipeline, state._replace(facts=state.facts | {"prompt": "a man sings"}))
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        read_state(tmp_path / "a.safetensors")
    write_state(str(tmp_path / "a.safetensors"), state)
    assert read_state(str(tmp_path / "a.safetensors")).facts == json.loads(json.dumps(state.facts))
    written = bytearray((tmp_path / "a.safetensors").read_bytes())
    written[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(written)
    with pytest.raises(UserError, match="damaged: it is not what was written"):
        read_state(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="damaged"):
        Session.resumed(pipeline, SessionState(state.tensors, None))  # pyright: ignore[reportArgumentType]
    deep = json.dumps({"version": 2, "deep": None}).replace("null", "[" * 100_000 + "]" * 100_000)
    (tmp_path / "a.safetensors").write_bytes(save({"x": torch.zeros(1)}, metadata={"session": deep}))
    with pytest.raises(UserError, match="damaged"):
        read_state(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="no such saved session"):
        read_state(tmp_path / "b.safetensors")


def test_a_motion_is_followed_and_then_left(pipeline: Pipeline, image: np.ndarray) -> None:
    track = NOISE.normal(size=(10, 70)).astype(np.float32)
    motion = Motion(track, pipeline.model.config.structure_layout)
    _, structure, _ = joined(spoken(Session(pipeline, image, motion=motion), WAVE))
    np.testing.assert_allclose(structure[:9], track[:9], atol=1e-5)
    assert np.abs(structure[9:] - structure[8]).max() > 0.1, "after its end the model moves by itself"


def test_it_is_idle_for_no_less_than_no_time(pipeline: Pipeline, image: np.ndarray) -> None:
    with pytest.raises(UserError, match="0 frames or more, not for -3"):
        Session(pipeline, image).idle(-3)


def test_it_holds_no_more_the_longer_it_lasts(pipeline: Pipeline, image: np.ndarray) -> None:
    session = Session(pipeline, image, keep=3, rate=24_000)
    held = []
    for _ in range(2):
        for _ in range(8):
            session.idle(4)
            list(session.segments())
        held.append(session.bytes)
    assert held[0] == held[1]


def test_frames_come_as_they_are_due_to_a_waiting_program(pipeline: Pipeline, image: np.ndarray) -> None:
    async def speak() -> int:
        session, count = Session(pipeline, image), 0

        async def push() -> None:
            for piece in in_pieces(WAVE, 0):
                session.push(piece)
                await asyncio.sleep(0.001)
            session.close()

        pushing = asyncio.create_task(push())
        async for segment in session.stream():
            count += len(segment.frames)
        await pushing
        return count

    assert asyncio.run(speak()) == 17


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.zeros((2, 640), np.float32), r"mono samples \[N\], not \[2, 640\]"),
        (np.full(640, np.nan, np.float32), "no numbers"),
        (np.full(640, 3e4, np.float32), "full scale is 1"),
        (np.zeros(640, np.int32), "float32 in .* or int16, not int32"),
    ],
)
def test_sound_that_is_none_is_refused(pipeline: Pipeline, image: np.ndarray, pcm: np.ndarray, message: str) -> None:
    session = Session(pipeline, image)
    with pytest.raises(UserError, match=message):
        session.push(pcm)
    session.push(WAVE)
    assert session.due


def test_what_cannot_be_live_is_refused(pipeline: Pipeline, image: np.ndarray) -> None:
    with pytest.raises(UserError, match="a multiple of 25"):
        Session(pipeline, image, rate=16_001)
    with pytest.raises(UserError, match="whole clip; give chunk=1"):
        Session(pipeline, image, rollout=pipeline.rollout.model_copy(update={"chunk": None}))
    with pytest.raises(UserError, match="cannot take its structure from another"):
        Session(pipeline, image, rollout=pipeline.rollout.model_copy(update={"structure_from": "runs/x"}))
    with pytest.raises(UserError, match="there is no motion"):
        Session(pipeline, image, fields=("pitch",))
    with pytest.raises(UserError, match="needs a portrait"):
        Session(pipeline, None)
    with pytest.raises(UserError, match="must be an array, not str"):
        Session(pipeline, "face.png")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="outlasts any motion"):
        _motion(SimpleNamespace(config=replace(pipeline.model.config, structure_given="always")), None, ())  # pyright: ignore
    student = replace(pipeline, trained=Trained(distilled=True))
    track = Motion(np.zeros((9, 70), np.float32), pipeline.model.config.structure_layout)
    with pytest.raises(UserError, match="is a distilled student"):
        Session(student, image, motion=track)
    with pytest.raises(UserError, match="is a distilled student"):
        Session(student, image, rollout=pipeline.rollout.model_copy(update={"structure_guidance": 1.5}))
    session = Session(pipeline, image)
    session.close()
    with pytest.raises(UserError, match="has ended"):
        session.push(WAVE)
