"""Evaluation of a model that reads text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from df_eval.clips import EvalClip
from df_eval.rows.generation import generate_clips, text_rows
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig
from df_models import DualForce
from df_models.encoders import load_audio_encoder, load_reference_encoder, random_tiny_vae
from df_models.errors import UserError
from df_models.text import Prompt, pad_text

WIDTH = 12
TINY = {
    "dim": 48, "num_layers": 1, "num_heads": 2, "ffn_dim": 64, "structure_width": 32, "structure_layers": 1,
    "structure_heads": 2, "structure_ffn_dim": 64, "fusion_depth": 1, "bridge_width": 32, "bridge_heads": 2,
    "audio_width": 32, "audio_heads": 2, "reference_width": 32, "flame_dim": 0, "video_size": 16,
    "text_dim": WIDTH, "structure_text": True,
}  # fmt: skip
ROLLOUT = RolloutConfig(steps=2, window=4)
OWN = Prompt("a run's own prompt", torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(9)).half())


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart", **TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    encoders = random_tiny_vae(0), load_audio_encoder("logmel"), load_reference_encoder("patches")
    return Pipeline(model.eval(), *encoders, ROLLOUT, prompt=OWN)


def clip(text_LD: torch.Tensor | None, encoder: str = "umt5-xxl") -> EvalClip:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 255, (9, 16, 16, 3), dtype=np.uint8)
    wave = generator.normal(size=640 * 9).astype(np.float32) * 0.1
    return EvalClip("c", "p", frames, wave, {}, text_LD=text_LD, text_encoder=encoder if text_LD is not None else "")


def generated(pipeline: Pipeline, clips: Sequence[EvalClip]) -> list[np.ndarray]:
    options = {"rollout": ROLLOUT, "seed": 0, "batch_size": len(clips), "progress": lambda _: None}
    made = list(generate_clips(pipeline, clips, 9, **options))
    return [each.structure_TD for each in made]


def test_stored_text_is_used_else_the_run_s_own(pipeline: Pipeline) -> None:
    stored = torch.randn(6, WIDTH)
    rows = text_rows(pipeline, [clip(stored), clip(None), clip(stored, "another")])
    assert rows is not None and rows.shape == (3, 512, WIDTH)
    own = pad_text(OWN.features_LD[None].float())[0]
    assert torch.equal(rows[0], pad_text(stored[None])[0])
    assert torch.equal(rows[1], own) and torch.equal(rows[2], own)


def test_the_text_reaches_the_model(pipeline: Pipeline) -> None:
    (one,), (two,) = generated(pipeline, [clip(torch.randn(6, WIDTH))]), generated(pipeline, [clip(None)])
    (three,) = generated(pipeline, [clip(OWN.features_LD.float())])
    assert not np.allclose(one, two, atol=1e-5) and np.array_equal(two, three)


def test_neither_is_one_line(pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match=r"a clip holds none and the run has no prompt\.safetensors"):
        text_rows(replace(pipeline, prompt=None), [clip(torch.randn(6, WIDTH)), clip(None)])


def test_a_model_that_reads_none_is_given_none(pipeline: Pipeline) -> None:
    deaf = DualForce(replace(pipeline.model.config, text_dim=0, structure_text=False))
    assert text_rows(replace(pipeline, model=deaf), [clip(torch.randn(6, WIDTH))]) is None
