"""From a clip's pixels, sound and motion to the tensors of a sample, with the frozen encoders of df-models.

Shape legend: C clips, P pixel frames, S pixels a side, N samples, R reference pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from df_data.sample import EncoderRecord
from df_data.timing import stage
from df_models.encoders import (
    AudioEncoder,
    ReferenceEncoder,
    VideoVAE,
    load_audio_encoder,
    load_reference_encoder,
    load_video_vae,
)
from df_models.media import read_video, write_video


@dataclass(frozen=True)
class Encoders:
    """The frozen models that a dataset is made with."""

    video_vae: VideoVAE
    audio: AudioEncoder
    reference: ReferenceEncoder

    @classmethod
    def load(cls, video_vae: str, audio: str, reference: str) -> Encoders:
        """Load each by name, path or Hub id; the VAE in bfloat16 where the processor computes in it.

        Raises:
            UserError: one cannot be found; the message says how to get it.
        """
        vae = load_video_vae(video_vae)
        if native_bfloat16():
            vae.to(dtype=torch.bfloat16)
        return cls(vae, load_audio_encoder(audio), load_reference_encoder(reference))

    def records(self) -> dict[str, EncoderRecord]:
        """Return id and hash by role, for manifests."""
        roles = {"video_vae": self.video_vae, "audio": self.audio, "reference": self.reference}
        return {role: EncoderRecord(id=model.id, sha256=model.sha256) for role, model in roles.items()}


def native_bfloat16() -> bool:
    """Return whether the processor has bfloat16 matrix instructions, with which the VAE runs twice as fast or more."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@torch.inference_mode()
def encode_pictures(
    encoders: Encoders, frames: Sequence[np.ndarray], references: Sequence[Sequence[int]]
) -> list[dict[str, Tensor]]:
    """Encode clips of equal shape together.

    Args:
        frames: per clip uint8 ``[P, S, S, 3]``.
        references: per clip the pixel frames that are encoded alone, equally many for all.

    Returns:
        Per clip ``video_latent``, ``reference_latents``, ``reference_frames`` and ``reference_features``.
    """
    video_CPCHW = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float() / 255
    latents = encoders.video_vae.encode(video_CPCHW)
    chosen = torch.stack([video[list(pixels)] for video, pixels in zip(video_CPCHW, references)])
    pictures = encoders.video_vae.encode_image(chosen.flatten(0, 1))
    with stage("reference"):
        features = encoders.reference.encode(chosen.flatten(0, 1), pictures).unflatten(0, chosen.shape[:2])
    pictures = pictures.unflatten(0, chosen.shape[:2])
    return [
        {
            "video_latent": latents[i].half(),
            "reference_latents": pictures[i].half(),
            "reference_frames": torch.tensor(list(references[i]), dtype=torch.int32),
            "reference_features": features[i].half(),
        }
        for i in range(len(frames))
    ]


def mp4_bytes(frames_PSSC: np.ndarray, wave_N: np.ndarray, *, lossless: bool) -> bytes:
    """Return frames and 16 kHz sound as the bytes of an mp4."""
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
