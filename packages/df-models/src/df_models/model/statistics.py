"""Statistics of raw structure vectors, which travel in the model's checkpoint.

Shape legend: V entries of a structure vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from df_models.errors import UserError


class StructureStatistics(nn.Module):
    """A module that knows mean and spread of raw structure vectors; base of the whole model.

    Attributes:
        structure_mean, structure_std: float32 ``[V]``; they keep float32 when the module is cast. None without
            structure.
    """

    structure_mean: Tensor | None
    structure_std: Tensor | None

    def add_statistics(self, entries: int) -> None:
        """Register the buffers, of statistics that change nothing; none for 0 entries."""
        self.register_buffer("structure_mean", torch.zeros(entries) if entries else None)
        self.register_buffer("structure_std", torch.ones(entries) if entries else None)

    @property
    def has_structure_statistics(self) -> bool:
        """Whether :meth:`set_structure_statistics` gave the model statistics; before, they change nothing."""
        mean, std = self.structure_mean, self.structure_std
        return mean is not None and std is not None and (bool(mean.any()) or not bool((std == 1).all()))

    def set_structure_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation ``[V]`` of raw structure vectors.

        Raises:
            UserError: the model has no structure, the shapes do not fit, or a standard deviation is not positive.
        """
        if self.structure_mean is None or self.structure_std is None:
            raise UserError("this model has no structure (streams=video), and so no statistics of it")
        wanted = tuple(self.structure_mean.shape)
        if tuple(mean.shape) != wanted or tuple(std.shape) != wanted:
            raise UserError(
                f"structure statistics must be {list(wanted)}, not {list(mean.shape)} and {list(std.shape)}"
            )
        if not bool((std > 0).all()) or not bool(torch.isfinite(mean).all()):
            raise UserError("structure statistics must be finite, with standard deviations above 0")
        self.structure_mean.copy_(mean)
        self.structure_std.copy_(std)

    def normalize_structure(self, structure: Tensor) -> Tensor:
        """Turn raw structure vectors ``[..., V]`` into the model's units; without structure there are none, ``V`` 0."""
        if self.structure_mean is None or self.structure_std is None:
            return structure[..., :0]
        return ((structure.float() - self.structure_mean) / self.structure_std).to(structure.dtype)

    def denormalize_structure(self, structure: Tensor) -> Tensor:
        """Turn the model's structure ``[..., V]`` back into raw vectors."""
        if self.structure_mean is None or self.structure_std is None:
            return structure[..., :0]
        return (structure.float() * self.structure_std + self.structure_mean).to(structure.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the model; the structure statistics move along but keep float32."""
        mean, std = self.structure_mean, self.structure_std
        super()._apply(fn, recurse)
        moved = self.structure_mean
        if mean is not None and std is not None and moved is not None and moved.dtype != torch.float32:
            self.structure_mean, self.structure_std = mean.to(moved.device), std.to(moved.device)
        return self
