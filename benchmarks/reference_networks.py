"""What `reference_metrics` compares with: other packages' modules, and their networks with random weights, saved as the
archives that df-eval takes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from df_models.errors import UserError

MODULES = {"pytorch-fid": "pytorch_fid", "torch-fidelity": "torch_fidelity", "cd-fvd": "cdfvd", "lpips": "lpips",
           "scikit-image": "skimage"}  # fmt: skip


def module(package: str, name: str = "") -> Any:
    """A module of a package that is there for this comparison alone.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(MODULES[package] + name)
    except ImportError as error:
        raise UserError(f"{package} is not here ({error}); run this as its docstring says") from error


def called(package: str) -> str:
    """``lpips 0.1.4``."""
    return f"{package} {metadata.version(package)}"


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Random weights that keep the scale of what passes, so that features differ from image to image."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network.eval()


def save(path: Path, called: Callable[[Any], nn.Module], network: nn.Module, example: Tensor) -> None:
    """Write a TorchScript archive of a network in the wrapper that says how it is called."""
    traced: Any = torch.jit.trace(network, example, check_trace=False)
    torch.jit.script(called(traced)).save(str(path))


class InceptionArchive(nn.Module):
    """How df-eval's archive is called."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return self.network(x)


class First(nn.Module):
    """The first of a network's outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]


def without_download(where: Any, build: Callable[[], nn.Module], state: dict[str, Tensor] | None = None) -> nn.Module:
    """Build a network that would fetch its weights: with ``state``, or with none."""
    fetch, load = where.load_state_dict_from_url, nn.Module.load_state_dict
    where.load_state_dict_from_url = lambda *_, **__: state
    if state is None:
        nn.Module.load_state_dict = lambda *_, **__: None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return build()
    finally:
        where.load_state_dict_from_url, nn.Module.load_state_dict = fetch, load


class VideoArchive(nn.Module):
    """How df-eval's archive of cd-fvd's I3D is called."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class LpipsArchive(nn.Module):
    """LPIPS as StyleGAN's archive has it: vectors whose squared distance it is."""

    def __init__(self, network: Any, normalise: Any) -> None:
        super().__init__()
        self.scale, self.net, self.normalise = network.scaling_layer, network.net, normalise
        self.weights = [layer.model[-1].weight.detach().clamp(min=0).sqrt() for layer in network.lins]

    def forward(self, x: Tensor) -> Tensor:
        seen = self.net(self.scale(x / 127.5 - 1))
        flat = [(self.normalise(f) * w / math.sqrt(f[0, 0].numel())).flatten(1) for f, w in zip(seen, self.weights)]
        return torch.cat(flat, dim=1)


class CalledLpips(nn.Module):
    """How df-eval's archive is called."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        return self.network(x)
