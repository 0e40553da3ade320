"""How long the clips are that a run's training sees, in latent frames."""

from __future__ import annotations

from df_data.format.manifest import Manifest
from df_models.time import latent_length
from df_train.config import DataConfig


def shortest_clip(data: DataConfig, manifest: Manifest | None) -> int:
    """The shortest of them; 0 if nothing tells.

    Args:
        manifest: of the training split; None for a synthetic corpus that is still to be made.
    """
    return min(_lengths(data, manifest), default=0)


def longest_clip(data: DataConfig, manifest: Manifest | None) -> int:
    """The longest of them, with the same argument; 0 if nothing tells."""
    return max(_lengths(data, manifest), default=0)


def _lengths(data: DataConfig, manifest: Manifest | None) -> list[int]:
    """What clips are cut to; of clips that are taken whole, what the dataset says."""
    if data.buckets is not None:
        return list(data.buckets)
    if data.num_frames is not None:
        return [data.num_frames]
    if manifest is not None and manifest.shards:
        return [latent_length(pixels) for shard in manifest.shards for pixels in (shard.shortest, shard.longest)]
    return [] if data.synth is None else [latent_length(data.synth.frames)]
