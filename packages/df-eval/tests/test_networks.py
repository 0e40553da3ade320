"""What the archives of the field's networks are given: range, size, order of axes, windows; and files that are none."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from df_eval.config import ReadersConfig
from df_eval.metrics import CATALOG, SETS
from df_eval.reading.networks import Networks
from df_models.errors import UserError
from df_models.settings import Location

HEIGHT, WIDTH = 6, 10


def told(x: Tensor) -> Tensor:
    """Range, mean and shape of each item of a batch."""
    flat = x.float().flatten(1)
    sizes = torch.tensor([[float(size) for size in x.shape[1:]]]).expand(len(x), -1)
    return torch.cat([flat.amin(1, keepdim=True), flat.amax(1, keepdim=True), flat.mean(1, keepdim=True), sizes], 1)


class I3D(nn.Module):
    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert rescale and resize and return_features
        return told(x / 127.5 - 1)


class CdI3D(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return told(x).unsqueeze(2) * torch.tensor([0.5, 1.5])  # two steps of time


class Inception(nn.Module):
    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert return_features and x.dtype == torch.uint8
        return told(x)


class Vgg(nn.Module):
    def forward(self, x: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        assert return_lpips and not resize_images
        return x.flatten(1) / 255


for _each in (told, I3D, CdI3D, Inception, Vgg):
    _each.__module__ = "archives"  # an archive cannot be read again if a name in it has the hyphen of df-eval


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReadersConfig:
    folder = tmp_path_factory.mktemp("archives")
    modules = {"i3d": I3D(), "cd_i3d": CdI3D(), "inception": Inception(), "lpips": Vgg()}
    for name, module in modules.items():
        torch.jit.script(module).save(str(folder / f"{name}.pt"))
    return ReadersConfig(**{name: Location(folder / f"{name}.pt") for name in modules})


@pytest.fixture(scope="module")
def networks(files: ReadersConfig) -> Networks:
    return Networks(files)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A clip of 20 frames that darkens in its end, black and white pixels in each."""
    made = np.full((20, HEIGHT, WIDTH, 3), 100, np.uint8)
    made[10:] = 50
    made[:, 0, 0], made[:, 0, 1] = 0, 255
    return made


def test_i3d_sees_the_first_and_the_last_window_in_minus_one_to_one(networks: Networks, frames: np.ndarray) -> None:
    for name, size in (("i3d", (HEIGHT, WIDTH)), ("cd_i3d", (224, 224))):
        first, last = networks.extractors[name](frames)
        for window in (first, last):
            assert window[:2] == pytest.approx([-1, 1], abs=0.02)
            assert window[3:].tolist() == [3, 16, *size], "channels, frames, height, width"
        assert first[2] > last[2], "the end is darker"
    assert networks.extractors["i3d"](frames)[0][2] == pytest.approx(frames[:16].mean() / 127.5 - 1)


class CdCorner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, 0, :8]  # the first eight pixels of the first line


CdCorner.__module__ = "archives"


def test_cd_i3d_is_given_images_resized_at_half_pixels(tmp_path: Path) -> None:
    torch.jit.script(CdCorner()).save(str(tmp_path / "corner.pt"))
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 256, (1, 1, 112, 3), dtype=np.uint8), 112, axis=1).repeat(16, axis=0)
    found = Networks(ReadersConfig(cd_i3d=Location(tmp_path / "corner.pt"))).extractors["cd_i3d"](frames)[0]
    line = frames[0, 0, :, 0] / 127.5 - 1
    wanted = [line[0]]  # of 112 pixels 224: between the middles of two, a quarter from one
    for left, right in pairwise(line):
        wanted += [0.75 * left + 0.25 * right, 0.25 * left + 0.75 * right]
    assert found == pytest.approx(wanted[:8], abs=1e-5), "with align_corners or nearest they would be others"


def test_inception_sees_bytes_and_lpips_0_to_255(networks: Networks, frames: np.ndarray) -> None:
    found = networks.extractors["inception"](frames)
    assert found.shape == (20, 6) and found[0].tolist()[:2] == [0, 255] and found[0].tolist()[3:] == [3, HEIGHT, WIDTH]
    assert networks.lpips is not None
    other = frames.copy()
    other[3, 2, 4] = 0
    wanted = np.zeros(20)
    wanted[3] = 3 * (100 / 255) ** 2
    assert networks.lpips(other, frames) == pytest.approx(wanted, abs=1e-6)


def test_what_has_no_file_is_unavailable_with_the_setting_that_would_give_it(networks: Networks) -> None:
    assert networks.unavailable == {} and set(networks.used) == {"i3d", "cd_i3d", "inception", "lpips"}
    none = Networks(ReadersConfig())
    assert none.extractors == {} and none.lpips is None
    for name, setting in {"fvd2048_16f": "i3d", "cd_fvd": "cd_i3d", "fid": "inception", "lpips": "lpips"}.items():
        assert f"readers.{setting}=PATH" in none.unavailable[name]
    assert none.unavailable.keys() < {spec.name for spec in (*CATALOG, *SETS)} and "flicker" not in none.unavailable


def test_files_that_are_missing_or_other_networks_are_refused(
    tmp_path: Path, files: ReadersConfig, frames: np.ndarray
) -> None:
    with pytest.raises(UserError, match=r"readers\.i3d=.*gone\.pt: there is no such file"):
        Networks(ReadersConfig(i3d=Location(tmp_path / "gone.pt")))
    (tmp_path / "text.pt").write_text("not an archive")
    with pytest.raises(UserError, match=r"readers\.inception=.*no TorchScript archive"):
        Networks(ReadersConfig(inception=Location(tmp_path / "text.pt")))
    swapped = Networks(ReadersConfig(i3d=files.inception))
    with pytest.raises(UserError, match=r"readers\.i3d: the archive is another network"):
        swapped.extractors["i3d"](frames)
