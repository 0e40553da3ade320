"""The Wan 2.1 VAE's original checkpoint, ``Wan2.1_VAE.pth``: its tensors' names turned into diffusers'.

Sources: ``Encoder3d`` and ``Decoder3d`` in Wan-Video/Wan2.1 ``wan/modules/vae.py`` for the one layout,
``AutoencoderKLWan`` for the other; huggingface/diffusers ``scripts/convert_wan_to_diffusers.py`` pairs them alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ORIGINAL_NAME = "encoder.conv1.weight"
"""A tensor that only the original layout has."""

BLOCKS_PER_SCALE = 4
"""The original decoder's blocks are one list: three residual blocks and a resampler for each scale."""

_RULES = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.", ".down_blocks."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


def to_diffusers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors under diffusers' names; those that have them already, or unknown ones, keep theirs."""
    if ORIGINAL_NAME not in tensors:
        return dict(tensors)
    return {diffusers_name(name): tensor for name, tensor in tensors.items()}


def diffusers_name(name: str) -> str:
    """Return diffusers' name of one tensor of the original checkpoint."""
    name = re.sub(r"\.upsamples\.(\d+)\.", _up_block, name)
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _up_block(match: re.Match[str]) -> str:
    scale, block = divmod(int(match[1]), BLOCKS_PER_SCALE)
    part = "upsamplers.0" if block == BLOCKS_PER_SCALE - 1 else f"resnets.{block}"
    return f".up_blocks.{scale}.{part}."
