"""Matrix products in float8, through torchao (extra ``df-models[float8]``), which is loaded on demand.

Both factors are rounded to 8 bits with a scale (Micikevicius et al., "FP8 Formats for Deep Learning", 2022). Here is
what generation and training share, and generation: weights are rounded once, a scale for each output, and what comes in
at every product, a scale for each token; sums are float32. How it is trained: ``df_train.float8``.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

import torch
from torch import nn

from df_models.errors import UserError

_CAPABILITY = (8, 9)
"""Ada and Hopper: the first with matrix instructions for float8."""
MULTIPLE = 16
"""Both sizes of a matrix product in float8 must be multiples of it (`torch._scaled_mm`)."""
_LEAST = 1e-12
"""What a token's largest value counts as at least: its scale divides, and a token may be all zeros."""


def check_float8(device: torch.device, asked: str, instead: str, extra: str) -> None:
    """Float8 can be computed here.

    Args:
        asked: the setting that asks for it; ``instead``: what to do without; ``extra``: what installs torchao.

    Raises:
        UserError: the device cannot, or torchao is not installed.
    """
    needs = f"{asked} needs a GPU of compute capability 8.9 or higher (H100, H200, L40S)"
    if device.type != "cuda":
        raise UserError(f"{needs}; the device is {device.type}; {instead}")
    found = torch.cuda.get_device_capability(device)
    if found < _CAPABILITY:
        raise UserError(f"{needs}; this one has {found[0]}.{found[1]}; {instead}")
    if find_spec("torchao") is None:
        raise UserError(f"{asked} needs torchao; install {extra} or {instead}")


def fits(module: nn.Module) -> bool:
    """Whether a module is a linear layer whose sizes allow float8."""
    if not isinstance(module, nn.Linear):
        return False
    return module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0


def check_any_fits(layers: Iterable[nn.Module], asked: str, instead: str) -> str:
    """Return how many linear layers inside of ``layers`` become float8, for people.

    Raises:
        UserError: not one has sizes that allow it.
    """
    inside = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    fitting = sum(fits(module) for module in inside)
    if not fitting:
        raise UserError(
            f"{asked}, but none of the {len(inside)} linear layers in the blocks has sizes that are multiples of "
            f"{MULTIPLE}; {instead}"
        )
    return (
        f"float8: {fitting} of the {len(inside)} linear layers in the blocks (sizes that are multiples of "
        f"{MULTIPLE}); all else as without it"
    )


def generate_in_float8(layers: list[nn.Module]) -> None:
    """Round the weights of the linear layers inside of ``layers`` to float8, in place; they can be trained no more.

    It comes before :meth:`df_models.DualForce.compile_step`, whose graphs do not see it. A layer with an output whose
    weights are all zeros, which has no scale, stays as it is.

    Args:
        layers: in bfloat16.

    Raises:
        UserError: not one has sizes that allow it.
    """
    from torchao.float8.inference import Float8MMConfig  # pyright: ignore[reportMissingImports]
    from torchao.quantization import (  # pyright: ignore[reportMissingImports]
        Float8DynamicActivationFloat8WeightConfig,
        PerRow,
        quantize_,
    )
    from torchao.quantization.quantize_.common import KernelPreference  # pyright: ignore[reportMissingImports]

    check_any_fits(layers, "dtype float8", "use bfloat16")
    config = Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow(),
        mm_config=Float8MMConfig(use_fast_accum=False),
        activation_value_lb=_LEAST,
        kernel_preference=KernelPreference.TORCH,  # others are taken where they are installed
        set_inductor_config=False,  # it would change how everything of this process is compiled
    )
    for layer in layers:
        quantize_(layer, config, filter_fn=lambda module, name: fits(module) and _has_scales(module))


def _has_scales(module: nn.Module) -> bool:
    """Whether each output of a linear layer has weights that are not zero."""
    assert isinstance(module, nn.Linear)
    return bool((module.weight != 0).any(dim=1).all())
