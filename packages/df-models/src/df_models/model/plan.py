"""What one pass through the layers needs, planned once: for a whole clip, or for a chunk against a cache.

Shape legend: B batch, T latent frames (C of a chunk, F places of a ring), N video and S = 4 structure tokens per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from df_models.attention.backends import AttentionBackend, Mask, causal_mask
from df_models.attention.masks import BlockMasks, FrameLayout, additive_mask
from df_models.attention.rope import aligned_time_table, slot_offsets, time_table, video_table
from df_models.model.audio import AudioWindows, HeardAudio, audio_windows
from df_models.model.block import Attend, Context, KeyValue, ProjectedContext
from df_models.model.cache import CachedSequence, Chunk, Held, KVCache, Ring
from df_models.model.config import DualForceConfig
from df_models.model.fusion import Exchange
from df_models.model.inputs import aligned_frames
from df_models.model.joined import Joined, JoinedLayers
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
    joined: JoinedLayers | None = None

    def joined_video(self, layer: int) -> Joined | None:
        """What lies together of a layer's self-attention in the video tower."""
        return None if self.joined is None else self.joined.video[layer]

    def joined_structure(self, layer: int) -> Joined | None:
        """What lies together of a layer's self-attention in the structure tower."""
        return None if self.joined is None else self.joined.structure[layer]


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

    def same_frame(self, frames: tuple[int, ...]) -> tuple[Attend, Attend | None]:
        """Return the same-frame bridge's attention to video and, if it has it, to structure; times are relative to the
        frame."""
        config = self.config
        video = self.video(torch.zeros(1, dtype=torch.float64), config.bridge_width, config.bridge_heads)
        head_dim = config.bridge_width // config.bridge_heads
        structure = aligned_time_table(slot_offsets(frames), head_dim, config.rope_theta, self.device)
        return SameFrame(video, structure), SameFrame(structure, video) if config.bridge_to_structure else None

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
        if config.bridge_to_structure:
            to_structure = WholeSequence(structure, video, geometry.causal(layout, (SLOTS, tokens), "sdpa"))
    elif config.bridge_to_video:
        to_video, to_structure = geometry.same_frame(layout.frames)
    exchange = Exchange(to_video, to_structure, audio)
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


class RingView(NamedTuple):
    """What a chunk reads of one ring, in all layers, and how.

    Attributes:
        keys_YBFNHK, values_YBFNHK: of all layers; keys rotated for this chunk.
        query_table_CNP2, own_table_CNP2: rotations of the chunk's queries and of its own keys.
        mask: additive, over what is stored and the chunk; None where all is seen.
    """

    keys_YBFNHK: Tensor
    values_YBFNHK: Tensor
    query_table_CNP2: Tensor
    own_table_CNP2: Tensor
    mask: Tensor | None

    def attend(self, layer: int, held: list[list[KeyValue]] | None) -> CachedSequence:
        """Return one layer's attention, which puts the chunk's keys and values into a new list of ``held``."""
        keys_YBFNHK, values_YBFNHK, queries, own, mask = self
        left: list[KeyValue] | None = None if held is None else []
        if held is not None and left is not None:
            held.append(left)
        return CachedSequence(keys_YBFNHK[layer], values_YBFNHK[layer], queries, own, mask, left)


class ChunkView(NamedTuple):
    """What a pass of one chunk reads beside its inputs: tensors alone, of the same sizes for every such chunk.

    So the whole pass can be one compiled graph.

    Attributes:
        video, structure, bridge_to_video, bridge_to_structure: of the rings of these names; None where there is none.
        same_frame: attention to video and to structure of a bridge inside each frame, which has no rings.
        video_context, structure_context: what cross-attention reads in each layer.
        aligned_BC: bool, whether the reference image is aligned with the frame.
        reference_latent: ``[B, channels, h, w]``.
        joined: the model's parameters that lie together, if it was told to (:meth:`DualForce.join_products`).
    """

    video: RingView | None
    structure: RingView | None
    bridge_to_video: RingView | None
    bridge_to_structure: RingView | None
    same_frame: tuple[Attend | None, Attend | None]
    video_context: list[ProjectedContext]
    structure_context: list[ProjectedContext]
    aligned_BC: Tensor
    reference_latent: Tensor
    joined: JoinedLayers | None = None


class ChunkPlan(NamedTuple):
    """A chunk against the cache and what a pass reads of it; the same for all the chunk's denoising steps."""

    chunk: Chunk
    view: ChunkView


def plan_chunk(geometry: Geometry, cache: KVCache, span: tuple[int, int], *, masked: bool) -> ChunkPlan:
    """Plan a chunk of latent frames ``span[0] .. span[1] - 1``; ``masked`` asks for a mask also where all is seen."""
    chunk = cache.chunk(span[0], span[1] - span[0])
    config, seen = geometry.config, bool(chunk.table.all()) and not masked
    stored, own = chunk.stored_positions, chunk.own_positions

    def view(ring: Ring | None, query_tokens: int, queries: Tensor, tables: tuple[Tensor, Tensor]) -> RingView:
        assert ring is not None, "the cache was made for another bridge, or for other streams"
        keys, values = ring.rotated(tables[0]), ring.values
        sizes = query_tokens, ring.tokens, keys.device, keys.dtype
        return RingView(keys, values, queries, tables[1], None if seen else additive_mask(chunk.table, *sizes))

    video = structure = to_video = to_structure = None
    if config.has_video:
        tables = [geometry.video(at, config.dim, config.num_heads) for at in (stored, own)]
        video = view(cache.video, geometry.tokens, tables[1], (tables[0], tables[1]))
    if config.has_structure:
        tables = geometry.structure(stored, chunk.stored), geometry.structure(own, chunk.frames)
        structure = view(cache.structure, SLOTS, tables[1], tables)
    if config.causal_bridge:
        (video_stored, slots_stored) = geometry.bridge(stored, chunk.stored)
        (video_own, slots_own) = geometry.bridge(own, chunk.frames)
        to_video = view(cache.bridge_to_video, geometry.tokens, video_own, (slots_stored, slots_own))
        if config.bridge_to_structure:
            to_structure = view(cache.bridge_to_structure, SLOTS, slots_own, (video_stored, video_own))
    return ChunkPlan(
        chunk,
        ChunkView(
            video,
            structure,
            to_video,
            to_structure,
            geometry.same_frame(chunk.frames) if config.bridge_to_video and not config.causal_bridge else (None, None),
            cache.video_context,
            cache.structure_context,
            aligned_frames(chunk.frames, cache.reference_frame),
            cache.reference_latent,
        ),
    )


def chunk_pass(view: ChunkView, audio: HeardAudio, held: Held | None) -> Pass:
    """Return a pass of one chunk against the cache; ``held`` takes what it will leave there, None: nothing."""
    left = Held(None, None, None, None) if held is None else held

    def bridge(
        layer: int, ring: RingView | None, keys_values: list[list[KeyValue]] | None, inside: Attend | None
    ) -> Attend | None:
        return inside if ring is None else ring.attend(layer, keys_values)

    def tower(layer: int, ring: RingView | None, keys_values: list[list[KeyValue]] | None) -> Attend:
        assert ring is not None, "the model has no such tower"
        return ring.attend(layer, keys_values)

    return Pass(
        lambda layer: tower(layer, view.video, left.video),
        lambda layer: tower(layer, view.structure, left.structure),
        lambda layer: view.video_context[layer],
        lambda layer: view.structure_context[layer],
        lambda layer: Exchange(
            bridge(layer, view.bridge_to_video, left.bridge_to_video, view.same_frame[0]),
            bridge(layer, view.bridge_to_structure, left.bridge_to_structure, view.same_frame[1]),
            audio,
            audio.layer(layer),
            (None, None) if view.joined is None else (view.joined.from_video[layer], view.joined.from_structure[layer]),
        ),
        view.joined,
    )
