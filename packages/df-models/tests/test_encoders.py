"""The embedded encoders of audio and of the reference: shapes, times, and errors that say how to mend them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from df_models.encoders import load_audio_encoder, load_reference_encoder
from df_models.errors import UserError


def test_logmel_gives_two_features_per_frame_at_the_right_time():
    encoder = load_audio_encoder("logmel")
    wave = np.zeros(33 * 640, dtype=np.float32)
    click = 20 * 640 + 100
    wave[click : click + 200] = np.random.default_rng(0).standard_normal(200)
    features = encoder.encode(wave, 33)
    assert features.shape == (66, encoder.dim)
    loudest = int(features.mean(dim=1).argmax())
    assert loudest // 2 == 20
    assert torch.equal(features[:38], encoder.encode(np.zeros_like(wave), 33)[:38])


def test_logmel_orders_frequencies_and_pads_with_silence():
    encoder = load_audio_encoder("logmel")
    time = np.arange(9 * 640) / 16_000
    low, high = (encoder.encode(np.sin(2 * np.pi * f * time), 9)[9].argmax() for f in (300.0, 3000.0))
    assert low < high
    silence = encoder.encode(np.zeros(10), 9)
    assert torch.isfinite(silence).all() and silence.std() < 1e-5


def test_patches_lose_nothing_at_64_pixels():
    encoder = load_reference_encoder("patches")
    latent = torch.randn(2, 16, 8, 8)
    tokens = encoder.encode(torch.rand(2, 3, 64, 64), latent)
    assert tokens.shape == (2, encoder.num_tokens, encoder.dim)
    assert torch.equal(tokens.flatten().sort().values, latent.flatten().sort().values)
    assert torch.equal(tokens[0, 5].view(16, 2, 2), latent[0, :, 2:4, 2:4])


@pytest.mark.parametrize("load", [load_audio_encoder, load_reference_encoder])
def test_an_unknown_encoder_names_the_known_ones(load):
    with pytest.raises(UserError, match="there is"):
        load("nothing")
