"""Prompts: from the command line or the run to the model, and guidance on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from df_infer import pipeline as pipeline_module
from df_infer.cli import main
from df_infer.config import RolloutChanges
from df_infer.pipeline import Pipeline, encode_prompt
from df_infer.rollout import Rollout, RolloutConfig, generate_latents
from df_infer.sampling.guidance import combined
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import read_image
from df_models.text import PROMPT_FILE, Prompt, pad_text, write_prompt

WIDTH = 12
CONFIG = RolloutConfig(steps=2, window=4, sinks=1)
WAVE = np.random.default_rng(0).normal(scale=0.1, size=640 * 5).astype(np.float32)


class Words:
    """A text encoder of three lines: as many rows as words, each the same for the same word."""

    id, sha256, licence, num_tokens = "words", "0", "Apache-2.0", 512

    def __init__(self, dim: int = WIDTH) -> None:
        self.dim = dim

    def encode(self, prompts: list[str]) -> Tensor:
        out = torch.zeros(len(prompts), 512, self.dim)
        for rows, prompt in zip(out, prompts, strict=True):
            for row, word in zip(rows, prompt.split()):
                row.copy_(torch.randn(self.dim, generator=torch.Generator().manual_seed(sum(map(ord, word)))))
        return out

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Words:
        return self


@pytest.fixture(scope="module")
def reading(model: DualForce) -> DualForce:
    """The tiny model with a text branch that both towers read."""
    torch.manual_seed(3)
    built = DualForce(replace(model.config, text_dim=WIDTH, structure_text=True))
    with torch.no_grad():
        for parameter in built.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return built.eval()


@pytest.fixture
def run(reading: DualForce, tmp_path: Path) -> Path:
    """A run of that model, without a prompt of its own."""
    folder = tmp_path / "run"
    reading.save_pretrained(folder / "model")
    (folder / "config.yaml").write_text("name: told\nrollout:\n  steps: 2\n  window: 3\n")
    return folder


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Text encoders are :class:`Words`; the names that were asked for."""
    asked: list[str] = []

    def load(spec: str) -> Words:
        asked.append(spec)
        return Words()

    monkeypatch.setattr(pipeline_module, "load_text_encoder", load)
    monkeypatch.setattr(pipeline_module, "load_video_vae", lambda _: random_tiny_vae())
    return asked


def roll(model: DualForce, inputs, text: Tensor | None, config: RolloutConfig = CONFIG, frames: int = 4) -> Rollout:
    return generate_latents(
        model, inputs.audio[:, :frames], inputs.reference_latent, inputs.reference_tokens, text, config=config
    )


def test_the_prompt_changes_the_result_and_its_padding_does_not(reading: DualForce, inputs) -> None:
    text = torch.randn(2, 5, WIDTH)
    told = roll(reading, inputs, text)
    assert torch.equal(told.video, roll(reading, inputs, pad_text(text)).video)
    other = roll(reading, inputs, text.flip(0))
    assert not torch.allclose(told.video[:, 1:], other.video[:, 1:])
    assert not torch.allclose(told.structure, other.structure)


def test_rows_of_a_batch_are_told_their_own(reading: DualForce, inputs) -> None:
    one, two = torch.randn(1, 5, WIDTH), torch.randn(1, 5, WIDTH)
    both = roll(reading, inputs, torch.cat([one, two]))
    same = roll(reading, inputs, torch.cat([one, one]))
    torch.testing.assert_close(both.video[0], same.video[0])
    assert not torch.allclose(both.video[1, 1:], same.video[1, 1:])


def test_text_and_model_must_fit(model: DualForce, reading: DualForce, inputs) -> None:
    with pytest.raises(UserError, match="the model reads text, but there is none"):
        roll(reading, inputs, None)
    with pytest.raises(UserError, match="a text was given, but the model reads no text"):
        roll(model, inputs, torch.zeros(2, 5, WIDTH))
    with pytest.raises(UserError, match="text_guidance is given, but the model reads no text"):
        roll(model, inputs, None, RolloutChanges(text_guidance=2.0).applied_to(CONFIG))
    with pytest.raises(UserError, match=r"text must be \[batch, tokens, 12\]"):
        roll(reading, inputs, torch.zeros(2, 5, WIDTH + 1))


def test_guidance_of_zero_is_the_model_without_that_condition(reading: DualForce, inputs) -> None:
    """v + (0 - 1) (v - v without) = v without: the null text is zero rows."""
    text = torch.randn(2, 5, WIDTH)
    guided = roll(reading, inputs, text, RolloutChanges(text_guidance=0.0).applied_to(CONFIG), frames=1)
    without = roll(reading, inputs, torch.zeros(2, 0, WIDTH), frames=1)
    torch.testing.assert_close(guided.structure, without.structure, rtol=1e-4, atol=1e-4)


def test_two_guidances_add_up() -> None:
    """Constructed answers: 1 with everything, 2 without audio, 5 without text."""
    total = combined(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(5.0), scales=(3.0, 1.5))
    assert float(total) == pytest.approx(1 + (3 - 1) * (1 - 2) + (1.5 - 1) * (1 - 5))


def test_each_guidance_leaves_out_its_own_condition(reading: DualForce, inputs, monkeypatch) -> None:
    text = torch.randn(2, 5, WIDTH)
    seen: dict[str, Tensor] = {}
    new_cache, step = DualForce.new_cache, DualForce.step

    def spy_cache(self, *args, **options):
        seen["text"] = options["text"]
        return new_cache(self, *args, **options)

    def spy_step(self, video, structure, audio, *args, **options):
        seen["audio"] = audio
        return step(self, video, structure, audio, *args, **options)

    monkeypatch.setattr(DualForce, "new_cache", spy_cache)
    monkeypatch.setattr(DualForce, "step", spy_step)
    roll(reading, inputs, text, RolloutChanges(audio_guidance=2.0, text_guidance=3.0).applied_to(CONFIG), frames=1)
    full, no_audio, no_text = seen["text"].chunk(3)
    assert torch.equal(full, pad_text(text)) and torch.equal(no_audio, full) and not no_text.any()
    full, no_audio, no_text = seen["audio"].chunk(3)
    assert full.any() and torch.equal(no_text, full) and not no_audio.any()


def test_a_prompt_is_encoded_by_the_model_s_encoder(run: Path, files, words: list[str]) -> None:
    image = read_image(files.image)
    told = Pipeline.from_run(run, "cpu", prompt="a woman talks")
    assert words == ["umt5-xxl"] and told.prompt is not None
    assert told.prompt.features_LD.shape == (3, WIDTH), "its own rows only"
    frames = list(told.stream(image, WAVE))
    other = list(Pipeline.from_run(run, "cpu", prompt="a man sings").stream(image, WAVE))
    assert not np.array_equal(frames[-1].structure, other[-1].structure)


def test_without_one_the_run_s_own_is_used_and_no_encoder_loaded(run: Path, files, words: list[str]) -> None:
    prompt = encode_prompt("a woman talks", Words(), WIDTH)
    write_prompt(run / "model" / PROMPT_FILE, prompt)
    image = read_image(files.image)
    own = list(Pipeline.from_run(run, "cpu").stream(image, WAVE))
    assert words == []
    bare = list(Pipeline.from_run(run / "model", "cpu").stream(image, WAVE, rollout=RolloutConfig(steps=2, window=3)))
    given = list(Pipeline.from_run(run, "cpu", prompt="a woman talks").stream(image, WAVE))
    for one, two, three in zip(own, bare, given, strict=True):
        assert np.array_equal(one.frames, two.frames) and np.array_equal(one.frames, three.frames)


def test_a_model_that_reads_text_needs_one_before_the_first_frame(run: Path, files, words: list[str]) -> None:
    with pytest.raises(UserError, match="--prompt"):
        Pipeline.from_run(run, "cpu").stream(read_image(files.image), WAVE)


def test_a_prompt_for_a_model_that_reads_none_is_refused(files, words: list[str]) -> None:
    with pytest.raises(UserError, match="a prompt was given, but the model reads no text"):
        Pipeline.from_run(files.run, "cpu", prompt="a woman talks")
    assert words == []


def test_an_encoder_of_another_width_is_refused() -> None:
    with pytest.raises(UserError, match="'words' gives 7 features, but the model takes 12"):
        encode_prompt("a woman talks", Words(7), WIDTH)


def test_on_the_command_line(run: Path, files, words: list[str], tmp_path: Path, capsys) -> None:
    given = ["generate", "--run", str(run), "--image", str(files.image), "--audio", str(files.audio), "--frames", "5"]
    out = ["--out", str(tmp_path / "out.mp4"), "--device", "cpu", "--quiet"]
    assert main([*given, *out]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "give a prompt" in errors and not (tmp_path / "out.mp4").exists()
    assert main([*given, *out, "--prompt", "a woman talks"]) == 0
    assert "the model was told: a woman talks" in capsys.readouterr().out
    write_prompt(run / "model" / PROMPT_FILE, Prompt("a man sings", torch.randn(3, WIDTH).half()))
    assert main([*given, *out]) == 0
    assert "the model was told: a man sings" in capsys.readouterr().out
