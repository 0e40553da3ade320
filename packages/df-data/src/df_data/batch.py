"""A batch as training and evaluation take it: time in slots, audio pooled, a reference chosen.

Shape legend: B clips, T latent frames, S = 4 slots, h, w latent cells, R reference pictures, N reference tokens,
P pixel frames, D feature widths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from df_data.sample import Sample
from df_models.errors import UserError
from df_models.time import SPATIAL_STRIDE, pixel_length, pool_audio, to_slots


@dataclass(frozen=True)
class Clip:
    """One sample in the model's layout, all its reference pictures still there (float16 where it was stored so)."""

    key: str
    video: Tensor
    structure: Tensor
    audio: Tensor
    mouth_mask: Tensor
    reference_latents: Tensor
    reference_features: Tensor
    reference_frames: Tensor
    flame: Tensor | None
    weight: float

    @property
    def bytes(self) -> int:
        """Memory that the tensors take."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, Tensor))


@dataclass(frozen=True)
class Batch:
    """Clips of equal length.

    Attributes:
        keys: names of the samples.
        sample_ids: int64 ``[B]``, a hash of (key, epoch): what noise is keyed by.
        video: normalised latents, float32 ``[B, T, 16, h, w]``.
        structure: raw vectors, float32 ``[B, T, 4, D_s]``.
        audio: pooled features, float32 ``[B, T, 4, D_a]``.
        reference_latent: float32 ``[B, 16, h, w]``, one picture of the same clip, encoded alone.
        reference_tokens: float32 ``[B, N, D_r]``.
        reference_frame: int64 ``[B]``: 0 if the picture is pixel frame 0, whose latent frame it equals; else -1.
        mouth_mask: float32 ``[B, T, h, w]``, share of each latent cell inside the mouth box.
        weight: float32 ``[B]`` in [0, 1], how much the clip should count (soft quality problems lower it).
        flame: float32 ``[B, T, 4, 159]``, or None if a clip has none.
    """

    keys: list[str]
    sample_ids: Tensor
    video: Tensor
    structure: Tensor
    audio: Tensor
    reference_latent: Tensor
    reference_tokens: Tensor
    reference_frame: Tensor
    mouth_mask: Tensor
    weight: Tensor
    flame: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)})


def clip_of(sample: Sample, num_latent: int | None, audio_pool: Literal["mean", "concat"]) -> Clip:
    """Arrange a sample in latent frames, cut to its first ``num_latent`` (a later start would need re-encoding).

    Raises:
        UserError: the clip is shorter than that.
    """
    tensors = sample.tensors
    length = len(tensors["video_latent"]) if num_latent is None else num_latent
    if length > len(tensors["video_latent"]):
        have = len(tensors["video_latent"])
        raise UserError(f"sample {sample.key} has {have} latent frames, {length} were asked for; lower num_frames")
    pixels = pixel_length(length)
    height, width = tensors["video_latent"].shape[-2:]
    flame = tensors.get("flame")
    return Clip(
        key=sample.key,
        video=tensors["video_latent"][:length].clone(),
        structure=to_slots(tensors["structure"][:pixels]),
        audio=to_slots(pool_audio(tensors["audio"][: 2 * pixels].float(), audio_pool)).half(),
        mouth_mask=mouth_mask(to_slots(tensors["mouth_boxes"][:pixels]), height, width),
        reference_latents=tensors["reference_latents"],
        reference_features=tensors["reference_features"],
        reference_frames=tensors["reference_frames"],
        flame=None if flame is None else to_slots(flame[:pixels]),
        weight=sample.meta.weight,
    )


def mouth_mask(boxes_TS4: Tensor, height: int, width: int) -> Tensor:
    """Return float32 ``[T, h, w]``: the share of each latent cell inside the mouth box, mean over the frame's slots."""
    x0, y0, x1, y1 = (value[..., None] for value in boxes_TS4.float().unbind(-1))
    columns, rows = torch.arange(width) * SPATIAL_STRIDE, torch.arange(height) * SPATIAL_STRIDE
    across = (torch.minimum(x1, columns + SPATIAL_STRIDE) - torch.maximum(x0, columns)).clamp_min(0) / SPATIAL_STRIDE
    down = (torch.minimum(y1, rows + SPATIAL_STRIDE) - torch.maximum(y0, rows)).clamp_min(0) / SPATIAL_STRIDE
    return (down[..., :, None] * across[..., None, :]).mean(dim=1)


def collate(clips: Sequence[Clip], epochs: Sequence[int], seed: int) -> Batch:
    """Join clips; the reference picture of each is chosen by (seed, epoch, key).

    Raises:
        UserError: the clips differ in length or size.
    """
    shapes = {tuple(clip.video.shape) for clip in clips}
    if len(shapes) != 1:
        raise UserError(f"clips of different shapes {sorted(shapes)} in one batch; set num_frames to the shortest")
    picks = [
        hash_int(seed, epoch, clip.key, "reference") % len(clip.reference_frames) for clip, epoch in zip(clips, epochs)
    ]
    pictures = [int(clip.reference_frames[pick]) for clip, pick in zip(clips, picks)]
    flames = [clip.flame for clip in clips if clip.flame is not None]
    return Batch(
        keys=[clip.key for clip in clips],
        sample_ids=torch.tensor([hash_int(clip.key, epoch) for clip, epoch in zip(clips, epochs)]),
        video=torch.stack([clip.video for clip in clips]).float(),
        structure=torch.stack([clip.structure for clip in clips]).float(),
        audio=torch.stack([clip.audio for clip in clips]).float(),
        reference_latent=torch.stack([clip.reference_latents[p] for clip, p in zip(clips, picks)]).float(),
        reference_tokens=torch.stack([clip.reference_features[p] for clip, p in zip(clips, picks)]).float(),
        reference_frame=torch.tensor([0 if picture == 0 else -1 for picture in pictures]),
        mouth_mask=torch.stack([clip.mouth_mask for clip in clips]),
        weight=torch.tensor([clip.weight for clip in clips]),
        flame=torch.stack(flames) if len(flames) == len(clips) else None,
    )


def hash_int(*values: object) -> int:
    """Return a 63-bit integer that depends on the values alone: equal on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, values)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
