"""Modules whose parameters are to be replaced at once are made without drawing values for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FILLED = frozenset({nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_})


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are where random values would be drawn into them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLED:
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Modules are made on the CPU with parameters of any value, in memory that nothing has touched.

    On the meta device, which would do as well, drawing makes torch import what it compiles with, and that takes longer
    than all else of loading a model.
    """
    with torch.device("cpu"), _Undrawn():
        yield
