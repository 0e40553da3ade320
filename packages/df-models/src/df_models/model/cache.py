"""The KV cache: fixed-size rings of keys and values, with sink frames that are kept for ever.

A ring has ``sinks + window - 1`` places, one latent frame each: the first ``sinks`` frames of the clip, and the last
``window - 1`` before the chunk (which is itself part of the window). Keys are stored before rotation and rotated when
read, at positions relative to the window, so no temporal position ever reaches ``sinks + window``, however long the
video. Everything is allocated once.

Shape legend: Y layers, B batch, F places, C frames of a chunk, N tokens per frame, H heads, K channels of a head,
P = K / 2 pairs, 2 = cosine, sine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from df_models.attention.backends import attention
from df_models.attention.masks import EMPTY, FrameLayout, window_positions, window_table
from df_models.attention.rope import rotate
from df_models.errors import UserError
from df_models.model.block import KeyValue, ProjectedContext
from df_models.model.config import DualForceConfig
from df_models.time import SLOTS


@dataclass(frozen=True)
class RingShape:
    """Sizes of one ring beside its places and batch."""

    layers: int
    tokens: int
    heads: int
    head_dim: int


def ring_shapes(config: DualForceConfig, tokens: int) -> dict[str, RingShape]:
    """Return the sizes of the rings that a model needs, by their names in :class:`KVCache`.

    Args:
        tokens: video tokens of a latent frame.
    """
    bridge = (config.bridge_heads, config.bridge_width // config.bridge_heads)
    shapes = {}
    if config.has_video:
        shapes["video"] = RingShape(config.num_layers, tokens, config.num_heads, config.dim // config.num_heads)
    if config.has_structure:
        heads = config.structure_heads
        shapes["structure"] = RingShape(config.structure_layers, SLOTS, heads, config.structure_width // heads)
    if config.causal_bridge and config.bridge_to_video:
        shapes["bridge_to_video"] = RingShape(config.fusion_depth, SLOTS, *bridge)
    if config.causal_bridge and config.bridge_to_structure:
        shapes["bridge_to_structure"] = RingShape(config.fusion_depth, tokens, *bridge)
    return shapes


class Ring:
    """Keys (before rotation) and values of one attention in all its layers, ``[Y, B, F, N, H, K]`` each."""

    def __init__(self, shape: RingShape, batch: int, places: int, device: torch.device, dtype: torch.dtype) -> None:
        size = (shape.layers, batch, places, shape.tokens, shape.heads, shape.head_dim)
        self.tokens = shape.tokens
        self.keys = torch.zeros(size, device=device, dtype=dtype)
        self.values = torch.zeros(size, device=device, dtype=dtype)
        self._rotated = torch.zeros(size, device=device, dtype=dtype)

    def rotated(self, table_FNP2: Tensor) -> Tensor:
        """Return the keys of all layers, rotated, ``[Y, B, F, N, H, K]``, in a buffer that the next call overwrites."""
        for keys, rotated in zip(self.keys, self._rotated):  # by layers: a layer's copy in float32 is memory enough
            rotated.copy_(rotate(keys, table_FNP2))
        return self._rotated

    def write(self, own: Tensor, places: Tensor, pairs: Sequence[KeyValue]) -> None:
        """Store keys and values ``[B, C, N, H, K]`` of every layer: of the chunk's frames ``own``, at ``places``."""
        assert len(pairs) == len(self.keys), "a pass writes every layer once"
        for layer, (k_BCNHK, v_BCNHK) in enumerate(pairs):
            self.keys[layer].index_copy_(1, places, k_BCNHK.index_select(1, own).to(self.keys.dtype))
            self.values[layer].index_copy_(1, places, v_BCNHK.index_select(1, own).to(self.values.dtype))

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of the keys and values ``[Y, B, C, N, H, K]`` at some places."""
        return self.keys.index_select(2, places), self.values.index_select(2, places)

    def put_back(self, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Undo a write: ``keys`` and ``values`` of :meth:`at`."""
        self.keys.index_copy_(2, places, keys)
        self.values.index_copy_(2, places, values)

    @property
    def bytes(self) -> int:
        """Memory of the ring in bytes."""
        return sum(x.numel() * x.element_size() for x in (self.keys, self.values, self._rotated))


@dataclass(frozen=True)
class Chunk:
    """A chunk against the cache: which frames it sees, and where everything stands in the window.

    Attributes:
        frames: absolute indices of the chunk's own frames.
        stored: absolute index at each place of the rings (``EMPTY`` where there is none).
        table: bool ``[C, F + C]``, which stored and own frames each frame of the chunk sees.
        stored_positions, own_positions: temporal positions, float64 ``[F]`` and ``[C]``.
        kept: which frames of the chunk are written, as places in the chunk, and the rings' places they go to.
    """

    frames: tuple[int, ...]
    stored: tuple[int, ...]
    table: Tensor
    stored_positions: Tensor
    own_positions: Tensor
    kept: tuple[Tensor, Tensor]


class Held(NamedTuple):
    """What the layers of one pass leave of a chunk, by ring: a list for each layer in their order, which it fills.

    It is stored when all layers have run: a chunk that fails on the way leaves the cache as it was, and can be tried
    again. Each layer has a list of its own, which is empty when it runs: the length of a common one would tell layers
    apart, and each would be compiled anew.
    """

    video: list[list[KeyValue]] | None
    structure: list[list[KeyValue]] | None
    bridge_to_video: list[list[KeyValue]] | None
    bridge_to_structure: list[list[KeyValue]] | None


class Mark(NamedTuple):
    """A moment of a generation: what storing the next chunk overwrites, so that it can be taken back.

    Attributes:
        length: latent frames written at that moment.
        places: of the rings, that the chunk will be written to.
        rings: keys and values at those places, of every ring in use.
        audio_past_BAF: as in the cache.
    """

    length: int
    places: Tensor
    rings: list[tuple[Tensor, Tensor]]
    audio_past_BAF: Tensor

    @property
    def bytes(self) -> int:
        """Memory of the mark in bytes."""
        return sum(x.numel() * x.element_size() for pair in self.rings for x in pair)


@dataclass(eq=False)
class KVCache:
    """All that a generation remembers; made by :meth:`df_models.DualForce.new_cache`.

    Attributes:
        window: latent frames visible, the chunk included, beside the sinks.
        sinks: first frames that stay visible for ever.
        length: latent frames written so far; the next chunk starts there.
        video, structure: rings of the towers' self-attention; None where the model has no such tower.
        bridge_to_video, bridge_to_structure: rings of a causal bridge, else None.
        audio_past_BAF: the audio slots before the next chunk.
        video_context, structure_context: keys and values of reference and text, per layer.
        reference_latent: ``[B, C, h, w]``; reference_frame: ``[B]``.
        plan: of the chunk that is being denoised (:mod:`df_models.model.plan`), behind what it was made for.
        whole: False while a chunk is being stored; after an interruption right then the cache is of no more use.
    """

    window: int
    sinks: int
    video: Ring | None
    structure: Ring | None
    bridge_to_video: Ring | None
    bridge_to_structure: Ring | None
    audio_past_BAF: Tensor
    video_context: list[ProjectedContext]
    structure_context: list[ProjectedContext]
    reference_latent: Tensor
    reference_frame: Tensor
    length: int = 0
    plan: tuple[object, Any] | None = None
    whole: bool = True

    @property
    def rings(self) -> list[Ring]:
        """Return the rings in use."""
        every = (self.video, self.structure, self.bridge_to_video, self.bridge_to_structure)
        return [ring for ring in every if ring is not None]

    @property
    def bytes(self) -> int:
        """Memory of the rings in bytes; it does not change during a generation."""
        return sum(ring.bytes for ring in self.rings)

    def stored_frames(self) -> tuple[int, ...]:
        """Return the absolute frame at each place of the rings, ``EMPTY`` where nothing is stored."""
        sinks = tuple(frame if frame < self.length else EMPTY for frame in range(self.sinks))
        places = self.window - 1
        newest = self.length - 1
        recent = []
        for place in range(places):
            frame = newest - (newest - self.sinks - place) % places
            recent.append(frame if frame >= self.sinks else EMPTY)
        return sinks + tuple(recent)

    def chunk(self, frame: int, num_frames: int) -> Chunk:
        """Return the view of a chunk of ``num_frames`` frames that starts at ``frame``.

        Raises:
            UserError: the chunk is longer than the window, ``frame`` is not the next one, or the cache is half-written.
        """
        if not self.whole:
            raise UserError("an interruption left this cache half-written; make a new one and generate again")
        if not 1 <= num_frames <= self.window:
            raise UserError(f"a chunk of {num_frames} latent frames does not fit a window of {self.window}")
        if frame != self.length:
            raise UserError(f"the cache holds frames 0 to {self.length - 1}: the next is {self.length}, not {frame}")
        own = FrameLayout.clip(num_frames, frame)
        stored = self.stored_frames()
        end = frame + num_frames
        both = FrameLayout(stored + own.frames, (False,) * (len(stored) + num_frames))
        kept = [index for index, at in enumerate(own.frames) if at < self.sinks or at > end - self.window]
        places = [self._place(own.frames[index]) for index in kept]
        return Chunk(
            own.frames,
            stored,
            window_table(own, both, self.window, self.sinks),
            window_positions(stored, end, self.window, self.sinks),
            window_positions(own.frames, end, self.window, self.sinks),
            (torch.tensor(kept, dtype=torch.long), torch.tensor(places, dtype=torch.long)),
        )

    def _place(self, frame: int) -> int:
        return frame if frame < self.sinks else self.sinks + (frame - self.sinks) % (self.window - 1)

    def mark(self, num_frames: int) -> Mark:
        """Remember this moment, before a chunk of ``num_frames`` is stored; :meth:`rewind` comes back to it.

        Raises:
            UserError: as :meth:`chunk`.
        """
        places = self.chunk(self.length, num_frames).kept[1]
        rings = [ring.at(places.to(ring.keys.device)) for ring in self.rings]
        return Mark(self.length, places, rings, self.audio_past_BAF.clone())

    def rewind(self, mark: Mark) -> None:
        """Come back to a mark, from the moment after its chunk; marks are used up from the latest to the earliest."""
        assert mark.length <= self.length, "a mark of what is still to come"
        self.whole, self.plan = False, None
        for ring, (keys, values) in zip(self.rings, mark.rings, strict=True):
            ring.put_back(mark.places.to(ring.keys.device), keys, values)
        self.audio_past_BAF.copy_(mark.audio_past_BAF)
        self.length, self.whole = mark.length, True

    def store(self, held: Held, chunk: Chunk, audio_BAF: Tensor) -> None:
        """Take over a finished chunk and its audio slots ``[B, 4 C, F]``; the next chunk begins behind it."""
        self.whole = False
        self.plan = None
        for ring, pairs in zip((self.video, self.structure, self.bridge_to_video, self.bridge_to_structure), held):
            if ring is not None and pairs is not None:
                own, places = (kept.to(ring.keys.device) for kept in chunk.kept)
                ring.write(own, places, [pair for layer in pairs for pair in layer])
        self.length += len(chunk.frames)
        past = self.audio_past_BAF
        if past.shape[1]:
            past.copy_(torch.cat([past, audio_BAF.to(past.dtype)], dim=1)[:, -past.shape[1] :])
        self.whole = True


@dataclass(eq=False)  # not frozen: dynamo of torch 2.11 cannot make such within a graph
class CachedSequence:
    """Attention of a chunk to what a ring holds and to itself; an :class:`df_models.model.block.Attend` for one layer.

    It holds nothing that tells layers or frames apart but tensors, so compiled layers share one graph.

    Attributes:
        keys_BFNHK, values_BFNHK: what the ring holds, keys rotated.
        query_table_CNP2, own_table_CNP2: rotations of the chunk's queries and of its own keys.
        mask: additive, over what is stored and the chunk; None where all is seen.
        held: empty; takes the chunk's keys and values, to be stored when all layers have run. None stores nothing.
    """

    keys_BFNHK: Tensor
    values_BFNHK: Tensor
    query_table_CNP2: Tensor
    own_table_CNP2: Tensor
    mask: Tensor | None
    held: list[KeyValue] | None

    def __call__(self, q_BTNHK: Tensor, k_BTNHK: Tensor, v_BTNHK: Tensor) -> Tensor:
        """Return ``[B, C, N, H, K]``."""
        dtype = self.keys_BFNHK.dtype
        q = rotate(q_BTNHK, self.query_table_CNP2).to(dtype).flatten(1, 2)
        k = torch.cat([self.keys_BFNHK, rotate(k_BTNHK, self.own_table_CNP2).to(dtype)], dim=1).flatten(1, 2)
        v = torch.cat([self.values_BFNHK, v_BTNHK.to(dtype)], dim=1).flatten(1, 2)
        out = attention(q, k, v, self.mask).to(q_BTNHK.dtype)
        if self.held is not None:
            self.held.append((k_BTNHK, v_BTNHK))
        return out.unflatten(1, q_BTNHK.shape[1:3])
