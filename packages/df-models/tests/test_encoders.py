"""The embedded encoders: shapes, causality, streaming, hashes, and errors that say how to mend them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from df_models.encoders import load_audio_encoder, load_reference_encoder, load_video_vae, random_tiny_vae
from df_models.encoders.wan_vae import ASSETS, WEIGHTS
from df_models.errors import UserError
from df_models.files import sha256_file


@pytest.fixture(scope="module")
def vae():
    return random_tiny_vae(0)


@pytest.fixture(scope="module")
def video_BPCHW():
    return torch.rand(2, 13, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_encode_equals_diffusers(vae, video_BPCHW):
    theirs = vae.module.encode((video_BPCHW * 2 - 1).transpose(1, 2)).latent_dist.mode().transpose(1, 2)
    ours = vae.encode(video_BPCHW)
    assert ours.shape == (2, 4, 16, 4, 6)
    torch.testing.assert_close(ours, theirs)


def test_decode_equals_diffusers(vae, video_BPCHW):
    latents = vae.encode(video_BPCHW)
    theirs = (vae.module.decode(latents.transpose(1, 2)).sample.transpose(1, 2) + 1) / 2
    torch.testing.assert_close(vae.decode(latents), theirs)


def test_sessions_are_bit_equal_to_the_whole_and_independent(vae, video_BPCHW):
    latents = vae.encode(video_BPCHW)
    whole = vae.decode(latents)
    one, two = vae.decoder_session(), vae.decoder_session()
    pieces_one, pieces_two = [], []
    for frame in latents.split(1, dim=1):
        pieces_one.append(one.decode(frame))
        pieces_two.append(two.decode(frame.flip(0)))
    assert [piece.shape[1] for piece in pieces_one] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(pieces_one, dim=1), whole)
    torch.testing.assert_close(torch.cat(pieces_two, dim=1), whole.flip(0))


def test_the_vae_is_causal(vae, video_BPCHW):
    changed = video_BPCHW.clone()
    changed[:, 9:] = 0
    assert torch.equal(vae.encode(changed)[:, :3], vae.encode(video_BPCHW)[:, :3])


def test_a_picture_alone_is_the_first_latent(vae, video_BPCHW):
    torch.testing.assert_close(vae.encode_image(video_BPCHW[:, 0]), vae.encode(video_BPCHW)[:, 0])


@pytest.mark.parametrize("frames", [2, 12])
def test_a_length_that_would_lose_its_tail_is_refused(vae, frames):
    with pytest.raises(UserError, match="1 \\+ 4 n"):
        vae.encode(torch.rand(1, frames, 3, 32, 32))


def test_the_embedded_vae_reconstructs_and_names_its_hash():
    vae = load_video_vae("df-tiny")
    assert vae.sha256 == sha256_file(ASSETS / "df-tiny" / WEIGHTS)
    ramp = torch.linspace(0.2, 0.8, 64)
    picture = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.full((64, 64), 0.5)])
    again = vae.decode(vae.encode(picture.expand(1, 5, 3, 64, 64)))
    assert (again - picture).abs().mean() < 0.1


def test_latents_of_the_embedded_vae_are_normalised():
    from df_models.encoders.wan_vae import WanVAE

    vae = WanVAE.load("df-tiny")
    latents = vae.encode(torch.rand(1, 5, 3, 32, 32))
    mean = torch.tensor(vae.module.config.latents_mean).view(1, 1, -1, 1, 1)
    std = torch.tensor(vae.module.config.latents_std).view(1, 1, -1, 1, 1)
    assert (std > 0.01).all()
    torch.testing.assert_close(vae.raw_latents(latents).transpose(1, 2), latents * std + mean)


def test_a_missing_vae_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="df-tiny"):
        load_video_vae("no-such-vae")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match=WEIGHTS):
        load_video_vae(str(tmp_path))


def test_damaged_weights_are_one_sentence(tmp_path):
    source = ASSETS / "df-tiny"
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(UserError, match="does not fit"):
        load_video_vae(str(tmp_path))


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
