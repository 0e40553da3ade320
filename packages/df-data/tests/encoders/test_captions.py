"""A video with words beside it has those as its text, one without has the build's prompt."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.build import prompt
from df_data.build.build import build, fingerprint
from df_data.build.config import BuildConfig
from df_data.format.shards import iter_samples
from df_data.sources.listing import list_inputs
from df_models.encoders import load_text_encoder
from df_models.errors import UserError
from df_models.media import write_video
from df_models.settings import Location

WORDS = "abc  de\nabc"


def config_of(folder: Path, out: Path, checkpoints: Path) -> BuildConfig:
    return BuildConfig.model_validate(
        {
            "out": str(out),
            "sources": [{"name": "v", "folder": str(folder), "licence": "CC0-1.0", "captions": "txt"}],
            "stages": {"size": 16, "min_seconds": 1.0},
            "clips": {"frames": 9, "stride": 24, "val_frames": 9, "references": 1},
            "faces": False,
            "workers": 1,
            "device": "cpu",
            "text": {"text_encoder": f"umt5-xxl:{checkpoints / 'umt5-xxl'}", "prompt": "ab"},
        }
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        frames = np.random.default_rng(index).integers(0, 255, (33, 32, 32, 3)).astype(np.uint8)
        write_video(folder / f"{index}.mp4", frames)
    for index in range(2):
        (folder / f"{index}.txt").write_text(WORDS if index == 0 else "cab")
    return folder


def test_captions_are_the_text_of_their_clips(
    videos: Path, tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(videos, tmp_path / "out", checkpoints)
    build(config, progress=False)
    samples = {s.key.split("-")[1][:1]: s for split in ("train", "val") for s in iter_samples(tmp_path / "out" / split)}
    encoder = load_text_encoder(f"umt5-xxl:{checkpoints / 'umt5-xxl'}")
    for name, words in {"0": "abc de abc", "1": "cab", "2": "ab"}.items():
        found = samples[name]
        assert found.meta.prompt == words
        wanted = prompt.prompt_rows(encoder.encode([words])[0]).half()
        torch.testing.assert_close(found.tensors["text_features"], wanted, atol=2e-3, rtol=2e-3)  # padding rounds

    shutil.rmtree(tmp_path / "out" / "train")
    (tmp_path / "out" / "ledger.jsonl").unlink()
    loads = []
    monkeypatch.setattr(prompt, "_encoder", lambda *args: loads.append(args) or encoder)
    build(config_of(videos, tmp_path / "again", checkpoints), progress=False)
    assert len(loads) == 2  # one for the prompt, one for the captions
    build(config, progress=False)
    assert len(loads) == 3  # what is encoded is not encoded again


def test_captions_are_the_same_bytes_whichever_were_encoded_before(tmp_path: Path, checkpoints: Path) -> None:
    config = prompt.TextConfig(text_encoder=Location(f"umt5-xxl:{checkpoints / 'umt5-xxl'}"))
    words = ["ab", "abc de abc " * 9, "cab cab", "d"]
    for name, parts in {"whole": [words], "killed": [words[1:2], words]}.items():
        for part in parts:
            prompt.encode_captions(config, "auto", "cpu", part, tmp_path / name, progress=False)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()


def test_words_beyond_the_encoders_tokens_are_told(
    tmp_path: Path, checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = prompt.TextConfig(text_encoder=Location(f"umt5-xxl:{checkpoints / 'umt5-xxl'}"))
    prompt.encode_captions(config, "auto", "cpu", ["ab"], tmp_path, progress=False)
    assert not caplog.records
    prompt.encode_captions(config, "auto", "cpu", ["ab " * 600, "d"], tmp_path, progress=False)
    assert "1 of 2 captions fill the text encoder's 512 tokens" in caplog.text


def test_other_words_are_another_dataset(videos: Path, tmp_path: Path, checkpoints: Path) -> None:
    config = config_of(videos, tmp_path / "out", checkpoints)

    def made_by() -> str:
        return fingerprint(config, list_inputs(config.sources, config.split), {})[0]

    before = made_by()
    assert made_by() == before
    (videos / "0.txt").write_text("other words")
    assert made_by() != before


def test_words_that_are_none_are_told(videos: Path, tmp_path: Path, checkpoints: Path) -> None:
    config = config_of(videos, tmp_path / "out", checkpoints)
    (videos / "0.txt").write_text("\ufeffa \U0001f469\u200d\U0001f52c\u00ad", encoding="utf-8")
    assert list_inputs(config.sources, config.split)[0].caption == "a \U0001f469\u200d\U0001f52c\u00ad"
    for wrong in (b" \n", b"\xff\xfe", b"a" * 5000, b"a\x07", b" " * (1 << 21) + b"a"):
        (videos / "0.txt").write_bytes(wrong)
        with pytest.raises(UserError, match=r"0\.txt: .*leave `captions` out"):
            list_inputs(config.sources, config.split)
    with pytest.raises(ValueError, match="source 'v' has captions, but there is no text encoder"):
        BuildConfig.model_validate(config.model_dump() | {"text": None})
