"""A model's step as compiled graphs, one for each size of what it is given."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from df_models.model.inputs import Inputs
from df_models.model.tower import Noise


class StepGraphs:
    """What one model's step was compiled into.

    Each graph has code of its own, to which torch keeps what it compiled: it gives up on code that meets more than a
    few sizes, and would give one model the graph of another. What the graph takes for granted of the model is its key;
    that nothing else of its many modules has changed is not looked at in each step, which with 20 layers takes longer
    than all else that Python does there.

    Args:
        chunk: the function to compile; its first argument is the model.
        options: of ``torch.compile``.
    """

    def __init__(self, chunk: Callable[..., Any], options: dict[str, Any]) -> None:
        self._chunk, self._options = chunk, options
        self._graphs: dict[tuple[object, ...], Callable[..., Any]] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def of(
        self, inputs: Inputs, write: bool, known: Tensor | None, noise: Noise | None, also: tuple[object, ...]
    ) -> Callable[..., Any]:
        """Return the graph for such inputs.

        Args:
            also: what else a graph takes for granted: dtype and device of the model, sizes of what it reads.
        """
        key = (inputs.video.shape, inputs.structure.shape, write, known is None, noise is None, *also)
        if key not in self._graphs:
            options: dict[str, Any] = {"fullgraph": True, "dynamic": False, **self._options}
            if "mode" not in options:  # torch takes a mode or options
                unlooked = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
                options["options"] = {**unlooked, **options.get("options", {})}
            self._graphs[key] = torch.compile(_own_code(self._chunk), **options)
        return self._graphs[key]


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function with a code object of its own."""
    assert isinstance(function, FunctionType)
    code, scope = function.__code__.replace(), function.__globals__
    return FunctionType(code, scope, function.__name__, function.__defaults__, function.__closure__)
