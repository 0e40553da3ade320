"""Images and prompts to tensors: batches bound the memory and change nothing, precision is what was asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.build.encode import EncoderBatches, Encoders, encode_images, native_bfloat16
from df_data.build.prompt import TextConfig, _one_at_a_time, encode_prompt
from df_models.encoders import load_audio_encoder, load_reference_encoder, load_text_encoder, random_tiny_vae
from df_models.errors import UserError
from df_models.locks import open_locked

PROMPT = "a person is talking"


@pytest.fixture
def encoders() -> Encoders:
    torch.set_num_threads(1)
    return Encoders(random_tiny_vae(0), load_audio_encoder("logmel"), load_reference_encoder("patches"))


def clips(count: int, frames: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8) for _ in range(count)]


def test_batches_give_what_all_together_give(encoders: Encoders) -> None:
    frames, references = clips(5, 41), [[0, 3], [1, 40], [0, 7], [2, 9], [0, 0]]
    whole = encode_images(encoders, frames, references)
    parts = encode_images(encoders, frames, references, EncoderBatches(clips=2, images=3))
    video = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float() / 255
    plain = encoders.video_vae.encode(video).half()
    for index, (one, other) in enumerate(zip(whole, parts, strict=True)):
        assert torch.equal(one["video_latent"], plain[index]), "41 frames go in as 33 and 8, and come out the same"
        assert one["reference_frames"].tolist() == references[index]
        for name in one:
            assert one[name].shape == other[name].shape and one[name].dtype == other[name].dtype
            torch.testing.assert_close(one[name].float(), other[name].float(), atol=2e-2, rtol=1e-2)
    alone = encoders.video_vae.encode_image(video[1, 40][None])[0]
    torch.testing.assert_close(parts[1]["reference_latents"][1].float(), alone, atol=2e-2, rtol=1e-2)
    tokens = encoders.reference.encode(video[1, 40][None], alone[None])[0]
    torch.testing.assert_close(parts[1]["reference_features"][1].float(), tokens, atol=2e-2, rtol=1e-2)


def test_the_vae_never_gets_more_than_a_batch_of_some_frames(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []
    session = encoders.video_vae.encoder_session

    def watched():
        made = session()
        encode = made.encode
        monkeypatch.setattr(made, "encode", lambda video: sizes.append(tuple(video.shape[:2])) or encode(video))
        return made

    monkeypatch.setattr(encoders.video_vae, "encoder_session", watched)
    encode_images(encoders, clips(3, 77), [[0]] * 3, EncoderBatches(clips=2, images=2))
    assert sizes == [(2, 33), (2, 32), (2, 12), (1, 33), (1, 32), (1, 12), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("precision", "vae", "others"),
    [
        ("auto", None, torch.float32),
        ("float32", torch.float32, torch.float32),
        ("bfloat16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_precision(checkpoints: Path, precision: str, vae: torch.dtype | None, others: torch.dtype) -> None:
    made = Encoders.load(
        "df-tiny",
        f"hubert-large:{checkpoints / 'hubert-large'}",
        f"dinov2-base:{checkpoints / 'dinov2-base'}",
        precision=precision,  # type: ignore[arg-type]
    )

    def dtype(model: object) -> torch.dtype:
        return next(model.module.parameters()).dtype  # type: ignore[attr-defined]

    native = torch.bfloat16 if native_bfloat16() else torch.float32
    assert (dtype(made.video_vae), dtype(made.audio), dtype(made.reference)) == (vae or native, others, others)
    wave = np.random.default_rng(0).standard_normal(5 * 640).astype(np.float32)
    assert made.audio.encode(wave, 5).dtype == torch.float32, "what comes out is float32 all the same"


@pytest.mark.gpu
def test_a_gpu_gives_what_the_processor_gives(encoders: Encoders, checkpoints: Path) -> None:
    names = (
        f"wan:{checkpoints / 'wan'}",
        f"hubert-large:{checkpoints / 'hubert-large'}",
        f"dinov2-base:{checkpoints / 'dinov2-base'}",
    )
    wave = np.random.default_rng(0).standard_normal(13 * 640).astype(np.float32)
    found = []
    for device in ("cpu", "cuda:0"):
        made = Encoders.load(*names, device=device, precision="float32")
        tensors = encode_images(made, clips(2, 13), [[0, 5]] * 2, EncoderBatches(clips=1))[1]
        found.append(tensors | {"audio": made.audio.encode(wave, 13).half().cpu()})
    for name, value in found[0].items():
        assert found[1][name].device.type == "cpu" and found[1][name].dtype == value.dtype
        torch.testing.assert_close(found[1][name].float(), value.float(), atol=2e-2, rtol=1e-2)


def test_a_prompt_is_as_long_as_it_is(checkpoints: Path) -> None:
    spec = f"umt5-xxl:{checkpoints / 'umt5-xxl'}"
    found = encode_prompt(TextConfig(text_encoder=spec, prompt=PROMPT), "auto")
    encoder = load_text_encoder(spec)
    padded = encoder.encode([PROMPT])[0]
    length = len(PROMPT) + 2  # one token a letter, one for each space and for the beginning, and the end
    assert found.features_LD.shape == (length, 24) and found.features_LD.dtype == torch.float16
    assert torch.equal(found.features_LD, padded[:length].half()) and not padded[length:].any()
    assert (found.record.id, found.record.sha256) == ("umt5-xxl", encoder.sha256)
    half = encode_prompt(TextConfig(text_encoder=spec, prompt=PROMPT), "bfloat16").features_LD.float()
    assert 0 < (half - found.features_LD).abs().max() < 0.2 * found.features_LD.float().std()
    assert len(encode_prompt(TextConfig(text_encoder=spec, prompt=""), "auto").features_LD) == 1


def test_the_lock_of_the_text_encoder_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _one_at_a_time():
        (lock,) = tmp_path.iterdir()
        with pytest.raises(BlockingIOError):
            open_locked(lock, wait=False)
    assert not list(tmp_path.iterdir())


def test_a_text_encoder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"umt5-xxl: there is no .*hf download") as caught:
        encode_prompt(TextConfig(text_encoder=f"umt5-xxl:{tmp_path / 'x'}"), "auto")
    assert "\n" not in str(caught.value)
