"""Text as Wan's models read it: 512 rows, zeros after the prompt's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from df_models.errors import UserError
from df_models.text import Prompt, pad_text, prompt_rows, read_prompt, write_prompt


def test_padding_appends_zero_rows_and_nothing_else() -> None:
    text_BLD = torch.randn(2, 7, 5)
    padded = pad_text(text_BLD)
    assert padded.shape == (2, 512, 5)
    assert torch.equal(padded[:, :7], text_BLD) and not padded[:, 7:].any()
    assert not pad_text(torch.zeros(1, 0, 5)).any()
    assert torch.equal(pad_text(padded), padded)


@pytest.mark.parametrize("shape", [(1, 513, 4), (7, 4)])
def test_what_is_no_text_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="at most 512 tokens"):
        pad_text(torch.zeros(shape))


def test_a_prompt_s_own_rows_come_back_from_the_padded_ones() -> None:
    text_LD = torch.randn(9, 4)
    text_LD[3] = 0  # a row may be zero; it is what follows the last that counts
    assert torch.equal(prompt_rows(pad_text(text_LD[None])[0]), text_LD)
    assert prompt_rows(torch.zeros(512, 4)).shape == (1, 4)


def test_a_prompt_comes_back_from_its_file(tmp_path: Path) -> None:
    prompt = Prompt("Eine Frau spricht. \u5979\u5728\u8bf4\u8bdd", torch.randn(6, 4).half())
    write_prompt(tmp_path / "p.safetensors", prompt)
    words, features = read_prompt(tmp_path / "p.safetensors")
    assert words == prompt.words and torch.equal(features, prompt.features_LD) and features.dtype == torch.float16


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3], lambda data: b"", lambda data: data.replace(b"prompt", b"other_")]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, damage) -> None:
    path = tmp_path / "p.safetensors"
    write_prompt(path, Prompt("words", torch.randn(6, 4)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompt(path)


def test_text_is_padded_by_the_model_and_another_width_is_refused(build, make_clip, rollout, difference) -> None:
    model = build("dualforce-wan")
    clip = make_clip(model)
    clip["text"] *= 10.0  # loud, so that it shows beside float32 rounding (1e-6)
    whole = {**clip, "text": pad_text(clip["text"])}
    with torch.no_grad():
        velocity = model(**whole)
        assert torch.equal(velocity.video, model(**clip).video), "the model pads by itself"
        assert difference(velocity.video, model(**{**whole, "text": torch.zeros(2, 512, 12)}).video) > 1e-4
    assert difference(rollout(model, clip, 1, 5, 0)[0], velocity.video) < 1e-5
    with pytest.raises(UserError, match=r"text must be \[batch, tokens, 12\]"):
        model(**{**clip, "text": clip["text"][..., :5]})
