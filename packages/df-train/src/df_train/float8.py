"""Matrix products of the layers in float8, by torchao's dynamic scaling (`precision.float8`).

Each product rounds its two factors to 8 bits with one scale per tensor, worked out from the tensor itself (Micikevicius
et al., "FP8 Formats for Deep Learning", 2022: e4m3 forward, e5m2 for gradients), and adds up in float32. Parameters,
optimizer, average and checkpoints stay what they are. torchao is loaded on demand.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from df_models.errors import UserError

_CAPABILITY = (8, 9)
"""Ada and Hopper: the first with matrix instructions for float8."""
_MULTIPLE = 16
"""Both sizes of a matrix product in float8 must be multiples of it (`torch._scaled_mm`)."""


def check_float8(device: torch.device) -> None:
    """Float8 can be computed here.

    Raises:
        UserError: the device cannot, or torchao is not installed.
    """
    needs = "precision.float8=true needs a GPU of compute capability 8.9 or higher (H100, H200, L40S)"
    if device.type != "cuda":
        raise UserError(f"{needs}; the device is {device.type}; set precision.float8=false")
    found = torch.cuda.get_device_capability(device)
    if found < _CAPABILITY:
        raise UserError(f"{needs}; this one has {found[0]}.{found[1]}; set precision.float8=false")
    if find_spec("torchao") is None:
        raise UserError("precision.float8=true needs torchao; install df-train[float8] or set precision.float8=false")


def fits(module: nn.Module) -> bool:
    """Whether a linear layer's sizes allow float8."""
    assert isinstance(module, nn.Linear)
    return module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0


def to_float8(layers: list[nn.Module], *, emulate: bool = False) -> str:
    """Let the linear layers inside of `layers` compute in float8, in place; return what was done, for people.

    Args:
        emulate: round to float8 and multiply as before, for tests without such a GPU.

    Raises:
        UserError: not one has sizes that allow it.
    """
    from torchao.float8 import (  # pyright: ignore[reportMissingImports]
        Float8LinearConfig,
        convert_to_float8_training,
    )

    inside = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    fitting = sum(fits(module) for module in inside)
    if not fitting:
        raise UserError(
            f"precision.float8=true, but none of the {len(inside)} linear layers in the blocks has sizes that are "
            f"multiples of {_MULTIPLE}; set precision.float8=false"
        )
    # the number of tokens, which a weight's gradient adds over, need not be a multiple of 16 and is filled up
    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    for layer in layers:
        convert_to_float8_training(layer, config=config, module_filter_fn=lambda module, name: fits(module))
    return (
        f"float8: {fitting} of the {len(inside)} linear layers in the blocks (sizes that are multiples of "
        f"{_MULTIPLE}); all else as without it"
    )
