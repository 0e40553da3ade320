"""Who may see whom, decided once per pair of latent frames.

Every mask of the model is a table over (query frame, key frame), made from the two sides' :class:`FrameLayout`; the
tokens of a frame share its row. :func:`additive_mask` and :func:`block_mask` turn the table into what each attention
backend wants. Nothing here is kept beyond the pass or the model that it was made for.

Shape legend: Q query frames, F key frames, Lq and Lk tokens on the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

EMPTY = -1


@dataclass(frozen=True)
class FrameLayout:
    """The latent frames of one sequence, in order of their place in it.

    Attributes:
        frames: absolute latent index of each place; ``EMPTY`` where nothing is stored.
        history: True at the places of the clean copy that teacher forcing puts before the noisy one.
        chunk: frames of the noisy copy that are denoised together, from the first on.
    """

    frames: tuple[int, ...]
    history: tuple[bool, ...]
    chunk: int = 1

    def __post_init__(self) -> None:
        assert len(self.frames) == len(self.history)

    @classmethod
    def clip(cls, num_frames: int, first: int = 0) -> FrameLayout:
        """Frames ``first ..`` of one clip, each once."""
        return cls(tuple(range(first, first + num_frames)), (False,) * num_frames)

    @classmethod
    def teacher_forcing(cls, num_frames: int, chunk: int = 1) -> FrameLayout:
        """A history copy of every frame, then a noisy copy of every frame, denoised ``chunk`` frames at a time."""
        frames = tuple(range(num_frames))
        return cls(frames + frames, (True,) * num_frames + (False,) * num_frames, chunk)

    def __len__(self) -> int:
        return len(self.frames)


def causal_table(layout: FrameLayout) -> Tensor:
    """Return bool ``[Q, F]`` for a sequence that attends to itself, causally.

    A frame sees itself and the frames before it. With a history copy, history sees history; a noisy frame sees the
    history before its chunk and, of the noisy frames, those of its chunk up to itself.
    """
    frames = torch.tensor(layout.frames)
    history = torch.tensor(layout.history)
    query, key = frames[:, None], frames[None, :]
    if not any(layout.history):
        return key <= query
    before = key < query // layout.chunk * layout.chunk
    seen_history = torch.where(history[:, None], key <= query, before) & history[None, :]
    return seen_history | (~history[:, None] & ~history[None, :] & (key <= query) & ~before)


def window_table(query: FrameLayout, key: FrameLayout, window: int, sinks: int) -> Tensor:
    """Return bool ``[Q, F]`` for one chunk of consecutive frames (``query``) that looks into a window.

    A key frame is seen if it is not later than the query frame and either one of the first ``sinks`` frames or among
    the last ``window`` frames up to the end of the chunk, the chunk included.
    """
    queries = torch.tensor(query.frames)[:, None]
    keys = torch.tensor(key.frames)[None, :]
    end = max(query.frames) + 1
    return (keys != EMPTY) & (keys <= queries) & ((keys < sinks) | (keys >= end - window))


def window_positions(frames: tuple[int, ...], end: int, window: int, sinks: int) -> Tensor:
    """Return temporal positions, float64, of frames as a chunk that ends before frame ``end`` sees them.

    Sinks keep 0, 1, ...; the rest follow so that the newest frame stands at most at ``sinks + window - 1``. Frames
    that the chunk cannot see (and ``EMPTY`` places) get position 0.
    """
    shift = max(0, end - sinks - window)
    places = [frame if frame < sinks else frame - shift for frame in frames]
    return torch.tensor([max(place, 0) for place in places], dtype=torch.float64)


def additive_mask(
    table_QF: Tensor, query_tokens: int, key_tokens: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return ``[Lq, Lk]``: 0 where a token is seen, minus infinity where it is not."""
    seen = table_QF.to(device).repeat_interleave(query_tokens, 0).repeat_interleave(key_tokens, 1)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)


def block_mask(table_QF: Tensor, query_tokens: int, key_tokens: int, device: torch.device) -> BlockMask:
    """Return FlexAttention's block mask."""
    from torch.nn.attention.flex_attention import create_block_mask

    table = table_QF.to(device)

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return table[query // query_tokens, key // key_tokens]

    lengths = table.shape[0] * query_tokens, table.shape[1] * key_tokens
    return create_block_mask(seen, None, None, *lengths, device=str(device), _compile=device.type == "cuda")


class BlockMasks:
    """The block masks of one model, each made once: making one launches several kernels.

    They belong to the model and go with it. Additive masks are made anew for every pass, which costs next to nothing
    beside the attention that reads them. A kept mask must serve later passes of any kind, so it is made outside of
    inference mode, and what a tracer (``torch.export``, fake tensors) makes is not kept.
    """

    def __init__(self, capacity: int = 32) -> None:
        self.capacity = capacity
        self._made: dict[tuple[FrameLayout, int, int, torch.device], BlockMask] = {}

    def causal(self, layout: FrameLayout, query_tokens: int, key_tokens: int, device: torch.device) -> BlockMask:
        """Return the mask of a sequence that attends causally to itself, or to the other stream's same frames."""
        key = (layout, query_tokens, key_tokens, device)
        if not _tensors_are_real():
            return block_mask(causal_table(layout), query_tokens, key_tokens, device)
        if key not in self._made:
            with torch.inference_mode(False):
                made = block_mask(causal_table(layout), query_tokens, key_tokens, device)
            if len(self._made) == self.capacity:
                self._made.pop(next(iter(self._made)))
            self._made[key] = made
        return self._made[key]

    def __len__(self) -> int:
        return len(self._made)

    def __deepcopy__(self, memo: object) -> BlockMasks:
        return BlockMasks(self.capacity)

    def __reduce__(self) -> tuple[type[BlockMasks], tuple[int]]:
        return BlockMasks, (self.capacity,)


def _tensors_are_real() -> bool:
    return type(torch.empty(0)) is Tensor
