from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from df_infer.pipeline import Pipeline
from df_infer.run_dir import open_run
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_image


@pytest.fixture(scope="module")
def pipeline(files) -> Pipeline:
    return Pipeline.from_run(files.run, "cpu", vae=random_tiny_vae())


WAVE = np.random.default_rng(0).normal(scale=0.1, size=640 * 8).astype(np.float32)


def test_takes_the_run_s_own_rollout(pipeline: Pipeline) -> None:
    assert (pipeline.rollout.steps, pipeline.rollout.window) == (2, 3)


def test_frames_last_as_long_as_the_audio(pipeline: Pipeline, files) -> None:
    frames = list(pipeline.generate(read_image(files.image), WAVE))
    assert len(frames) == 9 and all(f.shape == (16, 16, 3) and f.dtype == np.uint8 for f in frames)


def test_the_stream_is_the_decoded_rollout(pipeline: Pipeline, files) -> None:
    clips = list(pipeline.stream(read_image(files.image), WAVE, num_frames=9))
    assert [len(c.frames) for c in clips] == [1, 4, 4] == [len(c.structure) for c in clips]
    again = list(pipeline.stream(read_image(files.image), WAVE, num_frames=9))
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(clips, again))
    other = list(pipeline.stream(read_image(files.image), WAVE, num_frames=9, seed=1))
    assert not np.array_equal(clips[-1].frames, other[-1].frames)


def test_structure_comes_in_its_own_units(files) -> None:
    pipeline = Pipeline.from_run(files.run, "cpu", vae=random_tiny_vae())
    plain = np.concatenate([c.structure for c in pipeline.stream(read_image(files.image), WAVE)])
    pipeline.model.set_structure_statistics(torch.full((70,), 5.0), torch.full((70,), 2.0))
    scaled = np.concatenate([c.structure for c in pipeline.stream(read_image(files.image), WAVE)])
    np.testing.assert_allclose(scaled, plain * 2 + 5, rtol=1e-4, atol=1e-4)


def test_another_vae_under_the_model_s_name_is_refused(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(files.run / "model", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    header = json.loads(config.read_text())
    header["config"]["encoder_hashes"] = {"video_vae": random_tiny_vae(0).sha256}
    config.write_text(json.dumps(header))
    for seed in (0, 1):
        monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda _, seed=seed: random_tiny_vae(seed))
        if seed:
            with pytest.raises(UserError, match=r"video_vae encoder .* has other weights"):
                Pipeline.from_run(tmp_path / "model", "cpu")
        else:
            Pipeline.from_run(tmp_path / "model", "cpu")


def test_decoding_beside_denoising_gives_the_same_frames(pipeline: Pipeline, files, denoised_in: set[int]) -> None:
    image, own = read_image(files.image), threading.get_ident()
    plain = [list(pipeline.stream(image, WAVE, num_frames=17, seed=seed)) for seed in (0, 1)]
    assert denoised_in == {own}
    denoised_in.clear()
    beside = dataclasses.replace(pipeline, beside=True)
    streams = [beside.stream(image, WAVE, num_frames=17, seed=seed) for seed in (0, 1)]
    for index, pair in enumerate(zip(*streams, strict=True)):
        for made, alone in zip(pair, plain):
            assert np.array_equal(made.frames, alone[index].frames)
            assert np.array_equal(made.structure, alone[index].structure)
    assert len(denoised_in) == 2 and own not in denoised_in, "a thread for each stream"


def test_two_streams_at_once_do_not_mix(pipeline: Pipeline, files) -> None:
    image = read_image(files.image)
    alone = [list(pipeline.generate(image, WAVE, seed=s)) for s in (0, 1)]
    streams = [pipeline.generate(image, WAVE, seed=s) for s in (0, 1)]
    together = list(zip(*streams))
    for index in (0, 1):
        assert all(np.array_equal(a, pair[index]) for a, pair in zip(alone[index], together))


def test_memory_does_not_grow_with_the_length(pipeline: Pipeline, files) -> None:
    stream = pipeline.stream(read_image(files.image), WAVE, num_frames=65)
    held = []
    for index, _ in enumerate(stream):
        if index in (6, 16):
            gc.collect()
            held.append(sum(o.numel() for o in gc.get_objects() if type(o) is torch.Tensor))
    assert held[1] <= held[0]


def test_wrong_arguments_fail_before_the_first_frame(pipeline: Pipeline, files) -> None:
    image = read_image(files.image)
    with pytest.raises(UserError, match="use 9 or 13"):
        pipeline.stream(image, WAVE, num_frames=10)
    with pytest.raises(UserError, match="0"):
        pipeline.stream(image, WAVE, num_frames=0)
    with pytest.raises(UserError, match="non-empty"):
        pipeline.stream(image, np.zeros(0, np.float32))


def test_a_model_directory_is_enough(files) -> None:
    assert open_run(files.run / "model").rollout == open_run(files.run).rollout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "no such run"),
        (lambda d: d.mkdir(), "is no run and no model"),
        (lambda d: (d.mkdir(), (d / "config.yaml").write_text("a: 1")), "has no trained model yet"),
    ],
)
def test_a_directory_that_is_no_run_is_named(tmp_path, make, message: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(UserError, match=message):
        open_run(tmp_path / "x")
