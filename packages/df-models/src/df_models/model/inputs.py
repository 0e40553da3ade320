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
    """The past as a teacher-forced pass sees it: both streams and their noise levels, shaped like the noisy ones.

    A stream that the model lacks has width 0 and is not looked at.
    """

    video: Tensor
    structure: Tensor
    sigma_video: Tensor
    sigma_structure: Tensor


class Inputs(NamedTuple):
    """Streams, audio and noise levels of a pass, all there: what the model lacks has width 0 and level 0."""

    video: Tensor
    structure: Tensor
    audio: Tensor
    sigma_video: Tensor
    sigma_structure: Tensor


def checked_inputs(
    config: DualForceConfig,
    video: Tensor | None,
    structure: Tensor | None,
    audio: Tensor | None,
    sigma_video: Tensor | None,
    sigma_structure: Tensor | None,
) -> Inputs:
    """Return streams, audio and noise levels, checked against each other and the configuration.

    Raises:
        UserError: a stream or the audio is missing, was given to a model without it, or has another shape.
    """
    video = _present("video", video, config.has_video, 2)
    structure = _present("structure", structure, config.has_structure, -1)
    audio = _present("audio", audio, config.audio_dim > 0, -1)
    if video is not None and (video.ndim != 5 or video.shape[2] != config.latent_channels):
        wanted = f"[batch, frames, {config.latent_channels}, height, width]"
        raise UserError(f"video must be {wanted}, not {list(video.shape)}")
    stream = video if structure is None else structure
    assert stream is not None
    if video is not None and stream.shape[:2] != video.shape[:2]:
        raise UserError(f"structure has batch and frames {list(stream.shape[:2])}, but video {list(video.shape[:2])}")
    batch, frames = stream.shape[:2]
    none = stream.new_zeros
    if audio is None:
        audio = none(batch, frames, SLOTS, 0)
    check_audio(config, audio, batch, frames)
    return Inputs(
        none(batch, frames, 0, 0, 0) if video is None else video,
        none(batch, frames, SLOTS, 0) if structure is None else structure,
        audio,
        _level("sigma_video", sigma_video, stream, there=video is not None),
        _level("sigma_structure", sigma_structure, stream, there=structure is not None),
    )


def check_audio(config: DualForceConfig, audio: Tensor, batch: int, frames: int) -> None:
    """Raise UserError unless audio is that of a batch of so many latent frames, or more."""
    fits = audio.ndim == 4 and audio.shape[0] == batch and tuple(audio.shape[2:]) == (SLOTS, config.audio_dim)
    if not fits or audio.shape[1] < frames:
        wanted = f"[{batch}, at least {frames} frames, {SLOTS}, {config.audio_dim}]"
        raise UserError(f"audio must be {wanted}, not {list(audio.shape)}")


def _present(name: str, value: Tensor | None, wanted: bool, axis: int) -> Tensor | None:
    """Return an input that the model has, None for one that it lacks: given as None, or with no channels."""
    if wanted and value is None:
        raise UserError(f"the model needs {name}, but there is none")
    if wanted or value is None:
        return value
    if value.ndim > 2 and value.shape[axis] == 0:
        return None
    raise UserError(f"{name} was given, but this model has none; leave it out (None)")


def _level(name: str, sigma: Tensor | None, stream: Tensor, *, there: bool) -> Tensor:
    """Return the noise level of a stream that is there, checked; 0 of one that is not."""
    if not there:
        return torch.zeros(stream.shape[:2], device=stream.device)
    if sigma is None:
        raise UserError(f"the model needs {name}, but there is none")
    check_sigma(name, sigma, stream)
    return sigma


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


def behind_history(history: History, noisy: Inputs) -> Inputs:
    """Return the noisy streams behind those of the history.

    Raises:
        UserError: the history has not the shapes of the noisy streams.
    """
    joined: dict[str, Tensor] = {}
    for name, past in history._asdict().items():
        now = getattr(noisy, name)
        lacks = noisy.video.shape[2] == 0 if name.endswith("video") else noisy.structure.shape[-1] == 0
        past = now if lacks else past
        if past.shape != now.shape:
            raise UserError(f"history.{name} must be {list(now.shape)} like {name}, not {list(past.shape)}")
        joined[name] = torch.cat([past, now], dim=1)
    return noisy._replace(**joined)


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


def aligned_frames(frames: tuple[int, ...], aligned_B: Tensor) -> Tensor:
    """Return bool ``[B, T]``: which of the latent ``frames`` each sample's reference image is aligned with."""
    return aligned_B[:, None] == torch.tensor(frames).to(aligned_B.device)[None, :]


def with_reference(video: Tensor, reference_latent: Tensor, aligned_BT: Tensor) -> Tensor:
    """Return ``[B, T, C + 4 + C, h, w]``: noisy latent, mask channels (1 in the aligned frame), reference latent."""
    height, width = video.shape[-2:]
    mask = aligned_BT.to(video.dtype)[:, :, None, None, None].expand(-1, -1, MASK_CHANNELS, height, width)
    reference = reference_latent.to(video.dtype)[:, None].expand(-1, video.shape[1], -1, -1, -1)
    return torch.cat([video, mask, reference], dim=2)
