"""A trained model behind the server, on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from df_infer import cli
from df_infer.config import RolloutConfig
from df_infer.pipeline import Pipeline
from df_infer.run_dir import Trained
from df_infer.sampling.steps import alone
from df_infer.serve.backend import PipelineBackend, rollout_with
from df_infer.serve.protocol import FaceSettings, pcm_bytes, pcm_float, unpack
from df_infer.serve.speaker import keep_frames
from df_models.errors import UserError
from df_models.media import read_audio, read_image
from df_models.motion import Motion, write_motion
from df_models.structure import SYNTHETIC_70, StructureLayout

from .conftest import Running, running


@pytest.fixture(scope="module")
def pipeline(files: Any) -> Pipeline:
    return Pipeline.from_run(files.run, "cpu", "float32")


@pytest.fixture(scope="module")
def real(pipeline: Pipeline) -> Iterator[Running]:
    with running(PipelineBackend(pipeline, "tiny")) as server:
        yield server


def test_what_is_sent_to_a_socket_becomes_what_generate_makes_of_the_file(
    real: Running, pipeline: Pipeline, files: Any
):
    image, wave = read_image(files.image), read_audio(files.audio)
    sent = pcm_bytes(wave)

    async def client() -> tuple[np.ndarray, np.ndarray]:
        frames, sound = [], []
        async with connect(real.ws) as socket:
            await socket.send(json.dumps({"type": "start", "settings": {"seed": 5}}))
            while json.loads(await socket.recv())["type"] != "ready":
                pass
            for start in range(0, len(sent), 6001 * 2):
                await socket.send(sent[start : start + 6001 * 2])
            await socket.send(json.dumps({"type": "end"}))
            async for message in socket:
                if isinstance(message, bytes):
                    piece = unpack(message)
                    frames.extend(piece.frames)
                    sound.append(piece.audio)
        return np.stack(frames), np.concatenate(sound)

    real.house._example = real.backend.portrait(image)
    frames, sound = asyncio.run(client())
    heard = pcm_float(sent)
    wanted = np.stack(list(pipeline.generate(image, heard, seed=5, keep_level=True)))
    np.testing.assert_array_equal(frames, wanted)
    np.testing.assert_allclose(sound[: len(heard)], heard, atol=1e-4)


@pytest.mark.parametrize("level", [None, -60.0], ids=["as it is", "far too loud for the model"])
def test_a_whole_video_is_what_generate_makes(pipeline: Pipeline, files: Any, level: float | None):
    """Made by steps, which live chunks may come between."""
    image, wave = read_image(files.image), read_audio(files.audio)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.model, "config", replace(pipeline.model.config, speech_level=level))
        backend = PipelineBackend(pipeline, "tiny")
        video = backend.video(backend.portrait(image), wave, FaceSettings(seed=5, steps=2))
        rollout = pipeline.rollout.model_copy(update={"steps": 2})
        wanted = np.stack(list(pipeline.generate(image, wave, seed=5, rollout=rollout)))
        quiet = np.stack(list(pipeline.generate(image, wave, seed=5, rollout=rollout, keep_level=True)))
    made = []
    while (segment := alone(video.chunk())) is not None:
        made.append(segment.frames)
    np.testing.assert_array_equal(np.concatenate(made), wanted)
    assert len(wanted) == video.count
    assert np.array_equal(quiet, wanted) == (level is None), "it is heard quieter"


def test_a_whole_video_is_refused_a_motion_that_ends_sooner(pipeline: Pipeline, files: Any):
    motion = Motion(np.zeros((9, 70), np.float32), StructureLayout.of(SYNTHETIC_70, "synthetic"))
    backend, wave = PipelineBackend(pipeline, "tiny", motion), read_audio(files.audio)
    portrait = backend.portrait(read_image(files.image))
    with pytest.raises(UserError, match="motion track has 9 frames"):
        backend.video(portrait, wave, FaceSettings(drive=True))
    assert backend.video(portrait, wave, FaceSettings()).count == 25


def test_model_that_cannot_be_live_is_refused(pipeline: Pipeline):
    whole = Pipeline(
        **{**vars(pipeline), "rollout": pipeline.rollout.model_copy(update={"chunk": None})} | {"_makers": {}}
    )
    with pytest.raises(UserError, match="nothing of it can be live"):
        PipelineBackend(whole, "whole")


def test_student_is_refused_a_whole_motion_before_anybody_comes_in(pipeline: Pipeline):
    student = replace(pipeline, trained=Trained(distilled=True))
    motion = Motion(np.zeros((25, 70), np.float32), StructureLayout.of(SYNTHETIC_70, "synthetic"))
    with pytest.raises(UserError, match="distilled student"):
        PipelineBackend(student, "student", motion)
    assert PipelineBackend(student, "student", motion, ("yaw",)).about.drive


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--portrait", "nowhere.png"], "nowhere.png"),
        (["--motion", "{motion}", "--motion-fields", "nose"], "nose"),
        (["--motion-fields", "yaw"], "--motion"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    pipeline: Pipeline,
    tmp_path: Path,
    more: list[str],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("df_infer.pipeline.Pipeline.from_run", lambda *_, **__: pipeline)
    monkeypatch.setattr("df_infer.serve.command.open_run", lambda *_: None)
    layout = StructureLayout.of(SYNTHETIC_70, "synthetic")
    motion = tmp_path / "motion.npz"
    write_motion(motion, Motion(np.zeros((25, 70), np.float32), layout))
    told = [value.format(motion=motion) for value in more]
    assert cli.main(["serve", "--run", "tiny", *told]) == 2
    assert why in capsys.readouterr().err.strip().splitlines()[-1]


def test_guidance_on_structure_is_offered_where_it_was_learnt(pipeline: Pipeline, files: Any):
    guided = FaceSettings(steps=1, structure_guidance=2.0)
    backend = PipelineBackend(pipeline, "tiny")
    assert backend.about.structure_guidance == 1.0
    portrait = backend.portrait(read_image(files.image))
    faces = [backend.open(portrait, 16_000, settings, 8) for settings in (guided, FaceSettings(steps=1))]
    for face in faces:
        face.idle(20)
    one, other = ([segment.frames for segment in face.segments()] for face in faces)
    assert not np.array_equal(one[1], other[1]), "it reaches the model"
    backend = PipelineBackend(replace(pipeline, trained=Trained(structure_tail=0.0)), "tiny")
    assert backend.about.structure_guidance is None
    with pytest.raises(UserError, match=r"objective.structure_tail=0"):
        backend.open(portrait, 16_000, guided, 8)


def test_face_can_undo_as_much_as_the_server_makes_ahead(pipeline: Pipeline, files: Any):
    backend, keep = PipelineBackend(pipeline, "tiny"), keep_frames(2.0)
    face = backend.open(backend.portrait(read_image(files.image)), 16_000, FaceSettings(steps=1), keep)
    face.idle(keep + 20)
    while face.make() is not None:
        pass
    furthest = face.frame - keep
    assert furthest > 0 and furthest <= face.clear(furthest) < furthest + 4


def test_users_settings_change_the_models_own():
    own = RolloutConfig(steps=8, structure_steps=4, audio_guidance=2.0)
    assert rollout_with(own, FaceSettings()) == own
    changed = rollout_with(own, FaceSettings(steps=4, audio_guidance=1.5, structure_guidance=3.0))
    assert (changed.steps, changed.structure_steps) == (4, 2)
    assert (changed.audio_guidance, changed.structure_guidance) == (1.5, 3.0)
    assert rollout_with(own, FaceSettings(steps=1)).structure_steps == 1


@pytest.mark.parametrize(
    ("settings", "more"),
    [({}, False), ({"steps": 9}, True), ({"steps": 4}, False), ({"audio_guidance": 1.0, "steps": 16}, False),
     ({"structure_guidance": 2.0}, True), ({"audio_guidance": 5.0}, False)],
)  # fmt: skip
def test_more_work_than_the_models_own_is_known(pipeline: Pipeline, settings: dict[str, Any], more: bool):
    own = replace(pipeline, rollout=pipeline.rollout.model_copy(update={"steps": 8, "audio_guidance": 2.0}))
    assert PipelineBackend(own, "tiny").takes_more(FaceSettings(**settings)) == more
