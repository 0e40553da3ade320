"""Which device each worker's encoders compute on.

Detectors and landmarks stay on the processor: onnxruntime and MediaPipe run them there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from df_models.device import choose_device
from df_models.errors import UserError


def resolve_devices(setting: str | Sequence[str]) -> list[str]:
    """Return the devices of this machine that a setting (one name or a list) names, at least one.

    ``cuda`` is all CUDA devices, ``auto`` is those where there are any and ``cpu`` elsewhere.

    Raises:
        UserError: one is not there.
    """
    count = torch.cuda.device_count()
    everything = [f"cuda:{index}" for index in range(count)]
    found: list[str] = []
    for name in [setting] if isinstance(setting, str) else setting:
        if name == "auto":
            found += everything or ["cpu"]
        elif name == "cuda" and everything:
            found += everything
        else:
            found.append(str(choose_device(name)))
    return found


def gpu_share(setting: str | Sequence[str], workers: int, gpus: int) -> float:
    """Return the part of a GPU that each of a Ray cluster's workers reserves; 0 computes on processors.

    As few workers share a GPU as can be: 8 workers on 2 GPUs take a quarter each.

    Raises:
        UserError: a device by number, which means nothing on a cluster, or a GPU where the cluster has none.
    """
    if setting == "cpu" or (setting == "auto" and not gpus):
        return 0.0
    if setting not in ("auto", "cuda"):
        raise UserError(f"device={setting}: Ray chooses each worker's GPU; with executor=ray write cuda, cpu or auto")
    if not gpus:
        raise UserError("device=cuda, but the Ray cluster has no GPU; add a machine with one, or write device=cpu")
    return 1 / math.ceil(workers / gpus)


class DeviceRota:
    """Hands out devices evenly: always the one that the fewest workers have, the first of several.

    Worker i gets device i modulo n; one that takes a lost worker's place gets the device that it left.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._users = dict.fromkeys(devices, 0)

    def take(self) -> str:
        """Return a device for a new worker."""
        device = min(self._users, key=self._users.__getitem__)
        self._users[device] += 1
        return device

    def give_back(self, device: str) -> None:
        """A worker with this device is gone."""
        self._users[device] -= 1
