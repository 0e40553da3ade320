"""Every encoder of the list: it loads, or it says exactly what is missing; names, windows, ids."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from df_models import encoders, preset_config
from df_models.encoders import AudioEncoder, encoder_id, encoder_names, find_entry, registry
from df_models.encoders.registry import CALLED, ENTRIES, EncoderEntry, audio_lookahead, audio_window
from df_models.errors import UserError
from df_models.model.describe import latency_of

LOADERS = {
    "video": encoders.load_video_vae,
    "audio": encoders.load_audio_encoder,
    "reference": encoders.load_reference_encoder,
    "text": encoders.load_text_encoder,
    "structure": encoders.load_motion_extractor,
    "flame": encoders.load_flame_encoder,
    "lip sync": encoders.load_sync_network,
}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_encoder_loads_or_says_what_is_missing(
    entry: EncoderEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DF_WEIGHTS", str(tmp_path))
    load = LOADERS[entry.role]
    if entry.module is None:
        with pytest.raises(UserError, match="made by df-data"):
            load(entry.name)
        assert entry.name not in encoder_names(entry.role, loadable=True)
    elif entry.embedded:
        loaded = load(entry.name)
        assert loaded.id == encoder_id(entry.role, entry.name) and loaded.sha256 and loaded.licence
    else:
        nowhere = tmp_path / "nowhere"
        with pytest.raises(UserError, match=rf"^{entry.name}: there is no {nowhere}; ") as caught:
            load(f"{entry.name}:{nowhere}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", CALLED)
def test_an_unknown_name_is_told_with_the_nearest_right_one(role: str) -> None:
    name = encoder_names(role)[-1]  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"no {CALLED[role]} {name[:-1] + '~'!r} .did you mean '"):  # type: ignore[index]
        find_entry(role, name[:-1] + "~")  # type: ignore[arg-type]


def test_an_entry_of_another_role_is_not_found() -> None:
    with pytest.raises(UserError, match="no reference encoder 'logmel'"):
        encoders.load_reference_encoder("logmel")


def test_the_audio_encoders_entry_says_what_the_loaded_one_says() -> None:
    loaded = encoders.load_audio_encoder("logmel")
    assert loaded.pool == find_entry("audio", "logmel").pool
    assert loaded.lookahead_s == audio_lookahead("logmel")


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("hubert-large", "hubert-large@4+2"),
        ("hubert-large:/some/where", "hubert-large@4+2"),
        ("hubert-large@4+2:/some/where", "hubert-large@4+2"),
        ("hubert-base@8.0+1.20", "hubert-base@8+1.2"),
        ("logmel", "logmel"),
        ("runs/mine/audio", "runs/mine/audio"),
    ],
)
def test_an_id_has_the_window_and_no_location(spec: str, found: str) -> None:
    assert encoder_id("audio", spec) == found


@pytest.mark.parametrize("window", ["", "4", "4+", "0+2", "4+2.01", "whole", "4+2+1"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(UserError, match=r"is no window for hubert-large; .*hubert-large@4\+2"):
        audio_window(f"hubert-large@{window}")


def test_log_mel_has_no_window() -> None:
    with pytest.raises(UserError, match="logmel hears less than a pixel frame"):
        encoders.load_audio_encoder("logmel@4+2")


def test_an_encoder_of_ones_own_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BY_NAME", registry._BY_NAME.copy())
    source = Path(__file__).parents[3] / "examples" / "own_encoder.py"
    spec = importlib.util.spec_from_file_location("own_encoder", source)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_encoder", made)
    spec.loader.exec_module(made)

    encoder = encoders.load_audio_encoder("loudness")
    assert isinstance(encoder, AudioEncoder) and encoder.pool == registry.audio_pool("loudness")
    wave = np.random.default_rng(0).normal(scale=0.1, size=640 * 9).astype(np.float32)
    features = encoder.encode(wave, 11)
    assert features.shape == (22, 1) and torch.equal(features[18:], torch.zeros(4, 1))
    assert torch.equal(encoder.encode_span(wave, 11, 3, 10), features[6:20])
    config = preset_config("quickstart", audio_encoder="loudness", audio_dim=2)
    assert config.audio_pool == "concat" and latency_of(config).total is not None
    assert "loudness" in encoder_names("audio")
    with pytest.raises(UserError, match="there is an encoder 'loudness' already"):
        registry.register(EncoderEntry("audio", "loudness", "elsewhere"))
