"""What one pass through the layers needs, planned once: for a whole clip, or for a chunk against a cache.

Shape legend: B batch, T latent frames (C of a chunk, F places of a ring), N video and S = 4 structure tokens per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from df_models.attention.backends import AttentionBackend, Mask, causal_mask
from df_models.attention.masks import BlockMasks, FrameLayout, additive_mask
from df_models.attention.rope import aligned_time_table, slot_offsets, time_table, video_table
from df_models.model.audio import AudioWindows, HeardAudio, audio_windows
from df_models.model.block import Attend, Context, ProjectedContext
from df_models.model.cache import CachedSequence, Chunk, KVCache, Ring, Writes
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
    """What a pass runs on.

    Attributes:
        config: of the model.
        grid: rows and columns of video tokens.
        device, dtype: where and in what attention is computed.
        blocks: the model's block masks.
    """

    config: DualForceConfig
    grid: tuple[int, int]
    device: torch.device
    dtype: torch.dtype = torch.float32
    blocks: BlockMasks = field(default_factory=BlockMasks)

    @property
    def tokens(self) -> int:
        """Video tokens per latent frame."""
        return self.grid[0] * self.grid[1]

    def causal(self, layout: FrameLayout, tokens: tuple[int, int], backend: AttentionBackend) -> Mask:
        """Return the causal mask of a whole sequence with so many tokens per frame (queries, keys)."""
        return causal_mask(layout, tokens, self.device, self.dtype, backend, self.blocks)

    def video(self, positions_T: Tensor, width: int, heads: int) -> Tensor:
        """Return rotations ``[T, N, P, 2]`` of video tokens for an attention of ``heads`` heads."""
        return video_table(positions_T, self.grid, width // heads, self.config.rope_theta, self.device)

    def structure(self, positions_T: Tensor, frames: tuple[int, ...]) -> Tensor:
        """Return rotations ``[T, S, P, 2]`` of structure tokens in their own tower."""
        head_dim = self.config.structure.dim // self.config.structure_heads
        return time_table(positions_T[:, None] + slot_offsets(frames), head_dim, self.config.rope_theta, self.device)

    def bridge(self, positions_T: Tensor, frames: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return rotations of video ``[T, N, P, 2]`` and structure tokens ``[T, S, P, 2]`` in the bridge."""
        config = self.config
        positions = positions_T[:, None] + slot_offsets(frames)
        head_dim = config.bridge_width // config.bridge_heads
        return (
            self.video(positions_T, config.bridge_width, config.bridge_heads),
            aligned_time_table(positions, head_dim, config.rope_theta, self.device),
        )

    def same_frame(self, frames: tuple[int, ...]) -> tuple[Attend, Attend]:
        """Return the same-frame bridge's attention to video and to structure; times are relative to the frame."""
        config = self.config
        video = self.video(torch.zeros(1, dtype=torch.float64), config.bridge_width, config.bridge_heads)
        head_dim = config.bridge_width // config.bridge_heads
        structure = aligned_time_table(slot_offsets(frames), head_dim, config.rope_theta, self.device)
        return SameFrame(video, structure), SameFrame(structure, video)

    def audio(
        self, frames: tuple[int, ...], first_slot: int, num_slots: int, heard: Tensor | int | None
    ) -> AudioWindows:
        """Plan which slots each frame hears (``heard``: of :func:`df_models.model.audio.audio_windows`)."""
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
            heard=heard,
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
    config, tokens = geometry.config, geometry.tokens
    positions = torch.tensor(layout.frames, dtype=torch.float64)
    attend_video = attend_structure = to_video = to_structure = None
    if config.has_video:
        rotation = geometry.video(positions, config.dim, config.num_heads)
        attend_video = WholeSequence(rotation, rotation, geometry.causal(layout, (tokens, tokens), backend))
    if config.has_structure:
        rotation = geometry.structure(positions, layout.frames)
        attend_structure = WholeSequence(rotation, rotation, geometry.causal(layout, (SLOTS, SLOTS), backend))
    if config.causal_bridge:
        video, structure = geometry.bridge(positions, layout.frames)
        to_video = WholeSequence(video, structure, geometry.causal(layout, (tokens, SLOTS), "sdpa"))
        to_structure = WholeSequence(structure, video, geometry.causal(layout, (SLOTS, tokens), "sdpa"))
    elif config.bridge_to_video:
        to_video, to_structure = geometry.same_frame(layout.frames)
    exchange = Exchange(to_video, to_structure if config.bridge_to_structure else None, audio)
    return Pass(
        lambda _layer: _planned(attend_video),
        lambda _layer: _planned(attend_structure),
        lambda _layer: video_context,
        lambda _layer: structure_context,
        lambda _layer: exchange,
    )


def _planned(attend: Attend | None) -> Attend:
    assert attend is not None, "the model has no such tower"
    return attend


@dataclass
class ChunkPlan:
    """Tables and masks of one chunk against the cache; the same for all its denoising steps."""

    chunk: Chunk
    video: tuple[Tensor, Tensor] | None
    structure: tuple[Tensor, Tensor] | None
    bridge_stored: tuple[Tensor, Tensor] | None
    bridge_own: tuple[Tensor, Tensor] | None
    same_frame: tuple[Attend, Attend] | None
    masks: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

    def mask(self, query_tokens: int, ring: Ring) -> Tensor | None:
        """Return the additive mask over a ring and the chunk, or None where everything stored is seen."""
        key = (query_tokens, ring.tokens)
        if key not in self.masks:
            table = self.chunk.table
            self.masks[key] = (
                None if bool(table.all()) else additive_mask(table, *key, ring.keys.device, ring.keys.dtype)
            )
        return self.masks[key]


def plan_chunk(geometry: Geometry, cache: KVCache, frame: int, num_frames: int) -> ChunkPlan:
    """Plan a chunk, or return the plan made for it at an earlier denoising step."""
    known = cache.plans.get((frame, num_frames))
    if isinstance(known, ChunkPlan):
        return known
    chunk = cache.chunk(frame, num_frames)
    config = geometry.config
    stored, own = chunk.stored_positions, chunk.own_positions
    video_heads = (config.dim, config.num_heads)
    plan = ChunkPlan(
        chunk,
        (geometry.video(stored, *video_heads), geometry.video(own, *video_heads)) if config.has_video else None,
        (geometry.structure(stored, chunk.stored), geometry.structure(own, chunk.frames))
        if config.has_structure
        else None,
        geometry.bridge(stored, chunk.stored) if config.causal_bridge else None,
        geometry.bridge(own, chunk.frames) if config.causal_bridge else None,
        geometry.same_frame(chunk.frames) if config.bridge_to_video and not config.causal_bridge else None,
    )
    cache.plans[(frame, num_frames)] = plan
    return plan


def chunk_pass(geometry: Geometry, cache: KVCache, plan: ChunkPlan, audio: HeardAudio, writes: Writes | None) -> Pass:
    """Plan a pass of one chunk against the cache; ``writes`` gathers what it will leave there."""
    config, chunk, tokens = geometry.config, plan.chunk, geometry.tokens
    span = (chunk.frames[0], chunk.frames[-1] + 1)

    def cached(ring: Ring | None, layer: int, query_tokens: int, query: Tensor, stored: Tensor, own: Tensor) -> Attend:
        assert ring is not None, "the cache was made for another bridge, or for other streams"
        keys, values = ring.read(layer, span, stored)
        held = None if writes is None else writes.hold(ring, layer)
        return CachedSequence(keys, values, query, own, plan.mask(query_tokens, ring), held)

    def tower(layer: int, ring: Ring | None, tables: tuple[Tensor, Tensor] | None, query_tokens: int) -> Attend:
        assert tables is not None, "the model has no such tower"
        stored, own = tables
        return cached(ring, layer, query_tokens, own, stored, own)

    def bridges(layer: int) -> tuple[Attend | None, Attend | None]:
        to_video = to_structure = None
        if not config.bridge_to_video:
            return None, None
        if plan.same_frame is not None:
            to_video, to_structure = plan.same_frame
            return to_video, to_structure if config.bridge_to_structure else None
        assert plan.bridge_stored is not None and plan.bridge_own is not None
        (video_stored, structure_stored), (video_own, structure_own) = plan.bridge_stored, plan.bridge_own
        to_video = cached(cache.bridge_to_video, layer, tokens, video_own, structure_stored, structure_own)
        if config.bridge_to_structure:
            to_structure = cached(cache.bridge_to_structure, layer, SLOTS, structure_own, video_stored, video_own)
        return to_video, to_structure

    return Pass(
        lambda layer: tower(layer, cache.video, plan.video, tokens),
        lambda layer: tower(layer, cache.structure, plan.structure, SLOTS),
        lambda layer: cache.video_context[layer],
        lambda layer: cache.structure_context[layer],
        lambda layer: Exchange(*bridges(layer), audio),
    )
