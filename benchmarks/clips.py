"""Datasets of random clips in the shapes that a model asks for, written by df-data's own writer."""

from __future__ import annotations

from pathlib import Path

import torch

from df_data.format.sample import EncoderRecord, Sample, SampleMeta
from df_data.format.shards import SplitWriter, staged_shards
from df_models import DualForceConfig
from df_models.text import TEXT_TOKENS
from df_models.time import latent_length

CLIPS_A_SHARD = 64
REFERENCES = 4
PATCHES = 16


def encoder_records(config: DualForceConfig) -> dict[str, EncoderRecord]:
    """The frozen models that a dataset for this model names."""
    names = {"video_vae": config.video_vae, "audio": config.audio_encoder, "reference": config.reference_encoder}
    if config.text_dim:
        names["text"] = config.text_encoder
    return {role: EncoderRecord(id=name, sha256="0") for role, name in names.items()}


def random_sample(config: DualForceConfig, index: int, frames: int, size: int) -> Sample:
    """A clip of `frames` pixel frames of noise."""
    latents, cells = latent_length(frames), size // 8
    # logmel's pairs of features are joined into one slot, those of speech models are averaged
    audio_width = config.audio_dim // 2 if config.audio_encoder == "logmel" else config.audio_dim
    tensors = {
        "video_latent": torch.randn(latents, config.latent_channels, cells, cells).half(),
        "structure": torch.randn(frames, config.structure_dim),
        "flame": torch.randn(frames, 159),
        "audio": torch.randn(2 * frames, audio_width).half(),
        "reference_latents": torch.randn(REFERENCES, config.latent_channels, cells, cells).half(),
        "reference_frames": torch.arange(REFERENCES, dtype=torch.int32) * (frames - 1) // REFERENCES,
        "reference_features": torch.randn(REFERENCES, PATCHES, config.reference_dim or 1).half(),
        "mouth_boxes": (torch.tensor([0.3, 0.55, 0.7, 0.9]) * size).repeat(frames, 1),
    }
    if config.text_dim:
        tensors["text_features"] = torch.randn(TEXT_TOKENS, config.text_dim).half()
    meta = SampleMeta(
        key=f"clip-{index:06d}",
        source="noise",
        licence="CC0-1.0",
        identity=f"nobody-{index}",
        split="train",
        num_frames=frames,
        height=size,
        width=size,
        encoders=encoder_records(config),
        prompt="noise" if config.text_dim else None,
    )
    return Sample(meta, tensors)


def write_split(config: DualForceConfig, root: Path, clips: int, frames: int, size: int) -> Path:
    """Write the dataset and return its training split."""
    shards = -(-clips // CLIPS_A_SHARD)
    writer = SplitWriter(root, "train", num_shards=shards, build="benchmark", encoders=encoder_records(config))
    staged = [writer.stage(random_sample(config, index, frames, size)) for index in range(clips)]
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    return root / "train"
