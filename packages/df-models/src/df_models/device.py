"""Which device to compute on: one way to read its name for all commands, and what a device cannot do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from df_models.errors import UserError

if TYPE_CHECKING:
    import torch

DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps"
_NAME = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


def check_device_name(name: str) -> str:
    """Return ``name`` if it is one that :func:`choose_device` knows, wherever it is meant to run.

    Raises:
        UserError: it is none of ``auto``, ``cpu``, ``cuda``, ``cuda:N`` and ``mps``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"unknown device {name!r}; use {DEVICE_NAMES}")
    return name


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA where there is one, else the CPU.

    Apple's MPS is taken only by name: the model has not been measured there yet.

    Raises:
        UserError: the name is unknown, or this machine has no such device.
    """
    import torch

    check_device_name(name)
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name == "auto":
        return torch.device("cuda" if found else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and f"cuda:{device.index or 0}" not in found:
        there = f"has {', '.join(found)}" if found else "has no CUDA device that torch can use"
        raise UserError(f"there is no device {name!r} here: this machine {there}; name one that is there, cpu, or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("there is no device 'mps' here: it is the GPU of Apple's own processors; use cpu or auto")
    return device


def widest_float(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device: float64, but float32 on MPS, which has no float64."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64
