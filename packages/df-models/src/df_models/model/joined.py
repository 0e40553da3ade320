"""Layers that read the same input, as one product: their weights lie one below the other in memory.

Self-attention's queries, keys and values are three small products of one input, and an exchange's are four of each
stream. Where their parameters lie together, one product makes them all. Nothing is kept beside the parameters, which
are views of the common memory: a change in place (an adapter that is added, weights that are loaded) changes it too,
and parameters that were moved, cast, copied or replaced no longer lie together, which :func:`join` sees and mends.

Shape legend: O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Joined(NamedTuple):
    """Weights ``[sum of O, I]`` and biases ``[sum of O]`` of several layers, in their order."""

    weight: Tensor
    bias: Tensor


class JoinedLayers(NamedTuple):
    """What lies together in a model, by the index of the layer; None where a layer's products are to be made alone.

    Attributes:
        video, structure: queries, keys and values of the towers' self-attention.
        from_video, from_structure: what the exchanges read of each stream.
    """

    video: list[Joined | None]
    structure: list[Joined | None]
    from_video: list[Joined | None]
    from_structure: list[Joined | None]


def products(x_I: Tensor, layers: Mapping[str, nn.Linear], joined: Joined | None) -> dict[str, Tensor]:
    """Return what each layer makes of ``x``, by its name: in one product if :func:`join` joined them, else by each."""
    if joined is None:
        return {name: layer(x_I) for name, layer in layers.items()}
    made = F.linear(x_I, joined.weight, joined.bias)
    return dict(zip(layers, made.split([layer.out_features for layer in layers.values()], dim=-1)))


def join(layers: Mapping[str, nn.Linear]) -> Joined | None:
    """Return the layers' parameters as one weight and one bias, in memory that they share.

    Parameters that do not lie together yet are laid so; they keep their values and stay the same objects.

    Returns:
        None where there is nothing to join: less than two layers, one that is not plain (of a low-rank adapter in
        training, of a float8 module) or has no bias, other widths of input, parameters of several dtypes or devices,
        or made in inference mode, where none can be laid elsewhere.
    """
    parts = list(layers.values())
    if len(parts) < 2 or not all(type(part) is nn.Linear for part in parts):
        return None
    parameters = [parameter for part in parts for parameter in (part.weight, part.bias)]
    if not all(type(parameter) is nn.Parameter for parameter in parameters):
        return None
    if any(parameter.is_inference() for parameter in parameters) or len({part.in_features for part in parts}) > 1:
        return None
    if len({(parameter.dtype, parameter.device) for parameter in parameters}) > 1:
        return None
    return Joined(_together([part.weight for part in parts]), _together([part.bias for part in parts]))


@torch.no_grad()
def _together(parts: Sequence[Tensor]) -> Tensor:
    """Return the parameters one below the other, in memory that they share."""
    rows = [len(part) for part in parts]
    first, size = parts[0], (sum(rows), *parts[0].shape[1:])
    if not _lie_together(parts):
        with torch.inference_mode(False):  # parameters are used outside of inference mode as well
            whole = torch.cat([part.detach() for part in parts])
            for part, view in zip(parts, whole.split(rows)):
                part.data = view
    return first.detach().as_strided(size, (*[size[-1]] * (len(size) - 1), 1))


def _lie_together(parts: Sequence[Tensor]) -> bool:
    first = parts[0]
    storage, element = first.untyped_storage().data_ptr(), first.element_size()
    begins = accumulate([part.numel() * element for part in parts], initial=first.data_ptr())
    return all(
        part.is_contiguous() and part.untyped_storage().data_ptr() == storage and part.data_ptr() == begin
        for part, begin in zip(parts, begins)
    )
