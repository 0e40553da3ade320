"""What one pass through the layers needs, planned once: for a whole clip, or for a chunk against a cache.

Shape legend: B batch, T latent frames (C of a chunk, F places of a ring), N video and S = 4 structure tokens per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from df_models.attention.backends import AttentionBackend
from df_models.attention.masks import AttentionMask, FrameLayout, causal_mask
from df_models.attention.rope import aligned_time_table, slot_offsets, time_table, video_table
from df_models.model.audio import AudioWindows, HeardAudio, audio_windows
from df_models.model.block import Attend, Context, ProjectedContext
from df_models.model.cache import CachedSequence, Chunk, KVCache, Ring
from df_models.model.config import DualForceConfig
from df_models.model.fusion import Exchange
from df_models.model.sequence import SameFrame, WholeSequence
from df_models.time import SLOTS


@dataclass(frozen=True)
class Pass:
    """Per layer: how both towers attend to themselves, read their context, and exchange."""

    attend_video: Callable[[int], Attend]
    attend_structure: Callable[[int], Attend]
    context_video: Callable[[int], Context | ProjectedContext]
    context_structure: Callable[[int], Context | ProjectedContext]
    exchange: Callable[[int], Exchange]


@dataclass(frozen=True)
class Geometry:
    """The configuration and the grid of video tokens that a pass runs on."""

    config: DualForceConfig
    grid: tuple[int, int]
    device: torch.device

    @property
    def tokens(self) -> int:
        """Video tokens per latent frame."""
        return self.grid[0] * self.grid[1]

    def video(self, positions_T: Tensor, width: int, heads: int) -> Tensor:
        """Return rotations ``[T, N, P]`` of video tokens for an attention of ``heads`` heads."""
        return video_table(positions_T.to(self.device), self.grid, width // heads, self.config.rope_theta)

    def structure(self, positions_T: Tensor, frames: tuple[int, ...]) -> Tensor:
        """Return rotations ``[T, S, P]`` of structure tokens in their own tower."""
        positions = (positions_T[:, None] + slot_offsets(torch.tensor(frames))).to(self.device)
        return time_table(positions, self.config.structure.dim // self.config.structure_heads, self.config.rope_theta)

    def bridge(self, positions_T: Tensor, frames: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return rotations of video ``[T, N, P]`` and structure tokens ``[T, S, P]`` in the bridge."""
        config = self.config
        positions = (positions_T[:, None] + slot_offsets(torch.tensor(frames))).to(self.device)
        head_dim = config.bridge_width // config.bridge_heads
        return (
            self.video(positions_T, config.bridge_width, config.bridge_heads),
            aligned_time_table(positions, head_dim, config.rope_theta),
        )

    def same_frame(self, frames: tuple[int, ...]) -> tuple[Attend, Attend]:
        """Return the same-frame bridge's attention to video and to structure; times are relative to the frame."""
        config = self.config
        video = self.video(torch.zeros(1, dtype=torch.float64), config.bridge_width, config.bridge_heads)
        offsets = slot_offsets(torch.tensor(frames)).to(self.device)
        structure = aligned_time_table(offsets, config.bridge_width // config.bridge_heads, config.rope_theta)
        return SameFrame(video, structure), SameFrame(structure, video)

    def audio(self, frames: tuple[int, ...], first_slot: int, num_slots: int) -> AudioWindows:
        """Plan which slots each frame hears."""
        config = self.config
        return audio_windows(
            frames,
            first_slot,
            num_slots,
            past=config.audio_past,
            future=config.audio_future,
            head_dim=config.audio_width // config.audio_heads,
            theta=config.rope_theta,
            device=self.device,
        )


def clip_pass(
    geometry: Geometry,
    layout: FrameLayout,
    video_context: Context,
    structure_context: Context,
    audio: HeardAudio,
    backend: AttentionBackend,
) -> Pass:
    """Plan a pass over a whole clip, or over its history and noisy copies."""
    config = geometry.config
    positions = torch.tensor(layout.frames, dtype=torch.float64)
    video_rotation = geometry.video(positions, config.dim, config.num_heads)
    structure_rotation = geometry.structure(positions, layout.frames)
    video_mask = causal_mask(layout, geometry.tokens, geometry.tokens)
    structure_mask = causal_mask(layout, SLOTS, SLOTS)
    attend_video = WholeSequence(video_rotation, video_rotation, video_mask, backend)
    attend_structure = WholeSequence(structure_rotation, structure_rotation, structure_mask, backend)
    if config.bridge_mask == "frame":
        to_video, to_structure = geometry.same_frame(layout.frames)
    else:
        video, structure = geometry.bridge(positions, layout.frames)
        to_video = WholeSequence(video, structure, causal_mask(layout, geometry.tokens, SLOTS), "sdpa")
        to_structure = WholeSequence(structure, video, causal_mask(layout, SLOTS, geometry.tokens), "sdpa")
    exchange = Exchange(to_video, to_structure, audio)
    return Pass(
        lambda _layer: attend_video,
        lambda _layer: attend_structure,
        lambda _layer: video_context,
        lambda _layer: structure_context,
        lambda _layer: exchange,
    )


@dataclass
class ChunkPlan:
    """Tables and masks of one chunk against the cache; the same for all its denoising steps."""

    chunk: Chunk
    video: tuple[Tensor, Tensor]
    structure: tuple[Tensor, Tensor]
    bridge_stored: tuple[Tensor, Tensor] | None
    bridge_own: tuple[Tensor, Tensor] | None
    same_frame: tuple[Attend, Attend] | None
    masks: dict[tuple[int, int], AttentionMask | None] = field(default_factory=dict)

    def mask(self, query_tokens: int, key_tokens: int) -> AttentionMask | None:
        """Return the mask for so many tokens per frame, or None where everything stored is seen."""
        key = (query_tokens, key_tokens)
        if key not in self.masks:
            table = self.chunk.table
            self.masks[key] = None if bool(table.all()) else AttentionMask(table, query_tokens, key_tokens)
        return self.masks[key]


def plan_chunk(geometry: Geometry, cache: KVCache, frame: int, num_frames: int) -> ChunkPlan:
    """Plan a chunk, or return the plan made for it at an earlier denoising step."""
    known = cache.plans.get((frame, num_frames))
    if isinstance(known, ChunkPlan):
        return known
    chunk = cache.chunk(frame, num_frames)
    config = geometry.config
    stored, own = chunk.stored_positions, chunk.own_positions
    frame_bridge = config.bridge_mask == "frame"
    video_heads = (config.dim, config.num_heads)
    plan = ChunkPlan(
        chunk,
        (geometry.video(stored, *video_heads), geometry.video(own, *video_heads)),
        (geometry.structure(stored, chunk.stored), geometry.structure(own, chunk.frames)),
        None if frame_bridge else geometry.bridge(stored, chunk.stored),
        None if frame_bridge else geometry.bridge(own, chunk.frames),
        geometry.same_frame(chunk.frames) if frame_bridge else None,
    )
    cache.plans[(frame, num_frames)] = plan
    return plan


def chunk_pass(geometry: Geometry, cache: KVCache, plan: ChunkPlan, audio: HeardAudio, *, write: bool) -> Pass:
    """Plan a pass of one chunk against the cache."""
    chunk, tokens = plan.chunk, geometry.tokens
    span = (chunk.frames[0], chunk.frames[-1] + 1)
    device = geometry.device
    kept = (chunk.kept[0].to(device), chunk.kept[1].to(device)) if write else None

    def cached(ring: Ring, layer: int, query_tokens: int, query: Tensor, stored: Tensor, own: Tensor) -> CachedSequence:
        mask = plan.mask(query_tokens, ring.tokens)
        return CachedSequence(ring, layer, span, query, stored, own, mask, kept)

    def bridges(layer: int) -> tuple[Attend | None, Attend | None]:
        if plan.same_frame is not None:
            return plan.same_frame
        assert plan.bridge_stored is not None and plan.bridge_own is not None
        (video_stored, structure_stored), (video_own, structure_own) = plan.bridge_stored, plan.bridge_own
        to_video = to_structure = None
        if cache.bridge_to_video is not None:
            to_video = cached(cache.bridge_to_video, layer, tokens, video_own, structure_stored, structure_own)
        if cache.bridge_to_structure is not None:
            to_structure = cached(cache.bridge_to_structure, layer, SLOTS, structure_own, video_stored, video_own)
        return to_video, to_structure

    video_stored, video_own = plan.video
    structure_stored, structure_own = plan.structure
    return Pass(
        lambda layer: cached(cache.video, layer, tokens, video_own, video_stored, video_own),
        lambda layer: cached(cache.structure, layer, SLOTS, structure_own, structure_stored, structure_own),
        lambda layer: cache.video_context[layer],
        lambda layer: cache.structure_context[layer],
        lambda layer: Exchange(*bridges(layer), audio),
    )
