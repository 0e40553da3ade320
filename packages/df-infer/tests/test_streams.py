"""Models of one stream, and a model that hears nothing, from the command line and in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from df_infer import cli
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig, generate_latents
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_video

SETTINGS = RolloutConfig(steps=2, window=3)


@pytest.fixture(autouse=True)
def _tiny_vae(monkeypatch):
    vae = random_tiny_vae()
    monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda name: vae)


@pytest.fixture(scope="module")
def forms(model, tmp_path_factory):
    """Models of the whole one's sizes that lack parts, and where they are saved."""
    made = {}
    for name, changes in (
        ("video", {"streams": "video", "audio_dim": 0}),
        ("structure", {"streams": "structure"}),
    ):
        torch.manual_seed(0)
        built = DualForce(type(model.config).from_dict({**vars(model.config), **changes})).eval()
        folder = tmp_path_factory.mktemp(name)
        built.save_pretrained(folder)
        made[name] = built, folder
    return made


def test_latents_of_one_stream(forms, inputs):
    video, structure = forms["video"][0], forms["structure"][0]
    audio, latent, tokens = inputs
    made = generate_latents(video, audio[:, :4, :, :0], latent, tokens, config=SETTINGS)
    assert made.video.shape == (2, 4, 16, 2, 2) and made.structure.shape == (2, 4, 4, 0)
    assert torch.isfinite(made.video).all() and torch.equal(made.video[:, 0], latent)
    made = generate_latents(structure, audio[:, :4], config=SETTINGS)
    assert made.structure.shape == (2, 4, 4, 70) and made.video.shape[:3] == (2, 4, 0)
    both = generate_latents(structure, audio[1:, :4], config=SETTINGS, sample_ids=[1])
    torch.testing.assert_close(both.structure, made.structure[1:])
    for wrong, said in (
        (lambda: generate_latents(structure, audio, latent, config=SETTINGS), "a portrait was given, but"),
        (lambda: generate_latents(video, audio[..., :0], config=SETTINGS), "needs a portrait"),
        (
            lambda: generate_latents(
                video, audio[..., :0], latent, tokens, config=SETTINGS.model_copy(update={"audio_guidance": 2.0})
            ),
            "hears no audio",
        ),
    ):
        with pytest.raises(UserError, match=said):
            wrong()


def _command(*options: object) -> int:
    return cli.main(["generate", *map(str, options), "--quiet", "--steps", "2"])


def test_structure_alone_is_written(forms, files, tmp_path, capsys):
    out, run = tmp_path / "motion.npz", forms["structure"][1]
    assert _command("--run", run, "--audio", files.audio, "--frames", 9, "--structure-out", out) == 0
    assert np.load(out)["structure"].shape == (9, 70)
    assert f"wrote {out}: 9 frames" in capsys.readouterr().out
    for options, said in (
        (("--image", files.image, "--structure-out", out), "--image was given, but the model of"),
        ((), "--structure-out is missing"),
    ):
        assert _command("--run", run, "--audio", files.audio, *options) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_video_alone_is_written_without_audio(forms, files, tmp_path, capsys):
    out, run = tmp_path / "out.mp4", forms["video"][1]
    assert _command("--run", run, "--image", files.image, "--frames", 9, "--out", out) == 0
    assert len(read_video(out)[0]) == 9
    assert "9 frames, 0.36 s," in capsys.readouterr().out
    for options, said in (
        (("--frames", 9, "--structure-out", tmp_path / "m.npz"), "--structure-out was given, but"),
        ((), "--audio is missing"),
    ):
        assert _command("--run", run, "--image", files.image, "--out", out, *options) == 2
        assert said in capsys.readouterr().err


def test_a_pipeline_loads_what_its_model_needs(forms):
    structure, video = (Pipeline.from_run(forms[name][1]) for name in ("structure", "video"))
    assert structure.vae is None and structure.reference_encoder is None and structure.audio_encoder is not None
    assert video.audio_encoder is None and video.vae is not None
    with pytest.raises(UserError, match="there is no video"):
        _ = structure.video_vae
    with pytest.raises(UserError, match="there is no audio"):
        structure.stream(None, None, num_frames=5)
