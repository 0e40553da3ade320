"""Scales of float8 checkpoints: a stored weight times its scale is the weight.

Known layouts, all with one scale per tensor or per row: ComfyUI's ``fp8_scaled`` files (``X.scale_weight`` beside
``X.weight``, a marker ``scaled_fp8``, sometimes ``X.scale_input`` for activations: Comfy-Org/Wan_2.1_ComfyUI_repackaged
and, in the same names, Kijai/WanVideo_comfy) and its later ones (``X.weight_scale``, ``X.input_scale``,
``X.comfy_quant``). Float8 files without any scale hold weights that were simply cast; they are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from df_models.errors import UserError

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
MARKER = "scaled_fp8"
_WEIGHT_SCALES = (".scale_weight", ".weight_scale")
_FOR_KERNELS = (".scale_input", ".input_scale", ".comfy_quant")
"""What float8 matrix products need beside the weights."""


def split_scales(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Return the weights, the scale of each scaled weight by its name, and the names that say nothing else.

    Raises:
        UserError: a scale has no weight or a shape that is not known, or float8 weights lack theirs.
    """
    weights, scales, said = {}, {}, []
    for name, tensor in found.items():
        suffix = next((s for s in _WEIGHT_SCALES if name.endswith(s)), None)
        if suffix is not None:
            scales[name.removesuffix(suffix) + ".weight"] = tensor
            said.append(name)
        elif name == MARKER or name.endswith(_FOR_KERNELS):
            said.append(name)
        else:
            weights[name] = tensor
    for name, scale in scales.items():
        _check_scale(name, scale, weights.get(name))
    if scales or MARKER in found:
        bare = [name for name, tensor in weights.items() if tensor.dtype in FLOAT8 and name not in scales]
        if bare:
            raise UserError(
                f"{bare[0]} has no scale in a checkpoint of scaled float8 weights ({len(bare)} such); "
                "give the bf16, fp16 or fp32 file"
            )
    return weights, scales, tuple(said)


def scaled(tensor: Tensor, scale: Tensor | None) -> Tensor:
    """Return the weight that a stored tensor and its scale stand for; float32 where there is a scale."""
    if scale is None:
        return tensor
    rows = scale.float().reshape(-1, *(1,) * (tensor.ndim - 1)) if scale.numel() > 1 else scale.float().reshape(())
    return tensor.float() * rows


def _check_scale(name: str, scale: Tensor, weight: Tensor | None) -> None:
    if weight is None:
        raise UserError(f"the checkpoint has a scale for {name} but not the weight; give the bf16, fp16 or fp32 file")
    per_row = scale.numel() == weight.shape[0] and scale.shape[0] == weight.shape[0]
    if scale.numel() != 1 and not per_row:
        raise UserError(
            f"the scale of {name} is {list(scale.shape)}, not one number or one per row of {list(weight.shape)}; "
            "give the bf16, fp16 or fp32 file"
        )
    if not bool(torch.isfinite(scale.float()).all()) or not bool((scale.float() > 0).all()):
        raise UserError(f"the scale of {name} is not positive and finite; the file is damaged, fetch it again")
