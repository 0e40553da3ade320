"""DECA's and EMOCA's encoders: the public checkpoints' layout, parity with transformers, which part gives what."""

from __future__ import annotations

import argparse
import hashlib
import re
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from df_models.encoders import FaceEncoder, load_flame_encoder
from df_models.encoders.face import deca
from df_models.encoders.face.deca import DECA_236, ParameterEncoder, flame_parameters
from df_models.encoders.face.resnet import ResNet50
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.structure import FLAME_159


def random_tensors(width: int, seed: int) -> dict[str, Tensor]:
    """Return an encoder's tensors at a scale at which every layer matters; running statistics are random too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        state = ParameterEncoder(width).state_dict()
    tensors = {}
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1000)
        elif name.endswith("running_var"):
            tensors[name] = 1 + noise.abs()
        elif name.endswith(("bias", "running_mean")):
            tensors[name] = 0.1 * noise
        elif tensor.ndim == 1:
            tensors[name] = 1 + 0.3 * noise
        else:
            tensors[name] = 1.5 * noise / tensor[0].numel() ** 0.5
    return tensors


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def coarse():
    return random_tensors(236, 0)


@pytest.fixture(scope="module")
def expression():
    return random_tensors(50, 1)


@pytest.fixture(scope="module")
def deca_file(coarse, tmp_path_factory):
    """A file as the publisher stores it: a dict of state dicts, and what its training left there."""
    path = tmp_path_factory.mktemp("deca") / "deca_model.tar"
    small = {"encoder.conv1.weight": torch.zeros(2)}
    torch.save({"E_flame": coarse, "E_detail": small, "D_detail": small, "opt": {"state": {}}, "global_step": 7}, path)
    return path


@pytest.fixture(scope="module")
def emoca_state(coarse, expression):
    other = {"deca.flame.v_template": torch.zeros(3), "deca.E_detail.layers.2.bias": torch.zeros(128)}
    return other | prefixed("deca.E_flame.", coarse) | prefixed("deca.E_expression.", expression)


@pytest.fixture(scope="module")
def emoca_file(emoca_state, tmp_path_factory):
    """A Lightning checkpoint without the trainer's objects."""
    path = tmp_path_factory.mktemp("emoca") / "EMOCA_v2_lr_mse_20.ckpt"
    torch.save({"epoch": 10, "global_step": 5, "state_dict": emoca_state, "hyper_parameters": {"n_exp": 50}}, path)
    return path


@pytest.fixture(scope="module")
def deca_encoder(deca_file):
    return load_flame_encoder(f"deca:{deca_file}")


@pytest.fixture(scope="module")
def emoca_encoder(emoca_file):
    return load_flame_encoder(f"emoca:{emoca_file}")


@pytest.fixture(scope="module")
def faces_BCHW():
    coarse = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(2))
    return F.interpolate(coarse, size=(224, 224), mode="bilinear")


@pytest.mark.parametrize(
    ("width", "parameters", "digest"),
    [
        (236, 25_848_108, "e5ff44800f2d1b2639d916940356f646837b2a9b82a81b2c190461eddbbb7f09"),
        (50, 25_657_458, "f79b06ba51ec951dfbf7038de32834f8d60b1ede5cdc4ddbb8db28351a5020c2"),
    ],
)
def test_names_and_shapes_are_those_of_the_public_checkpoints(width, parameters, digest):
    with torch.device("meta"):
        encoder = ParameterEncoder(width)
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    spelled = {
        "encoder.conv1.weight": (64, 3, 7, 7),
        "encoder.bn1.num_batches_tracked": (),
        "encoder.layer1.0.conv1.weight": (64, 64, 1, 1),
        "encoder.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "encoder.layer2.0.downsample.1.running_var": (512,),
        "encoder.layer3.5.conv2.weight": (256, 256, 3, 3),
        "encoder.layer4.2.bn3.running_mean": (2048,),
        "layers.0.weight": (1024, 2048),
        "layers.2.weight": (width, 1024),
    }
    assert spelled.items() <= shapes.items()
    assert len(shapes) == 322 and not any(".fc." in name for name in shapes)
    assert sum(parameter.numel() for parameter in encoder.encoder.parameters()) == 23_508_032
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert hashlib.sha256("\n".join(sorted(f"{k} {v}" for k, v in shapes.items())).encode()).hexdigest() == digest


def to_transformers(name: str) -> str:
    """Return what ``transformers.ResNetModel`` calls a tensor of torchvision's ResNet."""
    name = re.sub(r"^layer(\d)\.", lambda match: f"encoder.stages.{int(match[1]) - 1}.layers.", name)
    name = re.sub(r"downsample\.0", "shortcut.convolution", name)
    name = re.sub(r"downsample\.1", "shortcut.normalization", name)
    part = {"conv": "convolution", "bn": "normalization"}
    if name.startswith("encoder"):
        return re.sub(r"(conv|bn)(\d)", lambda match: f"layer.{int(match[2]) - 1}.{part[match[1]]}", name)
    return re.sub(r"^(conv|bn)1", lambda match: f"embedder.embedder.{part[match[1]]}", name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_trunk_equals_transformers(coarse, faces_BCHW, dtype, tolerance):
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(depths=[3, 4, 6, 3], layer_type="bottleneck", downsample_in_bottleneck=False)
    with torch.device("meta"):
        theirs, ours = ResNetModel(config).eval(), ResNet50().eval()
    trunk = {
        name.removeprefix("encoder."): tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in coarse.items()
        if name.startswith("encoder.")
    }
    theirs.load_state_dict({to_transformers(name): tensor for name, tensor in trunk.items()}, assign=True)
    ours.load_state_dict(trunk, assign=True)
    with torch.no_grad():
        expected = theirs(faces_BCHW.to(dtype)).pooler_output.flatten(1)
        found = ours(faces_BCHW.to(dtype))
    assert found.shape == (2, 2048)
    assert (expected[0] - expected[1]).norm() > 0.02 * expected.norm()
    assert ((found - expected).norm() / expected.norm()).item() < tolerance


def test_deca_gives_shape_expression_pose_and_camera(deca_encoder, coarse, faces_BCHW):
    with torch.no_grad():
        features = deca_encoder.module.get_submodule("E_flame.encoder")(faces_BCHW)
    hidden = (features @ coarse["layers.0.weight"].T + coarse["layers.0.bias"]).clamp_min(0)
    all_236 = hidden @ coarse["layers.2.weight"].T + coarse["layers.2.bias"]
    by_hand = torch.cat([all_236[:, :100], all_236[:, 150:200], all_236[:, 200:206], all_236[:, 206:209]], dim=1)
    vector = deca_encoder.encode(faces_BCHW)
    assert vector.shape == (2, 159) and vector.dtype == torch.float32
    torch.testing.assert_close(vector, by_hand, rtol=1e-4, atol=1e-4 * float(by_hand.abs().max()))


def test_emoca_replaces_the_expression_and_nothing_else(deca_encoder, emoca_encoder, expression, faces_BCHW):
    ours, decas = emoca_encoder.encode(faces_BCHW), deca_encoder.encode(faces_BCHW)
    network = ParameterEncoder(50).eval()
    network.load_state_dict(expression)
    with torch.no_grad():
        own = network(faces_BCHW)
    for field in ("shape", "pose", "camera"):
        assert torch.equal(ours[:, FLAME_159.slice(field)], decas[:, FLAME_159.slice(field)])
    assert torch.equal(ours[:, FLAME_159.slice("expression")], own)
    assert not torch.allclose(own, decas[:, FLAME_159.slice("expression")])


@pytest.mark.parametrize(("extra", "kept"), [(0, 6), (3, 3), (6, 0)])
def test_what_emoca_gives_beyond_the_expression_is_the_end_of_the_pose(extra, kept):
    coarse = torch.arange(236.0).expand(2, 236)
    vector = flame_parameters(coarse, 1000.0 + torch.arange(50.0 + extra).expand(2, 50 + extra))
    assert vector[0, FLAME_159.slice("expression")].tolist() == [1000.0 + i for i in range(50)]
    expected = [200.0 + i for i in range(kept)] + [1050.0 + i for i in range(extra)]
    assert vector[0, FLAME_159.slice("pose")].tolist() == expected
    assert vector[0, FLAME_159.slice("camera")].tolist() == [206.0, 207.0, 208.0]
    assert DECA_236.dim == 236


def test_an_emoca_that_predicts_the_jaw_too_is_read(emoca_state, deca_encoder, faces_BCHW, tmp_path):
    layers = ("deca.E_expression.layers.2.weight", "deca.E_expression.layers.2.bias")
    wider = {name: torch.cat([emoca_state[name], torch.ones_like(emoca_state[name][:3])]) for name in layers}
    save_file(emoca_state | wider, tmp_path / "emoca.safetensors")
    pose = load_flame_encoder(f"emoca:{tmp_path}").encode(faces_BCHW[:1])[:, FLAME_159.slice("pose")]
    decas = deca_encoder.encode(faces_BCHW[:1])[:, FLAME_159.slice("pose")]
    assert torch.equal(pose[:, :3], decas[:, :3])
    torch.testing.assert_close(pose[:, 3:], pose[:, 3:4].expand(1, 3))
    assert not torch.allclose(pose[:, 3:], decas[:, 3:])


def test_a_batch_equals_its_images_one_by_one(emoca_encoder, faces_BCHW):
    together = emoca_encoder.encode(faces_BCHW)
    alone = torch.cat([emoca_encoder.encode(face[None]) for face in faces_BCHW])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * float(together.abs().max()))
    assert (together[0] - together[1]).norm() > 0.01 * together.norm()


def test_bf16_is_close_and_gives_float32(deca_file, deca_encoder, faces_BCHW):
    half = load_flame_encoder(f"deca:{deca_file}")
    assert half.to(dtype=torch.bfloat16) is half
    expected, found = deca_encoder.encode(faces_BCHW), half.encode(faces_BCHW)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("name", ["deca", "emoca"])
def test_they_are_frozen_and_name_their_weights(name, request):
    encoder, path = request.getfixturevalue(f"{name}_encoder"), request.getfixturevalue(f"{name}_file")
    assert isinstance(encoder, FaceEncoder)
    assert (encoder.id, encoder.layout) == (name, FLAME_159) and "non-commercial" in encoder.licence
    assert (encoder.size, encoder.crop_scale) == (224, 1.25)
    assert encoder.crop_offset_y * encoder.crop_scale == pytest.approx(0.12)
    assert encoder.sha256 == sha256_file(path)
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    assert not any(module.training for module in encoder.module.modules())


def test_crops_of_another_shape_or_kind_are_refused(deca_encoder):
    with pytest.raises(UserError, match="224, 224"):
        deca_encoder.encode(torch.rand(1, 3, 256, 256))
    with pytest.raises(UserError, match="divide by 255"):
        deca_encoder.encode(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))


def test_the_encoder_alone_as_safetensors_and_the_weights_folder_do_too(
    coarse, deca_encoder, faces_BCHW, tmp_path, monkeypatch
):
    save_file(coarse, tmp_path / "deca.safetensors")
    monkeypatch.setenv("DF_WEIGHTS", str(tmp_path))
    assert torch.equal(load_flame_encoder("deca").encode(faces_BCHW[:1]), deca_encoder.encode(faces_BCHW[:1]))


def test_pickled_objects_are_refused_and_the_documented_lines_take_the_tensors_out(
    emoca_state, emoca_encoder, faces_BCHW, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": emoca_state, "hyper_parameters": argparse.Namespace(n_exp=50)}, "EMOCA.ckpt")
    with pytest.raises(UserError, match=re.escape("help('df_models.encoders.face.deca')")):
        load_flame_encoder("emoca:EMOCA.ckpt")
    lines = [line for line in (deca.__doc__ or "").splitlines() if line.startswith("    ")]
    assert len(lines) == 2
    exec(textwrap.dedent("\n".join(lines)), {"torch": torch, "save_file": save_file})
    again = load_flame_encoder("emoca:emoca.safetensors")
    assert torch.equal(again.encode(faces_BCHW[:1]), emoca_encoder.encode(faces_BCHW[:1]))


@pytest.mark.parametrize(("name", "word"), [("deca", "deca_model.tar"), ("emoca", "emoca.is.tue.mpg.de")])
def test_missing_weights_say_how_to_get_them(name, word, tmp_path, monkeypatch):
    monkeypatch.delenv("DF_WEIGHTS", raising=False)
    for spec in (name, f"{name}:{tmp_path / 'nothing.tar'}", f"{name}:{tmp_path}"):
        with pytest.raises(UserError, match=re.escape(word)):
            load_flame_encoder(spec)


def test_a_damaged_file_is_one_sentence(deca_file, tmp_path):
    damaged = tmp_path / "deca_model.tar"
    damaged.write_bytes(deca_file.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match="damaged"):
        load_flame_encoder(f"deca:{damaged}")


BIAS = "deca.E_expression.layers.2.bias"


@pytest.mark.parametrize(
    ("name", "stored", "word"),
    [
        ("deca", {"E_flame": {"layers.0.bias": torch.zeros(1024)}}, "E_flame.encoder.bn1.bias is missing"),
        ("deca", {"E_flame": torch.zeros(1)}, "is missing"),
        ("deca", {"anything": 1}, "is missing"),
        ("emoca", {"state_dict": {"deca.E_flame.layers.0.bias": torch.zeros(1)}}, "E_expression.encoder.bn1.bias is"),
        ("emoca", {"state_dict": {BIAS: torch.zeros(51)}}, "51 outputs"),
        ("emoca", {"state_dict": {"deca.E_expression.resnet.layers.0.bias": torch.zeros(1)}}, "deca_parallel"),
        ("emoca", {"state_dict": {"deca.E_mica.arcface.bias": torch.zeros(1)}}, "EMICA"),
    ],
)
def test_a_foreign_file_is_one_sentence(name, stored, word, tmp_path):
    torch.save(stored, tmp_path / "foreign.pt")
    with pytest.raises(UserError, match=re.escape(word)):
        load_flame_encoder(f"{name}:{tmp_path / 'foreign.pt'}")


def test_extra_and_reshaped_tensors_are_refused(coarse, tmp_path):
    for altered, word in (
        (coarse | {"encoder.fc.bias": torch.zeros(1000)}, "E_flame.encoder.fc.bias is unknown"),
        (coarse | {"layers.2.bias": torch.zeros(334)}, "E_flame.layers.2.bias is [334], not [236]"),
    ):
        save_file(altered, tmp_path / "deca.safetensors")
        with pytest.raises(UserError, match=re.escape(word)):
            load_flame_encoder(f"deca:{tmp_path}")
