"""L2CS-Net: the published file's layout, bins to angles, and which layer is which angle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from df_models.encoders.face import gaze
from df_models.encoders.face.gaze import GazeTowers, angles_of, gaze_vectors, normalised
from df_models.errors import UserError


def published(bins: int = 90) -> dict[str, Tensor]:
    """Random weights under the names and shapes of ``l2cs/model.py``: torchvision's ResNet-50 and three layers."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        trunk = {name: t for name, t in GazeTowers().state_dict().items() if not name.startswith("fc_")}
    shapes = {name: tensor.shape for name, tensor in trunk.items()}
    shapes |= {f"fc_{angle}_gaze.weight": torch.Size((bins, 2048)) for angle in ("yaw", "pitch")}
    shapes |= {f"fc_{angle}_gaze.bias": torch.Size((bins,)) for angle in ("yaw", "pitch")}
    shapes |= {"fc_finetune.weight": torch.Size((3, 2051)), "fc_finetune.bias": torch.Size((3,))}
    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(1000)
        elif name.endswith("running_var"):
            found[name] = 1 + noise.abs()
        elif len(shape) < 2:
            found[name] = (0 if name.endswith(("bias", "running_mean")) else 1) + 0.2 * noise
        else:
            found[name] = 1.5 * noise / noise[0].numel() ** 0.5
    return found


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return published()


def test_the_layout_is_the_published_one(tensors: dict[str, Tensor]) -> None:
    parameters = sum(t.numel() for name, t in tensors.items() if "running" not in name and "num_batches" not in name)
    resnet_50 = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's count without its classifier
    assert parameters == resnet_50 + 2 * (2048 * 90 + 90) + (2051 * 3 + 3)


def test_a_published_file_is_read_and_tells_the_layers_apart(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "L2CSNet_gaze360.pkl"
    sharp = {"fc_yaw_gaze.bias": 50, "fc_pitch_gaze.bias": 40}  # bins that win, whatever is seen
    for name, peak in sharp.items():
        tensors = tensors | {name: 1e4 * torch.nn.functional.one_hot(torch.tensor(peak), 90).float()}
    torch.save(tensors, path)
    network = gaze.load(str(path))
    assert network.id == "l2cs_gaze360" and len(network.sha256) == 64
    faces = np.random.default_rng(0).integers(0, 256, size=(2, 448, 448, 3), dtype=np.uint8)
    assert network.angles(faces) == pytest.approx(np.array([[20.0, -20.0]] * 2)), "4 degrees a bin, minus 180"
    assert network.angles(faces[:0]).shape == (0, 2)
    with pytest.raises(UserError, match=r"takes uint8 faces of \[T, 448, 448, 3\]"):
        network.angles(faces[:, :224])


def test_the_angle_is_the_mean_of_the_bins() -> None:
    bins = torch.full((1, 2, 90), -1e9)
    bins[0, 0, [45, 46]] = 0.0
    bins[0, 1, 0] = 0.0
    assert angles_of(bins)[0].tolist() == pytest.approx([2.0, -180.0])


def test_an_image_is_normalised_as_imagenet() -> None:
    grey = normalised(np.full((1, 4, 4, 3), 124, np.uint8))[0, :, 0, 0]
    assert grey.numpy() == pytest.approx([(124 / 255 - m) / d for m, d in zip(gaze.MEAN, gaze.DEVIATION)], abs=1e-6)


def test_angles_as_vectors() -> None:
    """``gazeto3d``: straight ahead is towards the camera; the first angle turns about the vertical axis."""
    found = gaze_vectors(np.array([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0], [30.0, 40.0]]))
    assert found[:3] == pytest.approx(-np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), abs=1e-12)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)


def test_other_files_are_refused_in_a_line(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    other = published(28)
    torch.save(other, tmp_path / "mpii.pkl")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pkl")
    for name, message in (
        ("mpii", "is not l2cs_gaze360's checkpoint"),
        ("whole", "pickled objects"),
        ("none", "there is no"),
    ):
        with pytest.raises(UserError, match=message) as error:
            gaze.load(str(tmp_path / f"{name}.pkl"))
        assert "\n" not in str(error.value)
