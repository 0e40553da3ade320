"""Real videos for the tokenizer: the mp4 crops that a dataset of `df-data build` keeps beside its tensors.

Shape legend: N clips, P pixel frames, H, W pixels.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from df_data.build.encode import mp4_frames
from df_data.format.manifest import read_manifest
from df_data.format.shards import iter_samples
from df_models.errors import UserError
from df_train.tokenizer.config import TokenizerDataConfig
from df_train.tokenizer.data import Pool


def video_pools(data: TokenizerDataConfig, shards: Path) -> tuple[Pool, dict[str, Pool]]:
    """Return the dataset's training clips, and its validation clips as ``held out``.

    Raises:
        UserError: no such dataset, one of another size, or without a clip of the wanted length that has its mp4.
    """
    train = _pool(shards / "train", data.clips, data.frames, data.size)
    return train, {"held out": _pool(shards / "val", data.val_clips, data.val_frames, data.size)}


def check_size(split: Path, size: int) -> None:
    """Raise UserError unless there is such a split and its clips are ``size`` pixels a side."""
    manifest = read_manifest(split)
    if (manifest.height, manifest.width) != (size, size):
        raise UserError(f"{split} holds clips of {manifest.width}x{manifest.height} pixels; set data.size to theirs")


def _pool(split: Path, count: int, num_frames: int, size: int) -> Pool:
    check_size(split, size)
    found = (
        (s.video, s.tensors["mouth_boxes"][:num_frames])
        for s in iter_samples(split)
        if s.video is not None and s.meta.num_frames >= num_frames
    )
    clips = [(mp4_frames(video)[:num_frames], boxes) for video, boxes in islice(found, count)]
    if not clips:
        raise UserError(
            f"{split} holds no clip of {num_frames} frames with its mp4; build it with keep_video: true, "
            "or ask for fewer frames (data.frames, data.val_frames)"
        )
    return Pool(np.stack([frames for frames, _ in clips]), np.stack([boxes.numpy()[:, None] for _, boxes in clips]))
