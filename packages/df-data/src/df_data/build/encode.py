"""From a clip's pixels, audio and motion to the tensors of a sample, with the frozen encoders of df-models.

Shape legend: C clips, P pixel frames, T latent frames, S pixels a side, h = S/8, N samples, R reference images,
D width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from df_data.common.timing import stage
from df_data.format.sample import EncoderRecord
from df_models.encoders import (
    AudioEncoder,
    ReferenceEncoder,
    VideoVAE,
    load_audio_encoder,
    load_reference_encoder,
    load_video_vae,
)
from df_models.machine import PrecisionName, choose_precision
from df_models.media import read_video, write_video
from df_models.settings import FrozenModel

T = TypeVar("T")
PIXELS_AT_ONCE = 33
"""Pixel frames of a clip that the VAE is given at a time (1 + 4n; it keeps the past, so the latents are the same)."""


class EncoderBatches(FrozenModel):
    """How much one call of an encoder gets. It bounds the memory; the last bits of what comes out depend on it.

    Attributes:
        clips: clips of the video VAE.
        images: reference images of the VAE and of the reference encoder.
        faces: faces of the motion extractor and of the FLAME encoder.
    """

    clips: int = Field(default=4, ge=1)
    images: int = Field(default=16, ge=1)
    faces: int = Field(default=16, ge=1)


@dataclass(frozen=True)
class Encoders:
    """The frozen models that a dataset is made with; general video has no audio encoder."""

    video_vae: VideoVAE
    audio: AudioEncoder | None
    reference: ReferenceEncoder

    @classmethod
    def load(
        cls,
        video_vae: str,
        audio: str | None,
        reference: str,
        *,
        device: str = "cpu",
        precision: PrecisionName = "auto",
    ) -> Encoders:
        """Load each by name, path or Hub id.

        Args:
            device: where they compute.
            precision: ``auto``: the VAE in what :func:`df_models.machine.choose_precision` says, the rest in float32;
                else all that have weights in this one. (Log-mel has none; faces are always read in float32.)

        Raises:
            UserError: one cannot be found; the message says how to get it.
        """
        vae = load_video_vae(video_vae)
        hears, sees = None if audio is None else load_audio_encoder(audio), load_reference_encoder(reference)
        vae.to(dtype=choose_precision(precision, device).dtype)
        dtype = torch.bfloat16 if precision == "bfloat16" else None
        hears = None if hears is None else hears.to(device=device, dtype=dtype)
        return cls(vae.to(device=device), hears, sees.to(device=device, dtype=dtype))

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash by role, for manifests."""
        heard = {} if self.audio is None else {"audio": self.audio}
        roles = {"video_vae": self.video_vae, **heard, "reference": self.reference}
        return {role: EncoderRecord(id=model.id, sha256=model.sha256) for role, model in roles.items()}


@torch.inference_mode()
def encode_images(
    encoders: Encoders,
    frames: Sequence[np.ndarray],
    references: Sequence[Sequence[int]],
    batches: EncoderBatches | None = None,
) -> list[dict[str, Tensor]]:
    """Encode clips of equal shape.

    Args:
        frames: per clip uint8 ``[P, S, S, 3]``.
        references: per clip the pixel frames that are encoded alone, equally many for all.
        batches: how many at a time; None: all together.

    Returns:
        Per clip ``video_latent``, ``reference_latents``, ``reference_frames`` and ``reference_features``.
    """
    chosen = [clip[pixel] for clip, pixels in zip(frames, references, strict=True) for pixel in pixels]
    batches = batches or EncoderBatches(clips=len(frames), images=len(chosen))
    latents = torch.cat([_encode_clips(encoders.video_vae, part) for part in _parts(frames, batches.clips)])
    stills, features = zip(*(_encode_stills(encoders, part) for part in _parts(chosen, batches.images)))
    stills = torch.cat(stills).unflatten(0, (len(frames), -1))
    features = torch.cat(features).unflatten(0, (len(frames), -1))
    return [
        {
            "video_latent": latents[i].clone(),
            "reference_latents": stills[i].clone(),
            "reference_frames": torch.tensor(list(references[i]), dtype=torch.int32),
            "reference_features": features[i].clone(),
        }
        for i in range(len(frames))
    ]


def _encode_clips(vae: VideoVAE, clips: Sequence[np.ndarray]) -> Tensor:
    """Return latents float16 ``[C, T, 16, h, h]``, in a memory that does not grow with the clips' length."""
    session, num_frames = vae.encoder_session(), len(clips[0])
    ends = list(range(PIXELS_AT_ONCE, num_frames, PIXELS_AT_ONCE - 1))
    spans = zip([0, *ends], [*ends, num_frames])
    latents = [session.encode(_unit_range([clip[begin:end] for clip in clips])).half().cpu() for begin, end in spans]
    return torch.cat(latents, dim=1)


def _encode_stills(encoders: Encoders, stills: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Return latents float16 ``[R, 16, h, h]`` and features float16 ``[R, N, D]`` of images ``[S, S, 3]``."""
    pixels = _unit_range(stills)
    latents = encoders.video_vae.encode_image(pixels)
    with stage("reference"):
        features = encoders.reference.encode(pixels, latents).half().cpu()
    return latents.half().cpu(), features


def _unit_range(stills: Sequence[np.ndarray]) -> Tensor:
    """Return uint8 images ``[..., S, S, 3]`` as one float32 ``[n, ..., 3, S, S]`` in [0, 1]."""
    return torch.from_numpy(np.stack(stills)).movedim(-1, -3).float() / 255


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def mp4_bytes(frames_PSSC: np.ndarray, wave_N: np.ndarray | None, *, lossless: bool) -> bytes:
    """Return frames and 16 kHz audio, if there is any, as the bytes of an mp4."""
    with tempfile.TemporaryDirectory(prefix="df-data-") as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames_PSSC, audio=wave_N, lossless=lossless)
        return path.read_bytes()


def mp4_frames(video: bytes) -> np.ndarray:
    """Return all frames of an mp4's bytes as uint8 ``[P, H, W, 3]``.

    Raises:
        UserError: the bytes are no video.
    """
    with tempfile.TemporaryDirectory(prefix="df-data-") as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(video)
        return read_video(path)[0]
