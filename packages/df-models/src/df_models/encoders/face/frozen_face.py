"""What the face encoders share: a frozen module, where its weights come from, and the check of the crops."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from df_models.encoders.weights import Origin, hash_files
from df_models.errors import UserError
from df_models.structure import VectorLayout


class FrozenFace:
    """A frozen module that reads face crops; see :class:`df_models.encoders.base.FaceEncoder` for the protocol."""

    layout: ClassVar[VectorLayout]
    size: ClassVar[int]
    crop_scale: ClassVar[float]
    crop_offset_y: ClassVar[float]

    def __init__(self, module: nn.Module, origin: Origin, weights: Path) -> None:
        self.id, self.licence = origin.name, origin.licence
        self.sha256 = hash_files([weights])
        self.module = module.eval().requires_grad_(False)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights to a device or dtype; what comes out stays float32."""
        self.module.to(device=device, dtype=dtype)
        return self

    def _prepare(self, faces_BCHW: Tensor) -> Tensor:
        wanted, found = [3, self.size, self.size], list(faces_BCHW.shape)
        if found[1:] != wanted:
            raise UserError(f"{self.id} takes face crops of shape {['B', *wanted]}, not {found}; crop and resize first")
        if not faces_BCHW.is_floating_point():
            raise UserError(f"{self.id} takes pixels in [0, 1], not {faces_BCHW.dtype}; divide by 255 first")
        parameter = next(self.module.parameters())
        return faces_BCHW.to(device=parameter.device, dtype=parameter.dtype)
