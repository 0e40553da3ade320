"""What a generator or a codec may do to an image, so that the reader is used to it.

Shapes: B batch, H, W pixels; images are float ``[B, 3, H, W]`` in [0, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
"""Quantisation of JPEG's brightness, ITU-T T.81 annex K."""


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur with a standard deviation in pixels; 0 returns the input."""
    if sigma <= 0:
        return images
    radius = max(1, math.ceil(3 * sigma))
    grid = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (grid / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=3)
    return F.conv2d(rows, kernel[:, :, :, None], groups=3)


def coarsen(images: Tensor, factor: float) -> Tensor:
    """Shrink by ``factor`` and enlarge again."""
    size = images.shape[-2:]
    small = [max(8, round(s / factor)) for s in size]
    shrunk = F.interpolate(images, size=small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(shrunk, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


def quantize_blocks(images: Tensor, strength: float) -> Tensor:
    """Round the 8x8 cosine coefficients as JPEG does; ``strength`` 1 is JPEG quality 50. H and W divisible by 8."""
    k = torch.arange(8, dtype=torch.float32)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    batch, channels, height, width = images.shape
    blocks = images.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    table = _LUMINANCE * strength / 255.0
    coefficients = basis @ (blocks - 0.5) @ basis.T
    rounded = torch.round(coefficients / table) * table
    restored = basis.T @ rounded @ basis + 0.5
    return restored.transpose(3, 4).reshape(images.shape).clamp(0, 1)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def degrade(images: Tensor, generator: torch.Generator, group: int = 16) -> Tensor:
    """Random blur, coarsening, block noise, local blur, exposure and pixel noise, drawn anew for every ``group``."""
    return torch.cat([_degrade_group(part, generator) for part in images.split(group)])


def _degrade_group(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)
    draw = _uniform(generator, 0, 1, 6).tolist()
    if draw[0] < 0.55:
        images = gaussian_blur(images, 2.1 * draw[0] / 0.55)
    if draw[1] < 0.25:
        images = coarsen(images, 1 + 1.4 * draw[1] / 0.25)
    if draw[2] < 0.2:
        images = quantize_blocks(images, 0.15 + 0.9 * draw[2] / 0.2)
    if draw[3] < 0.25:
        images = _blur_somewhere(images, generator, 0.5 + 1.5 * draw[3] / 0.25)
    if draw[4] < 0.6:
        gain, shift = _uniform(generator, 0.85, 1.15, count, 3, 1, 1), _uniform(generator, -0.05, 0.05, count, 1, 1, 1)
        gain = 0.7 * gain.mean(1, keepdim=True) + 0.3 * gain
        images = (images - 0.5) * gain + 0.5 + shift
    if draw[5] < 0.5:
        images = images + 0.06 * draw[5] / 0.5 * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1)


def _blur_somewhere(images: Tensor, generator: torch.Generator, sigma: float) -> Tensor:
    """Blur one soft-edged spot of each image, most often where the mouth is."""
    count, _, height, width = images.shape
    x = _uniform(generator, 0.3, 0.7, count, 1, 1)
    y = _uniform(generator, 0.35, 0.95, count, 1, 1)
    radius = _uniform(generator, 0.12, 0.3, count, 1, 1)
    ys = ((torch.arange(height) + 0.5) / height)[None, :, None]
    xs = ((torch.arange(width) + 0.5) / width)[None, None]
    mask = torch.sigmoid(8 * (1 - ((xs - x) ** 2 + (ys - y) ** 2) / radius**2))[:, None]
    return images + mask * (gaussian_blur(images, sigma) - images)


def negatives(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Images that are no face of the corpus, made from faces ``[B, 3, 64, 64]``: one of five kinds each."""
    out = []
    for number, face in enumerate(faces):
        kind = number % 5
        if kind == 0:
            out.append(_shuffled(face, generator))
        elif kind == 1:
            out.append(gaussian_blur(face[None], 5.0 + 8.0 * float(_uniform(generator, 0, 1, 1)))[0])
        elif kind == 2:
            out.append(torch.flip(face, dims=[-2]))
        elif kind == 3:
            coarse = torch.rand(1, 3, *[int(2 ** float(_uniform(generator, 1, 5, 1)))] * 2, generator=generator)
            out.append(F.interpolate(coarse, size=face.shape[-2:], mode="bicubic", align_corners=False)[0].clamp(0, 1))
        else:
            edge = torch.cat([face[:, :, :6], face[:, :, -6:]], dim=2)
            out.append(F.interpolate(edge[None], size=face.shape[-2:], mode="bilinear", align_corners=False)[0])
    return torch.stack(out)


def _shuffled(face: Tensor, generator: torch.Generator) -> Tensor:
    tiles = face.unfold(1, 16, 16).unfold(2, 16, 16).reshape(3, 16, 16, 16)
    tiles = tiles[:, torch.randperm(16, generator=generator)]
    return tiles.reshape(3, 4, 4, 16, 16).permute(0, 1, 3, 2, 4).reshape(face.shape)
