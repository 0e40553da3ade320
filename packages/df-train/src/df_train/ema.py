"""Exponential moving average of the parameters, sharded exactly as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from df_train.optimizer import trained
from df_train.processes.sharding import reshard


def _local(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


class ParameterAverage:
    """Keeps ``average = decay * average + (1 - decay) * parameter`` for every trained parameter, in its dtype.

    Each process averages its own shards, so an update moves no data between processes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parameters = trained(model)
        self._average = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self, decay: float, unless: Tensor | None = None) -> None:
        """Move the average towards the parameters by ``1 - decay``.

        Args:
            unless: 0-dimensional, on the parameters' device: 1.0 leaves the average as it is, 0.0 does not.
        """
        average = _local(list(self._average.values()))
        current = _local([value.detach() for value in self._parameters.values()])
        if unless is None:
            torch._foreach_lerp_(average, current, 1.0 - decay)
        else:
            torch._foreach_lerp_(average, current, [(1.0 - unless) * (1.0 - decay)] * len(average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averages as its parameters, and give it its own back afterwards, bit for bit.

        Nothing may be differentiated or saved meanwhile.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange the values of each parameter's shard and its average's; no data moves between processes."""
        reshard(self._model)
        parameters = _local([value.detach() for value in self._parameters.values()])
        for parameter, average in zip(parameters, _local(list(self._average.values()))):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name (the tensors themselves: loading in place restores them)."""
        return self._average
