"""Matrix products of the layers in float8, by torchao's dynamic scaling (`precision.float8`).

Each product rounds its two factors to 8 bits with one scale per tensor, worked out from the tensor itself: e4m3
forward, e5m2 for gradients (`df_models.float8` has the source, and what devices and layers can). Parameters, optimizer,
average and checkpoints stay what they are.
"""

from __future__ import annotations

import torch
from torch import nn

from df_models import float8

_ASKED, _INSTEAD = "precision.float8=true", "set precision.float8=false"


def check_float8(device: torch.device) -> None:
    """Float8 can be computed here.

    Raises:
        UserError: the device cannot, or torchao is not installed.
    """
    float8.check_float8(device, _ASKED, _INSTEAD, "df-train[float8]")


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

    told = float8.check_any_fits(layers, _ASKED, _INSTEAD)
    # the number of tokens, which a weight's gradient adds over, need not be a multiple of 16 and is filled up
    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    for layer in layers:
        convert_to_float8_training(layer, config=config, module_filter_fn=lambda module, name: float8.fits(module))
    return told
