"""Read pose, mouth, blink and identity of a synthetic person from pixels.

Its errors on unseen people, under blur and noise, are in docs/results/synthetic-reader.md and held by a test.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from df_data.synth.reader.model import INPUT_SIZE, ReaderNet
from df_models.errors import UserError
from df_models.files import sha256_file

_WEIGHTS = "assets/reader.safetensors"


class SynthReadings(NamedTuple):
    """What the reader sees, float32 arrays over the frames.

    ``yaw``, ``pitch``, ``roll`` in degrees (signs as in FaceTracks); ``mouth_open``, ``lip_width``, ``blink`` as in
    :func:`df_data.synth.head.structure.truths`; each ``[T]``. ``identity`` ``[T, D_id]`` is the identity vector.
    ``presence`` ``[T]`` in [0, 1]: how surely this is a face of the synthetic corpus at all.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    mouth_open: np.ndarray
    lip_width: np.ndarray
    blink: np.ndarray
    identity: np.ndarray
    presence: np.ndarray


class SynthReader:
    """A trained reader; make one with :func:`load_reader`."""

    def __init__(self, net: ReaderNet, sha256: str) -> None:
        self._net = net.eval().requires_grad_(False)
        self.sha256 = sha256

    def read(self, frames: np.ndarray | Tensor, batch: int = 256) -> SynthReadings:
        """Read frames.

        Args:
            frames: uint8 in 0..255 or floating in 0..1, ``[T, H, W, 3]`` or ``[T, 3, H, W]``, of any size.
            batch: frames per forward pass.

        Raises:
            UserError: the frames have another shape or type, or are empty.
        """
        images = _as_images(frames)
        with torch.inference_mode():
            outputs = torch.cat([self._net(part) for part in images.split(batch)])
            readings, identity, logit = self._net.split(outputs)
        yaw, pitch, roll, mouth_open, lip_width, blink = readings.numpy().T
        presence = torch.sigmoid(logit).numpy()
        return SynthReadings(yaw, pitch, roll, mouth_open, lip_width, blink, identity.numpy(), presence)


def load_reader(path: Path | None = None) -> SynthReader:
    """The shipped reader, or one trained by ``uv run python -m benchmarks.synth.reader_train``.

    Raises:
        UserError: there is no such file, or it is not a reader's.
    """
    if path is None:
        with resources.as_file(resources.files("df_data.synth.reader") / _WEIGHTS) as shipped:
            return load_reader(Path(shipped))
    if not path.is_file():
        recipe = f"uv run python -m benchmarks.synth.reader_train --out {path}"
        raise UserError(f"no reader weights at {path}; make them with {recipe}")
    net = ReaderNet()
    wanted = {k for k in net.state_dict() if not k.endswith("num_batches_tracked")}
    state = load_file(path)
    if set(state) != wanted:
        raise UserError(f"{path} holds no reader of this version; train it again with benchmarks.synth.reader_train")
    counters = {k: v for k, v in net.state_dict().items() if k not in wanted}
    net.load_state_dict({k: v.float() for k, v in state.items()} | counters)
    return SynthReader(net, sha256_file(path))


def identity_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """RMS difference of standardised identity vectors ``[..., D_id]``: about 1.4 between two random people."""
    return np.sqrt(np.mean((np.asarray(first, np.float64) - np.asarray(second, np.float64)) ** 2, axis=-1))


def _as_images(frames: np.ndarray | Tensor) -> Tensor:
    images = torch.as_tensor(frames)
    if images.ndim != 4 or 3 not in (images.shape[1], images.shape[-1]) or images.shape[0] == 0:
        raise UserError(f"the reader wants frames [T, H, W, 3] or [T, 3, H, W], got shape {tuple(images.shape)}")
    if images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    if images.dtype == torch.uint8:
        images = images.float() / 255
    elif images.is_floating_point():
        images = images.detach().cpu().float()
    else:
        raise UserError(f"the reader wants uint8 or floating frames, got {images.dtype}")
    if images.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
        size = (INPUT_SIZE, INPUT_SIZE)
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    return images.clamp(0, 1).contiguous(memory_format=torch.channels_last)
