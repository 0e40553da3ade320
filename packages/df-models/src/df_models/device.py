"""Which device to compute on: one way to read its name for all commands, and what a device cannot do."""

from __future__ import annotations

import re

import torch

from df_models.errors import UserError

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

    Apple's MPS is taken only by name: no one has yet measured the model there.

    Raises:
        UserError: the name is unknown, or this machine has no such device.
    """
    check_device_name(name)
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device that torch can use"
        raise UserError(f"there is no device {name!r} here: this machine has {found}; use auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("there is no device 'mps' here: it needs a Mac with Apple's GPU and macOS 14; use auto or cpu")
    return device


def widest_float(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device: float64, but float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
