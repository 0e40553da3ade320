"""DINOv2 and CLIP: what the network sees, parity with transformers, and checkpoints that do not fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from df_models.encoders import ReferenceEncoder, load_reference_encoder
from df_models.encoders.image import clip, dinov2
from df_models.errors import UserError
from df_models.files import sha256_file

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
MEANS = {"dinov2-base": [0.485, 0.456, 0.406], "clip-vit-h": [0.48145466, 0.4578275, 0.40821073]}
STDS = {"dinov2-base": [0.229, 0.224, 0.225], "clip-vit-h": [0.26862954, 0.26130258, 0.27577711]}
LATENT = torch.zeros(1, 16, 8, 8)


def dinov2_model() -> Any:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**SIZES, image_size=518, patch_size=14))


def clip_model() -> Any:
    from transformers import CLIPConfig, CLIPModel

    vision = SIZES | {"intermediate_size": 32, "image_size": 224, "patch_size": 14, "projection_dim": 8}
    text = SIZES | {"intermediate_size": 32, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))


MODELS = {"dinov2-base": dinov2_model, "clip-vit-h": clip_model}


def write_checkpoint(folder: Path, name: str) -> Path:
    """Write a random checkpoint as it is published: a model and the settings of its preprocessor."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for parameter in model.parameters():  # biases, norms and scales that start at 0 or 1 must not hide
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    settings = {"do_normalize": True, "image_mean": MEANS[name], "image_std": STDS[name], "size": 224, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module", params=sorted(MODELS))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, name) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp(name), name)


@pytest.fixture
def encoder(checkpoint, name):
    return load_reference_encoder(f"{name}:{checkpoint}")


@pytest.fixture
def copy(tmp_path, checkpoint) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def images(count: int = 2, height: int = 224, width: int = 224) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def edges_and_waves(height: int, width: int) -> np.ndarray:
    """Return float32 ``[3, H, W]`` in [0, 1]: two waves and a chequerboard. Pillow rounds nothing in float32."""
    y, x = np.mgrid[:height, :width]
    return np.stack([np.sin(x / 9) / 2 + 0.5, np.cos(y / 5) / 2 + 0.5, (x // 16 + y // 16) % 2]).astype(np.float32)


@torch.no_grad()
def test_dinov2_equals_transformers(tmp_path):
    from transformers import Dinov2Model

    encoder = dinov2.load("dinov2-base", str(write_checkpoint(tmp_path, "dinov2-base")))
    image = images()
    mean, std = (torch.tensor(values["dinov2-base"]).view(3, 1, 1) for values in (MEANS, STDS))
    theirs = Dinov2Model.from_pretrained(tmp_path).eval()((image - mean) / std).last_hidden_state
    assert theirs.shape == (2, 257, 16)
    torch.testing.assert_close(encoder.encode(image, LATENT), theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["whole", "image half", "image half with projection"])
def test_clip_is_the_layer_before_the_last(tmp_path, kind):
    """Wan's own expression: ``image_encoder(..., output_hidden_states=True).hidden_states[-2]``."""
    from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

    whole = write_checkpoint(tmp_path, "clip-vit-h")
    theirs = CLIPVisionModel.from_pretrained(whole).eval()
    given = whole if kind == "whole" else tmp_path / "half"
    if kind == "image half":
        theirs.save_pretrained(given)
    if kind == "image half with projection":
        CLIPVisionModelWithProjection.from_pretrained(whole).save_pretrained(given)
    if kind != "whole":
        shutil.copy(whole / "preprocessor_config.json", given)
    encoder = clip.load("clip-vit-h", str(given))
    seen = encoder.pixels(images())
    wanted = theirs(seen, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(encoder.encode(images(), LATENT), wanted, atol=1e-5, rtol=1e-5)
    assert (theirs(seen).last_hidden_state - wanted).abs().max() > 1e-2


PUBLISHED_NAMES = {
    "dinov2-base": {
        "embeddings.cls_token": [1, 1, 16],
        "embeddings.mask_token": [1, 16],
        "embeddings.position_embeddings": [1, 1 + 37 * 37, 16],
        "embeddings.patch_embeddings.projection.weight": [16, 3, 14, 14],
        "encoder.layer.2.attention.attention.query.weight": [16, 16],
        "encoder.layer.2.attention.output.dense.bias": [16],
        "encoder.layer.2.layer_scale1.lambda1": [16],
        "encoder.layer.2.mlp.fc1.weight": [64, 16],
        "layernorm.weight": [16],
    },
    "clip-vit-h": {
        "vision_model.embeddings.class_embedding": [16],
        "vision_model.embeddings.patch_embedding.weight": [16, 3, 14, 14],
        "vision_model.embeddings.position_embedding.weight": [257, 16],
        "vision_model.pre_layrnorm.weight": [16],
        "vision_model.encoder.layers.2.self_attn.q_proj.weight": [16, 16],
        "vision_model.encoder.layers.2.mlp.fc1.weight": [32, 16],
        "vision_model.post_layernorm.bias": [16],
        "visual_projection.weight": [8, 16],
        "text_projection.weight": [8, 16],
        "logit_scale": [],
    },
}


def test_these_checkpoints_are_laid_out_like_the_published(checkpoint, name):
    tensors = load_file(checkpoint / "model.safetensors")
    assert {key: list(tensors[key].shape) for key in PUBLISHED_NAMES[name]} == PUBLISHED_NAMES[name]


@pytest.mark.parametrize(("height", "width"), [(224, 224), (512, 512), (100, 300), (640, 360)])
def test_images_are_resized_as_pillow_does(encoder, name, height, width):
    from PIL import Image

    image = edges_and_waves(height, width)
    channels = [Image.fromarray(channel).resize((224, 224), Image.Resampling.BICUBIC) for channel in image]
    mean, std = (np.array(values[name]).reshape(3, 1, 1) for values in (MEANS, STDS))
    wanted = (np.stack([np.asarray(channel) for channel in channels]).clip(0, 1) - mean) / std
    np.testing.assert_allclose(encoder.pixels(torch.from_numpy(image)[None])[0], wanted, atol=1e-4)


def test_bicubic_overshoot_is_clipped(encoder, name):
    image = torch.zeros(1, 3, 96, 96)
    image[..., 48:] = 1
    seen = encoder.pixels(image)[0] * torch.tensor(STDS[name]).view(3, 1, 1) + torch.tensor(MEANS[name]).view(3, 1, 1)
    assert seen.min() > -1e-6 and seen.max() < 1 + 1e-6


def test_a_checkpoint_without_normalisation_is_taken_at_its_word(copy, name):
    (copy / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    image = images()
    torch.testing.assert_close(load_reference_encoder(f"{name}:{copy}").pixels(image), image)


def test_tokens_are_in_raster_order(encoder):
    image = torch.full((1, 3, 224, 224), 0.5)
    changed = image.clone()
    changed[..., 14 * 3 : 14 * 4, 14 * 5 : 14 * 6] = 1
    for key, parameter in encoder.module.named_parameters():
        if re.search(r"out_proj|o_proj|attention\.output\.dense", key):  # no token hears another
            parameter.data.zero_()
    tokens = encoder.encode(torch.cat([image, changed]), LATENT)
    assert (tokens[0] != tokens[1]).any(dim=1).nonzero().flatten().tolist() == [1 + 16 * 3 + 5]


def test_a_batch_is_its_images(encoder):
    image = images(3, 90, 120)
    single = torch.cat([encoder.encode(one[None], LATENT) for one in image])
    torch.testing.assert_close(encoder.encode(image, LATENT), single, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_near_float32(encoder):
    exact = encoder.encode(images(), LATENT)
    assert encoder.to(dtype=torch.bfloat16) is encoder
    tokens = encoder.encode(images(), LATENT)
    assert tokens.dtype == torch.float32
    assert 0 < (tokens - exact).square().mean().sqrt() < 0.05 * exact.std()


def test_it_says_what_it_is(encoder, checkpoint, name):
    import transformers

    assert isinstance(encoder, ReferenceEncoder)
    assert (encoder.id, encoder.dim, encoder.num_tokens) == (name, 16, 257)
    assert encoder.licence == {"dinov2-base": "Apache-2.0", "clip-vit-h": "MIT"}[name]
    assert encoder.sha256 == sha256_file(checkpoint / "model.safetensors")
    assert encoder.library == f"transformers {transformers.__version__}"
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


@pytest.mark.parametrize(
    ("width", "depth", "heads", "count"),
    [(384, 12, 6, 22_056_576), (768, 12, 12, 86_580_480), (1024, 24, 16, 304_368_640)],
)
def test_the_published_sizes_of_dinov2(width, depth, heads, count):
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, image_size=518, patch_size=14
    )
    with torch.device("meta"):
        model = Dinov2Model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("patch", "width", "depth", "heads", "count"),
    [(16, 768, 12, 12, 85_799_424), (14, 1024, 24, 16, 303_179_776), (14, 1280, 32, 16, 630_766_080)],
)
def test_the_published_sizes_of_clip(patch, width, depth, heads, count):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        patch_size=patch,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=224,
    )
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_number_of_tokens_follows_the_patch(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    CLIPVisionModel(CLIPVisionConfig(**SIZES, intermediate_size=32, patch_size=16)).save_pretrained(tmp_path)
    settings = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load_reference_encoder(f"clip-vit-b:{tmp_path}")
    assert encoder.num_tokens == 197
    assert encoder.encode(images(1, 64, 64), LATENT).shape == (1, 197, 16)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_how_to_get_it(copy, name, file):
    (copy / file).unlink()
    with pytest.raises(UserError, match=rf"{file}.*hf download (facebook/dinov2-base|laion/CLIP-ViT-H)"):
        load_reference_encoder(f"{name}:{copy}")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_damaged_file_is_one_sentence(copy, name, file):
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged") as caught:
        load_reference_encoder(f"{name}:{copy}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"image_mean": None}, "does not state image_mean"),
        ({"image_std": [0.5, 0.5]}, "three numbers"),
        ({"image_mean": "grey"}, "three numbers"),
        ({"do_normalize": None}, "does not state do_normalize"),
    ],
)
def test_a_preprocessor_without_statistics_is_refused(copy, name, settings, problem):
    path = copy / "preprocessor_config.json"
    document = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    with pytest.raises(UserError, match=problem):
        load_reference_encoder(f"{name}:{copy}")


def test_one_model_is_not_taken_for_the_other(checkpoint, name):
    other = {"dinov2-base": "clip-vit-l", "clip-vit-h": "dinov2-large"}[name]
    with pytest.raises(UserError, match="states the model"):
        load_reference_encoder(f"{other}:{checkpoint}")


@pytest.mark.parametrize("problem", ["missing", "unknown", "shape"])
def test_a_foreign_checkpoint_is_refused_not_filled_with_random_weights(copy, name, problem):
    tensors = load_file(copy / "model.safetensors")
    key = next(key for key in sorted(tensors) if key.endswith("fc1.weight") and "text" not in key)
    if problem == "missing":
        del tensors[key]
    elif problem == "unknown":
        tensors["classifier.weight"] = torch.zeros(3)
    else:
        tensors[key] = torch.zeros(7, 7)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    told = {"missing": "fc1.weight is missing", "unknown": "classifier.weight is unknown", "shape": r"is \[7, 7\]"}
    with pytest.raises(UserError, match=f"no checkpoint of {name}: .*{told[problem]}"):
        load_reference_encoder(f"{name}:{copy}")


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 1, 64, 64)])
def test_what_is_no_batch_of_images_is_refused(encoder, shape):
    with pytest.raises(UserError, match=r"takes images \[B, 3, H, W\]"):
        encoder.encode(torch.zeros(shape), LATENT)
