"""The rules of time: pixel frames, latent frames, slots and positions. Nobody else computes them.

The Wan VAE is causal with temporal stride 4: ``T_pix = 1 + 4 n`` pixel frames give ``T_lat = 1 + n`` latent frames.
Latent frame 0 covers pixel frame 0 alone; latent frame k > 0 covers pixel frames ``4k-3 .. 4k``. Everything at the
pixel rate (structure, FLAME, pooled audio) has four *slots* per latent frame; the four slots of latent frame 0 all
repeat pixel frame 0 (:func:`slot_mask` marks the repeats).

Shape legend: T latent frames, P pixel frames, S = 4 slots, D features; leading dimensions are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from df_models.errors import UserError

if TYPE_CHECKING:  # a command's --help needs the numbers alone, and does not wait for torch
    from torch import Tensor

FPS = 25
TEMPORAL_STRIDE = 4
SPATIAL_STRIDE = 8
SLOTS = TEMPORAL_STRIDE
AUDIO_RATE = 50
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
AUDIO_PADDING = 80


def latent_length(num_pixel: int) -> int:
    """Return the number of latent frames of ``num_pixel`` pixel frames.

    Raises:
        UserError: ``num_pixel`` is not ``1 + 4 n``; the VAE would drop the tail silently.
    """
    if num_pixel < 1 or (num_pixel - 1) % TEMPORAL_STRIDE:
        near = valid_pixel_length(num_pixel) if num_pixel > 0 else 1
        raise UserError(f"{num_pixel} pixel frames are not 1 + 4 n; use {near} or {near + TEMPORAL_STRIDE}")
    return 1 + (num_pixel - 1) // TEMPORAL_STRIDE


def pixel_length(num_latent: int) -> int:
    """Return the number of pixel frames that ``num_latent`` latent frames decode to."""
    if num_latent < 1:
        raise UserError(f"a clip needs at least one latent frame, not {num_latent}")
    return 1 + TEMPORAL_STRIDE * (num_latent - 1)


def valid_pixel_length(num_pixel: int) -> int:
    """Return the largest ``1 + 4 n`` that is at most ``num_pixel``."""
    if num_pixel < 1:
        raise UserError(f"a clip needs at least one pixel frame, not {num_pixel}")
    return 1 + TEMPORAL_STRIDE * ((num_pixel - 1) // TEMPORAL_STRIDE)


def covering_pixel_length(num_pixel: int) -> int:
    """Return the smallest ``1 + 4 n`` that is at least ``num_pixel``."""
    if num_pixel < 1:
        raise UserError(f"a clip needs at least one pixel frame, not {num_pixel}")
    return pixel_length(latent_of_pixel(num_pixel - 1) + 1)


def latent_of_pixel(pixel: int) -> int:
    """Return the latent frame that covers a pixel frame."""
    return -(-pixel // TEMPORAL_STRIDE)


def pixels_of_latent(latent: int) -> range:
    """Return the pixel frames that a latent frame covers (one for frame 0, four for any other)."""
    return range(1) if latent == 0 else range(TEMPORAL_STRIDE * latent - 3, TEMPORAL_STRIDE * latent + 1)


def samples_for(num_pixel: int) -> int:
    """Return the number of 16 kHz samples that ``num_pixel`` pixel frames last."""
    return SAMPLES_PER_FRAME * num_pixel


def to_slots(x_PD: Tensor) -> Tensor:
    """Arrange a pixel-rate sequence ``[..., P, D]`` in slots ``[..., T, 4, D]``; frame 0 is repeated four times."""
    import torch

    num_latent = latent_length(x_PD.shape[-2])
    first = x_PD[..., :1, :].expand(*x_PD.shape[:-2], SLOTS - 1, x_PD.shape[-1])
    return torch.cat([first, x_PD], dim=-2).unflatten(-2, (num_latent, SLOTS))


def from_slots(x_TSD: Tensor) -> Tensor:
    """Undo :func:`to_slots`: ``[..., T, 4, D]`` to ``[..., P, D]``; the repeats of frame 0 are left out."""
    return x_TSD[..., slot_mask(x_TSD.shape[-3]), :]


def slot_mask(num_latent: int) -> Tensor:
    """Return bool ``[T, 4]``: False at the three slots of latent frame 0 that only repeat pixel frame 0."""
    import torch

    mask_TS = torch.ones(num_latent, SLOTS, dtype=torch.bool)
    mask_TS[0, : SLOTS - 1] = False
    return mask_TS


def video_positions(num_latent: int, first: int = 0) -> Tensor:
    """Return the temporal position of each latent frame, float64 ``[T]``, in latent-frame units."""
    import torch

    return torch.arange(first, first + num_latent, dtype=torch.float64)


def slot_positions(num_latent: int, first: int = 0) -> Tensor:
    """Return the temporal position of each slot, float64 ``[T, 4]``: ``pixel_index / 4``, in latent-frame units."""
    import torch

    frames_T1 = video_positions(num_latent, first)[:, None]
    offsets_S = torch.arange(1 - SLOTS, 1, dtype=torch.float64) / TEMPORAL_STRIDE
    return (frames_T1 + offsets_S).clamp_min(0.0)


def pooled_width(dim: int, mode: Literal["mean", "concat"]) -> int:
    """Return the width of a slot of pooled audio features that are ``dim`` wide."""
    return 2 * dim if mode == "concat" else dim


def pool_audio(features_AD: Tensor, mode: Literal["mean", "concat"]) -> Tensor:
    """Pool 50 Hz audio features ``[..., 2P, D]`` to one vector per pixel frame.

    ``mean`` gives ``[..., P, D]``; ``concat`` keeps both halves of the frame, ``[..., P, 2D]``.
    """
    if features_AD.shape[-2] % 2:
        raise UserError(f"{features_AD.shape[-2]} audio features are not two per pixel frame")
    pairs = features_AD.unflatten(-2, (-1, 2))
    if mode == "mean":
        return pairs.mean(dim=-2)
    if mode == "concat":
        return pairs.flatten(-2)
    raise UserError(f"unknown audio pooling {mode!r}; use 'mean' or 'concat'")
