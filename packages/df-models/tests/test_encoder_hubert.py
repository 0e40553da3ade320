"""HuBERT: framing, level and length of the audio, parity with transformers, and checkpoints that do not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from df_models.encoders import AudioEncoder, AudioWindow, load_audio_encoder
from df_models.encoders.audio import hubert
from df_models.encoders.registry import origin_of
from df_models.errors import UserError
from df_models.files import sha256_file

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
"""16 channels a group: of 4 or 8, oneDNN's convolution for AMX gives wrong sums in bfloat16 (docs/numerics.md)."""
FORMS = {
    "hubert-large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    "hubert-base": {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
}
PUBLISHED = {
    "hubert-large": (
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        315_438_720,
    ),
    "hubert-base": ({}, 94_371_712),
}


def write_checkpoint(folder: Path, name: str, *, normalize: bool = True, **settings) -> Path:
    """Write a random checkpoint as it is published: a model fine-tuned to letters, and its feature extractor."""
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2FeatureExtractor

    config = HubertConfig(**(SIZES | POSITIONS | FORMS[name] | {"conv_dim": [16] * 7} | settings))
    torch.manual_seed(0)
    HubertForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=sorted(FORMS))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, name) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp(name), name)


@pytest.fixture(scope="module")
def encoder(checkpoint, name) -> hubert.Hubert:
    return hubert.load(name, str(checkpoint))


@pytest.fixture
def raw(tmp_path) -> hubert.Hubert:
    """HuBERT-large in small, without levelling."""
    return hubert.load("hubert-large", str(write_checkpoint(tmp_path / "raw", "hubert-large", normalize=False)))


@pytest.fixture
def copy(tmp_path, checkpoint) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def speech(frames: int, seed: int = 0) -> np.ndarray:
    """Return noise whose loudness wanders and which stands off zero, 640 samples a frame."""
    generator = np.random.default_rng(seed)
    loudness = np.repeat(generator.uniform(0.02, 0.3, frames), 640)
    return (0.05 + loudness * generator.standard_normal(640 * frames)).astype(np.float32)


def directly(checkpoint: Path, wave_N: np.ndarray, silence: int = 0) -> Tensor:
    """Encode with nothing but transformers: its feature extractor, then its model."""
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
    values = extractor(wave_N, sampling_rate=16_000, return_tensors="pt").input_values
    model = HubertModel.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        return model(F.pad(values, (40, 40 + silence))).last_hidden_state[0]


def test_it_equals_transformers(encoder, checkpoint):
    wave = speech(33)
    features = encoder.encode(wave, 33)
    assert isinstance(encoder, AudioEncoder)
    assert features.shape == (66, encoder.dim) and features.dtype == torch.float32
    torch.testing.assert_close(features, directly(checkpoint, wave), atol=2e-5, rtol=1e-5)


def test_missing_audio_is_silence_that_does_not_change_the_level(encoder, checkpoint):
    wave = speech(20)
    torch.testing.assert_close(
        encoder.encode(wave, 33), directly(checkpoint, wave, silence=13 * 640), atol=2e-5, rtol=1e-5
    )
    counted_in = encoder.encode(np.pad(wave, (0, 13 * 640)), 33)
    assert (encoder.encode(wave, 33) - counted_in).abs().max() > 1e-3


def test_audio_past_the_end_is_not_heard(encoder):
    wave = speech(33)
    assert torch.equal(encoder.encode(wave, 25), encoder.encode(wave[: 25 * 640], 25))


@pytest.mark.parametrize("frames", [1, 2, 3, 33])
@pytest.mark.parametrize("samples", [0, 1, 639, 50_000])
def test_there_are_two_features_per_frame_whatever_the_audio(encoder, frames, samples):
    features = encoder.encode(speech(79)[:samples], frames)
    assert features.shape == (2 * frames, encoder.dim)
    assert torch.isfinite(features).all()


def test_loudness_and_offset_do_not_matter_where_the_checkpoint_levels(encoder, raw):
    wave = speech(9)
    torch.testing.assert_close(encoder.encode(7 * wave - 0.3, 9), encoder.encode(wave, 9), atol=1e-3, rtol=1e-3)
    assert (raw.encode(7 * wave - 0.3, 9) - raw.encode(wave, 9)).abs().max() > 1e-2


def test_the_level_is_that_of_the_feature_extractor():
    from transformers import Wav2Vec2FeatureExtractor

    wave = speech(3100)
    mean, deviation = hubert.level(wave)
    theirs = Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm([wave.astype(np.float64)], None)[0]
    np.testing.assert_allclose((wave - mean) / deviation, theirs, rtol=1e-5, atol=1e-6)
    assert hubert.level(wave[:0]) == (0.0, 1.0)


def test_the_last_layer_norm_is_passed(raw):
    norm = raw.module.encoder.layer_norm
    assert torch.equal(norm.weight, torch.ones(32)) and not norm.bias.any()
    features = raw.encode(speech(9), 9)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(18), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(dim=1, unbiased=False), torch.ones(18), atol=1e-2, rtol=0)


def test_a_click_is_heard_in_its_own_features(raw):
    quiet = np.zeros(33 * 640, dtype=np.float32)
    click = quiet.copy()
    click[320 * 20 : 320 * 20 + 40] = 0.5
    _without_reach(raw)
    changed = (raw.encode(click, 33) != raw.encode(quiet, 33)).any(dim=1).nonzero().flatten().tolist()
    assert changed == [19, 20]  # feature i hears 320 i - 40 .. 320 i + 360


def _without_reach(encoder: hubert.Hubert) -> None:
    """Cut every path between features: attention and the convolution over positions."""
    convolution = encoder.module.encoder.pos_conv_embed.conv
    convolution.bias.data.zero_()
    convolution.parametrizations.weight.original0.data.zero_()
    for layer in encoder.module.encoder.layers:
        for parameter in layer.attention.out_proj.parameters():
            parameter.data.zero_()


WINDOW = AudioWindow(20, 10, 10)
"""In place of 4 s and 2 s: pieces of 20 pixel frames, 10 heard on either side."""


class TestLongAudio:
    @pytest.fixture
    def windowed(self, raw) -> hubert.Hubert:
        raw.window = WINDOW
        return raw

    @staticmethod
    def whole(encoder: hubert.Hubert, wave_N: np.ndarray, frames: int) -> Tensor:
        encoder.window, kept = None, encoder.window
        try:
            return encoder.encode(wave_N, frames)
        finally:
            encoder.window = kept

    def test_pieces_join_exactly_where_nothing_reaches_past_the_margin(self, windowed):
        for layer in windowed.module.encoder.layers:
            for parameter in layer.attention.out_proj.parameters():
                parameter.data.zero_()
        wave = speech(101)
        torch.testing.assert_close(windowed.encode(wave, 101), self.whole(windowed, wave, 101), atol=1e-5, rtol=1e-5)

    def test_a_piece_is_what_its_window_gives_alone(self, encoder):
        encoder.window = WINDOW
        wave = speech(101)
        alone = self.whole(encoder, wave[30 * 640 : 70 * 640], 40)[2 * 10 : 2 * 30]
        inner = encoder.encode(wave, 101)[2 * 40 : 2 * 60]
        # the 40 samples before and after the window are audio in one case, silence in the other
        assert (inner - alone).square().mean().sqrt() < 0.05 * alone.std()

    def test_windows_are_near_the_whole(self, encoder, name):
        encoder.window = WINDOW
        wave = speech(101)
        windowed, whole = encoder.encode(wave, 101), self.whole(encoder, wave, 101)
        assert 0 < (windowed - whole).square().mean().sqrt() < 0.5 * whole.std()

    def test_a_clip_of_data_has_the_features_of_the_recording_it_begins(self, encoder):
        encoder.window = WINDOW
        wave = speech(200)
        short, long = encoder.encode(wave[: 75 * 640], 75), encoder.encode(wave, 200)
        settled = 2 * 60  # the third piece, which ends at 60, hears until 70; the fourth would until 90
        torch.testing.assert_close(short[:settled], long[:settled], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(short[settled:], long[settled:150], atol=1e-3)

    @pytest.mark.parametrize("window", [WINDOW, AudioWindow(4, 25, 5)], ids=str)
    def test_the_stated_lookahead_is_all_that_is_heard(self, encoder, window):
        encoder.window = window
        wave = speech(101)
        frame = 20  # the first of a piece (of either window), which looks furthest
        heard_until = round(((frame + 1) / 25 + encoder.lookahead_s) * 16_000)
        for end, same in ((heard_until, True), (heard_until - 40, False)):
            later = wave.copy()
            later[end:] = 0.7
            equal = torch.equal(encoder.encode(later, 101)[: 2 * (frame + 1)], encoder.encode(wave, 101)[: 2 * 21])
            assert equal == same

    def test_a_span_is_cut_out_of_the_whole(self, encoder):
        encoder.window = WINDOW
        wave = speech(101)
        features = encoder.encode(wave, 101)
        for first, last in ((0, 101), (0, 1), (13, 57), (20, 40), (99, 101)):
            assert torch.equal(encoder.encode_span(wave, 101, first, last), features[2 * first : 2 * last])

    def test_a_pass_never_grows(self, windowed):
        lengths: list[int] = []
        windowed.module.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
        windowed.encode(speech(200), 200)
        assert len(lengths) == 10 and max(lengths) == 640 * (10 + 20 + 10) + 80


def test_the_window_is_part_of_the_id(checkpoint, name):
    assert hubert.load(name, str(checkpoint)).window == (100, 50, 50)
    other = load_audio_encoder(f"{name}@8+1.2:{checkpoint}")
    assert isinstance(other, hubert.Hubert)
    assert (other.id, other.window) == (f"{name}@8+1.2", (200, 30, 30)) and other.lookahead_s == pytest.approx(9.1625)
    live = load_audio_encoder(f"{name}@0.16+4-0.2:{checkpoint}")
    assert isinstance(live, hubert.Hubert)
    assert (live.id, live.window) == (f"{name}@0.16+4-0.2", (4, 100, 5)) and live.lookahead_s == pytest.approx(0.3225)


def test_it_says_what_it_is(encoder, checkpoint, name):
    import transformers

    assert (encoder.id, encoder.licence, encoder.pool) == (f"{name}@4+2", "Apache-2.0", "mean")
    assert encoder.sha256 == sha256_file(checkpoint / "model.safetensors")
    assert encoder.library == f"transformers {transformers.__version__}"
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_bfloat16_is_near_float32(checkpoint, name):
    wave = speech(33)
    exact, encoder = hubert.load(name, str(checkpoint)).encode(wave, 33), hubert.load(name, str(checkpoint))
    assert encoder.to("cpu", torch.bfloat16) is encoder
    features = encoder.encode(wave, 33)
    assert features.dtype == torch.float32
    assert 0 < (features - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("channels", [768, 1024])
def test_the_published_positions_are_convolved_rightly_in_bfloat16(channels):
    """With the groups of `transformers.HubertConfig` and the width of either form, on whatever this machine has."""
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(channels, channels, 128, padding=64, groups=16)
    x = torch.randn(1, channels, 60)
    with torch.no_grad():
        exact = layer(x)
        found = layer.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert (found - exact).square().mean().sqrt() < 0.01 * exact.std()


@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_published_sizes(form):
    from transformers import HubertConfig, HubertModel

    settings, count = PUBLISHED[form]
    config = HubertConfig(**(FORMS[form] | settings))
    assert hubert._framing(config) == (hubert.WINDOW, hubert.HOP) == (400, 320)
    with torch.device("meta"):
        model = HubertModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_this_checkpoint_is_laid_out_like_the_published(checkpoint, name):
    tensors = load_file(checkpoint / "model.safetensors")
    shapes = {
        "hubert.feature_extractor.conv_layers.0.conv.weight": [16, 1, 10],
        "hubert.feature_extractor.conv_layers.0.layer_norm.weight": [16],
        "hubert.feature_projection.layer_norm.weight": [16],
        "hubert.feature_projection.projection.weight": [32, 16],
        "hubert.encoder.layers.2.attention.q_proj.weight": [32, 32],
        "hubert.encoder.layers.2.feed_forward.intermediate_dense.weight": [48, 32],
        "hubert.encoder.layers.2.final_layer_norm.bias": [32],
        "hubert.encoder.layer_norm.weight": [32],
        "hubert.masked_spec_embed": [32],
        "lm_head.weight": [32, 32],
    }
    assert {key: list(tensors[key].shape) for key in shapes} == shapes
    assert ("hubert.feature_extractor.conv_layers.6.layer_norm.weight" in tensors) == (name == "hubert-large")


def test_the_published_layout_of_pickled_tensors(encoder, copy, name):
    """facebook/hubert-large-ls960-ft is a ``.bin`` of the time before parametrisations: ``weight_g``, ``weight_v``."""
    tensors = load_file(copy / "model.safetensors")
    old = {"original0": "weight_g", "original1": "weight_v"}
    for new, before in old.items():
        stem = "hubert.encoder.pos_conv_embed.conv"
        tensors[f"{stem}.{before}"] = tensors.pop(f"{stem}.parametrizations.weight.{new}")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    again = hubert.load(name, str(copy))
    assert again.sha256 == sha256_file(copy / "pytorch_model.bin")
    assert torch.equal(again.encode(speech(5), 5), encoder.encode(speech(5), 5))


def test_shards_are_read_and_hashed_together(encoder, copy, name):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    places = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file({key: tensors[key] for key in tensors if places[key] == file}, copy / file, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    again = hubert.load(name, str(copy))
    lines = [f"{file} {sha256_file(copy / file)}" for file in sorted(set(places.values()))]
    assert again.sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert torch.equal(again.encode(speech(5), 5), encoder.encode(speech(5), 5))
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="lacks model-00002-of-00002"):
        hubert.load(name, str(copy))


@pytest.mark.parametrize("published", ["model.safetensors", "pytorch_model.bin"])
def test_pickled_tensors_are_fetched_only_where_there_are_no_others(copy, name, published, monkeypatch):
    if published == "pytorch_model.bin":
        torch.save(load_file(copy / "model.safetensors"), copy / published)
        (copy / "model.safetensors").unlink()
    asked: list[str] = []

    def snapshot_download(hub_id: str, allow_patterns: list[str]) -> str:
        assert hub_id == origin_of(name).hub_id
        asked.extend(allow_patterns)
        return str(copy)

    monkeypatch.delenv("DF_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert hubert.load(name, None).sha256 == sha256_file(copy / published)
    assert ("pytorch_model*.bin" in asked) == (published == "pytorch_model.bin")
    assert {"config.json", "preprocessor_config.json", "model*.safetensors"} <= set(asked)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_how_to_get_it(copy, name, file):
    (copy / file).unlink()
    with pytest.raises(UserError, match=rf"{file}.*hf download facebook/{name}"):
        hubert.load(name, str(copy))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_file_is_one_sentence(copy, name, file):
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged") as caught:
        hubert.load(name, str(copy))
    assert "\n" not in str(caught.value)


def test_a_pickle_of_code_is_not_run(copy, name, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    tensors = load_file(copy / "model.safetensors") | {"lm_head.bias": Trap()}
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="UnpicklingError"):
        hubert.load(name, str(copy))
    assert not (tmp_path / "sprung").exists()


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


BIAS = "hubert.encoder.layers.1.feed_forward.output_dense.bias"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tensors: tensors.pop(BIAS), r"layers\.1\.feed_forward\.output_dense\.bias is missing"),
        (lambda tensors: tensors.update({BIAS: torch.zeros(5)}), r"output_dense\.bias is \[5\], not \[32\]"),
        (lambda tensors: tensors.update(extra=torch.zeros(5)), "extra is unknown"),
    ],
)
def test_a_foreign_checkpoint_is_refused_not_filled_with_random_weights(copy, name, change, problem):
    rewrite(copy, change)
    with pytest.raises(UserError, match=f"no checkpoint of {name}: .*{problem}"):
        hubert.load(name, str(copy))


def test_the_mask_of_training_may_be_absent(encoder, copy, name):
    rewrite(copy, lambda tensors: tensors.pop("hubert.masked_spec_embed"))
    assert torch.equal(hubert.load(name, str(copy)).encode(speech(5), 5), encoder.encode(speech(5), 5))


@pytest.mark.parametrize(
    ("file", "settings", "problem"),
    [
        ("config.json", {"model_type": "wav2vec2"}, "states the model 'wav2vec2', not 'hubert'"),
        ("config.json", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, r"\(400, 160\) samples"),
        ("config.json", {"hidden_size": "wide"}, "does not fit its config.json"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "8000 Hz"),
        ("preprocessor_config.json", {"do_normalize": None}, "does not state do_normalize"),
    ],
)
def test_settings_that_do_not_fit_are_refused(copy, name, file, settings, problem):
    document = json.loads((copy / file).read_text()) | settings
    (copy / file).write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    with pytest.raises(UserError, match=problem):
        hubert.load(name, str(copy))


def test_a_location_that_is_none_is_told(checkpoint, name, tmp_path):
    with pytest.raises(UserError, match="there is no"):
        load_audio_encoder(f"{name}:{tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match="is a file; name the directory"):
        load_audio_encoder(f"{name}:{checkpoint / 'model.safetensors'}")


def test_two_channels_are_refused(encoder):
    with pytest.raises(UserError, match="mono"):
        encoder.encode(np.zeros((2, 640), dtype=np.float32), 1)


def test_the_framing_is_that_of_the_convolutions():
    class Config:
        conv_kernel, conv_stride = (10, 3), (5, 2)

    stack = nn.Sequential(nn.Conv1d(1, 1, 10, 5), nn.Conv1d(1, 1, 3, 2))
    window, stride = hubert._framing(Config)
    assert stack(torch.zeros(1, 1, window)).shape[-1] == 1
    assert stack(torch.zeros(1, 1, window + stride)).shape[-1] == 2
    assert stack(torch.zeros(1, 1, window + stride - 1)).shape[-1] == 1
