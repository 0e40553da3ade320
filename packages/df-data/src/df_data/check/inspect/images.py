"""A clip's images and audio for the page: out of its mp4, or decoded from its latents by the dataset's own VAE.

Shape legend: P pixel frames, H, W pixels, N samples of 16 kHz audio.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from df_data.build.encode import mp4_bytes
from df_data.format.sample import Sample
from df_data.format.stored_video import probe_video, read_audio, read_frames
from df_models.encoders import VideoVAE, load_video_vae
from df_models.errors import UserError

PLAYABLE = "yuv420p"
"""The pixel format that every browser plays; others are encoded anew for the page."""
TALLEST = 192
"""Pixels that a frame on the page has at most in height."""


@dataclass(frozen=True)
class ClipImages:
    """What is seen and heard of a clip.

    Attributes:
        frames: uint8 RGB ``[P, H, W, 3]``, or None if they could not be had; ``source`` says from where, or why not.
        wave: float32 ``[N]``, None without an mp4.
        video: bytes of an mp4 that browsers play, None without one.
    """

    frames: np.ndarray | None
    source: str
    wave: np.ndarray | None = None
    video: bytes | None = None


def clip_images(sample: Sample) -> ClipImages:
    """Return a sample's images; what cannot be decoded is told in ``source``, not raised."""
    try:
        return _of_video(sample.video) if sample.video is not None else _of_latents(sample)
    except UserError as error:
        return ClipImages(None, f"no images: {error}")


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def jpeg_strip(frames_PHWC: np.ndarray, indices: list[int]) -> bytes:
    """Return the chosen frames side by side as the bytes of one JPEG, shrunk to :data:`TALLEST` if they are larger."""
    from PIL import Image

    strip = Image.fromarray(np.concatenate([frames_PHWC[index] for index in indices], axis=1))
    if strip.height > TALLEST:
        strip = strip.resize((round(strip.width * TALLEST / strip.height), TALLEST))
    data = io.BytesIO()
    strip.save(data, format="JPEG", quality=85)
    return data.getvalue()


def _of_video(video: bytes) -> ClipImages:
    frames, wave = read_frames(video), read_audio(video)
    if probe_video(video).pixel_format != PLAYABLE:
        video = mp4_bytes(frames, wave, lossless=False)
    return ClipImages(frames, "images: the stored mp4", wave, video)


def _of_latents(sample: Sample) -> ClipImages:
    record = sample.meta.encoders.get("video_vae")
    if record is None:
        raise UserError("the clip has no mp4, and the dataset names no video VAE to decode its latents with")
    with torch.inference_mode():
        video_PCHW = _vae(record.id, record.sha256).decode(sample.tensors["video_latent"].float()[None])[0]
    frames = (video_PCHW.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return ClipImages(frames, f"images: decoded from the latents by {record.id} (the clip has no mp4)")


@cache
def _vae(name: str, sha256: str) -> VideoVAE:
    vae = load_video_vae(name)
    if vae.sha256 != sha256:
        raise UserError(f"the clip has no mp4, and the video VAE {name} found here is not the dataset's (its hash)")
    return vae
