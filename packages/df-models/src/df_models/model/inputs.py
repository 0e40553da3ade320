"""The model's inputs: their shapes, checked with errors that say what is wrong, and the conditioning channels.

Shape legend: B batch, T latent frames, C latent channels, h and w latent height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from df_models.errors import UserError
from df_models.model.config import DualForceConfig
from df_models.model.tower import check_sigma
from df_models.time import SLOTS

MASK_CHANNELS = 4


class History(NamedTuple):
    """The past as a teacher-forced pass sees it: both streams and their noise levels, shaped like the noisy ones."""

    video: Tensor
    structure: Tensor
    sigma_video: Tensor
    sigma_structure: Tensor


def check_streams(
    config: DualForceConfig,
    video: Tensor,
    structure: Tensor,
    audio: Tensor,
    sigma_video: Tensor,
    sigma_structure: Tensor,
) -> None:
    """Raise UserError unless both streams, the audio and the noise levels fit each other and the configuration."""
    if video.ndim != 5 or video.shape[2] != config.latent_channels:
        wanted = f"[batch, frames, {config.latent_channels}, height, width]"
        raise UserError(f"video must be {wanted}, not {list(video.shape)}")
    batch, frames = video.shape[:2]
    if structure.shape[:2] != video.shape[:2]:
        raise UserError(f"structure has batch and frames {list(structure.shape[:2])}, but video {[batch, frames]}")
    fits = audio.ndim == 4 and audio.shape[0] == batch and tuple(audio.shape[2:]) == (SLOTS, config.audio_dim)
    if not fits or audio.shape[1] < frames:
        wanted = f"[{batch}, at least {frames} frames, {SLOTS}, {config.audio_dim}]"
        raise UserError(f"audio must be {wanted}, not {list(audio.shape)}")
    check_sigma("sigma_video", sigma_video, video)
    check_sigma("sigma_structure", sigma_structure, structure)


def check_future(config: DualForceConfig, audio_future: Tensor | int | None, batch: int) -> None:
    """Raise UserError unless the audio heard ahead is a number the model knows, or one number per sample."""
    if isinstance(audio_future, Tensor):
        if tuple(audio_future.shape) != (batch,):
            raise UserError(f"audio_future must be one number per sample, [{batch}], not {list(audio_future.shape)}")
    elif audio_future is not None and not 0 <= audio_future <= config.audio_future:
        raise UserError(
            f"audio_future={audio_future}, but the model hears {config.audio_future} slots ahead; "
            f"give 0 to {config.audio_future}"
        )


def check_history(history: History, noisy: History) -> None:
    """Raise UserError unless the history has the shapes of the noisy streams."""
    for name, past, now in zip(History._fields, history, noisy):
        if past.shape != now.shape:
            raise UserError(f"history.{name} must be {list(now.shape)} like {name}, not {list(past.shape)}")


def check_reference(reference_latent: Tensor, batch: int, channels: int, height: int, width: int) -> None:
    """Raise UserError unless the reference latent is ``[B, C, h, w]`` like a frame of the video."""
    wanted = [batch, channels, height, width]
    if list(reference_latent.shape) != wanted:
        raise UserError(f"reference_latent must be {wanted}, not {list(reference_latent.shape)}")


def reference_frames(reference_frame: Tensor | None, batch: int, device: torch.device) -> Tensor:
    """Return the latent frame that each sample's reference is aligned with ``[B]``, -1 where there is none."""
    if reference_frame is None:
        return torch.full((batch,), -1, dtype=torch.long, device=device)
    if tuple(reference_frame.shape) != (batch,):
        raise UserError(f"reference_frame must be one index per sample, [{batch}], not {list(reference_frame.shape)}")
    return reference_frame.to(device)


def with_reference(video: Tensor, frames: tuple[int, ...], reference_latent: Tensor, aligned_B: Tensor) -> Tensor:
    """Return ``[B, T, C + 4 + C, h, w]``: noisy latent, mask channels (1 in the aligned frame), reference latent."""
    height, width = video.shape[-2:]
    at_T = torch.tensor(frames).to(video.device)
    mask = (aligned_B[:, None] == at_T[None, :]).to(video.dtype)[:, :, None, None, None]
    mask = mask.expand(-1, -1, MASK_CHANNELS, height, width)
    reference = reference_latent.to(video.dtype)[:, None].expand(-1, len(frames), -1, -1, -1)
    return torch.cat([video, mask, reference], dim=2)
