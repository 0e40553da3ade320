"""LivePortrait's motion extractor: the public checkpoint's layout, parity with transformers, decoding, errors."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional as F

from df_models.encoders import FaceEncoder, load_motion_extractor
from df_models.encoders.face.convnextv2 import ConvNeXtV2
from df_models.encoders.face.liveportrait import (
    FILE,
    KEYPOINTS,
    MotionDetector,
    angle_degrees,
    compose_keypoints,
    head_rotation,
)
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.structure import LIVEPORTRAIT_70

PUBLISHED_BYTES = 112_545_506


def random_tensors(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return weights of a scale at which every layer matters; norms and GRN are random too, not ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("bias", "beta")):
            tensors[name] = 0.03 * noise
        elif tensor.ndim == 1 or name.endswith("gamma"):
            tensors[name] = 1 + 0.3 * noise
        else:
            tensors[name] = 2 * noise / tensor[0].numel() ** 0.5
    return tensors


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as the publisher stores it: a plain state dict, with random weights."""
    module = nn.ModuleDict({"detector": MotionDetector()})
    path = tmp_path_factory.mktemp("liveportrait") / FILE
    torch.save(random_tensors(module, 0), path)
    return path


@pytest.fixture(scope="module")
def tensors(published):
    return torch.load(published, weights_only=True)


@pytest.fixture(scope="module")
def encoder(published):
    return load_motion_extractor(f"liveportrait:{published}")


@pytest.fixture(scope="module")
def faces_BCHW():
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=(256, 256), mode="bilinear")


def test_names_and_shapes_are_those_of_the_public_checkpoint():
    with torch.device("meta"):
        state = nn.ModuleDict({"detector": MotionDetector()}).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    spelled = {
        "detector.downsample_layers.0.0.weight": (96, 3, 4, 4),
        "detector.downsample_layers.0.1.weight": (96,),
        "detector.downsample_layers.3.0.bias": (384,),
        "detector.downsample_layers.3.1.weight": (768, 384, 2, 2),
        "detector.stages.2.8.dwconv.weight": (384, 1, 7, 7),
        "detector.stages.2.8.norm.bias": (384,),
        "detector.stages.2.8.pwconv1.weight": (1536, 384),
        "detector.stages.2.8.grn.gamma": (1, 1, 1, 1536),
        "detector.stages.2.8.grn.beta": (1, 1, 1, 1536),
        "detector.stages.2.8.pwconv2.weight": (384, 1536),
        "detector.norm.weight": (768,),
        "detector.fc_kp.weight": (63, 768),
        "detector.fc_scale.bias": (1,),
        "detector.fc_pitch.weight": (66, 768),
        "detector.fc_yaw.weight": (66, 768),
        "detector.fc_roll.weight": (66, 768),
        "detector.fc_t.weight": (3, 768),
        "detector.fc_exp.weight": (63, 768),
    }
    assert spelled.items() <= shapes.items()
    assert len(shapes) == 212
    digest = hashlib.sha256("\n".join(sorted(f"{k} {v}" for k, v in shapes.items())).encode()).hexdigest()
    assert digest == "9d8dc590e1d15ff5fa182c23bccdba9c22741340231902d7746c12c29a57fe45"
    parameters = sum(tensor.numel() for tensor in state.values())
    assert parameters == 28_118_728
    assert 0 < PUBLISHED_BYTES - 4 * parameters < 400 * len(shapes), "the rest of the file is zip records"


def to_transformers(name: str) -> str:
    """Return what ``transformers.ConvNextV2Model`` calls a tensor of the trunk."""
    name = re.sub(r"^downsample_layers\.0\.0", "embeddings.patch_embeddings", name)
    name = re.sub(r"^downsample_layers\.0\.1", "embeddings.layernorm", name)
    name = re.sub(r"^downsample_layers\.(\d)", r"encoder.stages.\1.downsampling_layer", name)
    name = re.sub(r"^stages\.(\d)\.(\d)", r"encoder.stages.\1.layers.\2", name)
    name = re.sub(r"\bnorm\b", "layernorm", name)
    return name.replace("gamma", "weight").replace("beta", "bias")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_trunk_equals_transformers(tensors, faces_BCHW, dtype, tolerance):
    from transformers import ConvNextV2Config, ConvNextV2Model

    config = ConvNextV2Config(hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3], layer_norm_eps=1e-6)
    with torch.device("meta"):
        theirs, ours = ConvNextV2Model(config).eval(), ConvNeXtV2().eval()
    trunk = {k.removeprefix("detector."): v.to(dtype) for k, v in tensors.items() if ".fc_" not in k}
    theirs.load_state_dict({to_transformers(name): tensor for name, tensor in trunk.items()}, assign=True)
    ours.load_state_dict(trunk, assign=True)
    with torch.no_grad():
        expected = theirs(faces_BCHW[..., ::2, ::2].to(dtype)).pooler_output
        found = ours(faces_BCHW[..., ::2, ::2].to(dtype))
    assert (expected[0] - expected[1]).abs().max() > 0.05
    assert ((found - expected).norm() / expected.norm()).item() < tolerance


def test_the_vector_holds_each_head_where_the_layout_says(encoder, tensors, faces_BCHW):
    detector = encoder.module.get_submodule("detector")
    with torch.no_grad():
        features_BD = ConvNeXtV2.forward(detector, faces_BCHW)
    head = {
        name: (features_BD @ tensors[f"detector.fc_{name}.weight"].T + tensors[f"detector.fc_{name}.bias"])
        for name in ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")
    }
    vector = encoder.encode(faces_BCHW)
    assert vector.shape == (2, 70) and vector.dtype == torch.float32
    for field, name in (("expression", "exp"), ("translation", "t"), ("scale", "scale")):
        torch.testing.assert_close(vector[:, LIVEPORTRAIT_70.slice(field)], head[name], rtol=1e-4, atol=1e-4)
    for angle in ("pitch", "yaw", "roll"):
        logits = head[angle].double().numpy()
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        by_hand = sum(probability[:, k] * k * 3 for k in range(66)) - 97.5
        np.testing.assert_allclose(vector[:, LIVEPORTRAIT_70.slice(angle)][:, 0], by_hand, atol=2e-3)
    keypoints = encoder.canonical_keypoints(faces_BCHW)
    torch.testing.assert_close(keypoints.reshape(2, 63), head["kp"], rtol=1e-4, atol=1e-4)


def test_angles_run_from_minus_to_plus_97_5_degrees():
    certain = torch.eye(66) * 1e4
    torch.testing.assert_close(angle_degrees(certain), torch.linspace(-97.5, 97.5, 66))
    torch.testing.assert_close(angle_degrees(torch.zeros(2, 66)), torch.zeros(2), atol=1e-4, rtol=0)


def test_the_rotation_turns_about_x_then_y_then_z():
    angles = torch.tensor([[10.0, 0, 0], [0, 20, 0], [0, 0, 30], [-15, 40, 25], [90, -60, 170]], dtype=torch.float64)
    expected = Rotation.from_euler("xyz", angles.numpy(), degrees=True).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(head_rotation(angles), expected, atol=1e-12)
    right = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    quarter_roll = head_rotation(torch.tensor([0.0, 0, 90], dtype=torch.float64))
    torch.testing.assert_close(right @ quarter_roll, torch.tensor([[0.0, 1, 0]], dtype=torch.float64))


def test_keypoints_are_scaled_after_expression_and_moved_in_the_plane():
    generator = torch.Generator().manual_seed(2)
    canonical = torch.randn(1, KEYPOINTS, 3, generator=generator, dtype=torch.float64)
    vectors = torch.randn(4, 70, generator=generator, dtype=torch.float64) * 20
    keypoints = compose_keypoints(canonical, vectors)
    assert keypoints.shape == (4, KEYPOINTS, 3)
    for vector, found in zip(vectors.numpy(), keypoints.numpy()):
        turn = Rotation.from_euler("xyz", vector[63:66], degrees=True)
        expected = vector[69] * (turn.apply(canonical[0].numpy()) + vector[:63].reshape(21, 3))
        expected[:, :2] += vector[66:68]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-9)


def test_an_image_gives_keypoints_that_its_own_vector_composes(encoder, faces_BCHW):
    canonical, vector = encoder.canonical_keypoints(faces_BCHW), encoder.encode(faces_BCHW)
    upright = vector.clone()
    upright[:, :69] = 0
    torch.testing.assert_close(compose_keypoints(canonical, upright), vector[:, 69:, None] * canonical)


def test_a_batch_equals_its_images_one_by_one(encoder, faces_BCHW):
    together = encoder.encode(faces_BCHW)
    alone = torch.cat([encoder.encode(face[None]) for face in faces_BCHW])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_bf16_is_close_and_gives_float32(published, encoder, faces_BCHW):
    half = load_motion_extractor(f"liveportrait:{published}")
    assert half.to(dtype=torch.bfloat16) is half
    expected, found = encoder.encode(faces_BCHW), half.encode(faces_BCHW)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    angles = slice(LIVEPORTRAIT_70.slice("pitch").start, LIVEPORTRAIT_70.slice("roll").stop)
    assert (found[:, angles] - expected[:, angles]).abs().max() < 2.0
    for field in ("expression", "translation", "scale"):
        part = LIVEPORTRAIT_70.slice(field)
        # a scale is one number of one face: 3 % to 6 % off by the order in which a processor adds
        assert (found[:, part] - expected[:, part]).norm() < 0.1 * expected[:, part].norm()


def test_it_is_frozen_and_names_its_weights(encoder, published):
    assert isinstance(encoder, FaceEncoder)
    assert (encoder.id, encoder.licence, encoder.layout) == ("liveportrait", "MIT", LIVEPORTRAIT_70)
    assert (encoder.size, encoder.crop_scale, encoder.crop_offset_y) == (256, 2.2, -0.1)
    assert encoder.sha256 == sha256_file(published)
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    assert not any(module.training for module in encoder.module.modules())


def test_a_directory_a_safetensors_file_and_the_weights_folder_do_too(
    published, tensors, encoder, faces_BCHW, tmp_path, monkeypatch
):
    expected = encoder.encode(faces_BCHW[:1])
    assert torch.equal(load_motion_extractor(f"liveportrait:{published.parent}").encode(faces_BCHW[:1]), expected)
    save_file(tensors, tmp_path / "liveportrait.safetensors")
    monkeypatch.setenv("DF_WEIGHTS", str(tmp_path))
    assert torch.equal(load_motion_extractor("liveportrait").encode(faces_BCHW[:1]), expected)


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (1, 3, 256, 224), (1, 1, 256, 256), (3, 256, 256)])
def test_crops_of_another_shape_are_refused(encoder, shape):
    with pytest.raises(UserError, match="256, 256"):
        encoder.encode(torch.rand(shape))
    with pytest.raises(UserError, match="256, 256"):
        encoder.canonical_keypoints(torch.rand(shape))


def test_bytes_are_refused(encoder):
    with pytest.raises(UserError, match="divide by 255"):
        encoder.encode(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))


def test_a_missing_file_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="KwaiVGI/LivePortrait"):
        load_motion_extractor(f"liveportrait:{tmp_path / 'nothing.pth'}")
    with pytest.raises(UserError, match=FILE):
        load_motion_extractor(f"liveportrait:{tmp_path}")


def test_damaged_foreign_and_altered_files_are_one_sentence(published, tensors, tmp_path):
    damaged = tmp_path / FILE
    damaged.write_bytes(published.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match="damaged"):
        load_motion_extractor(f"liveportrait:{damaged}")
    foreign = {"conv1.weight": torch.zeros(1)}
    lacking = {name: tensor for name, tensor in tensors.items() if name != "detector.stages.1.2.grn.beta"}
    wrapped = {name.removeprefix("detector."): tensor for name, tensor in tensors.items()}
    extra = tensors | {"detector.head.weight": torch.zeros(1)}
    reshaped = tensors | {"detector.fc_kp.weight": torch.zeros(72, 768)}
    for altered, word in (
        (foreign, "missing"),
        (lacking, "detector.stages.1.2.grn.beta is missing"),
        (wrapped, "missing"),
        (extra, "detector.head.weight is unknown"),
        (reshaped, "fc_kp.weight is"),
    ):
        torch.save(altered, tmp_path / "altered.pth")
        with pytest.raises(UserError, match=word):
            load_motion_extractor(f"liveportrait:{tmp_path / 'altered.pth'}")
