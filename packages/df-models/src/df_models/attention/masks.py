"""Who may see whom, decided once per pair of latent frames.

Every mask of the model is a table over (query frame, key frame), made from the two sides' :class:`FrameLayout`; the
tokens of a frame share its row. :class:`AttentionMask` turns the table into what each attention backend wants.

Shape legend: Q query frames, F key frames, Lq and Lk tokens on the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

EMPTY = -1


@dataclass(frozen=True)
class FrameLayout:
    """The latent frames of one sequence, in order of their place in it.

    Attributes:
        frames: absolute latent index of each place; ``EMPTY`` where nothing is stored.
        history: True at the places of the clean copy that teacher forcing puts before the noisy one.
    """

    frames: tuple[int, ...]
    history: tuple[bool, ...]

    def __post_init__(self) -> None:
        assert len(self.frames) == len(self.history)

    @classmethod
    def clip(cls, num_frames: int, first: int = 0) -> FrameLayout:
        """Frames ``first ..`` of one clip, each once."""
        return cls(tuple(range(first, first + num_frames)), (False,) * num_frames)

    @classmethod
    def teacher_forcing(cls, num_frames: int) -> FrameLayout:
        """A history copy of every frame, then a noisy copy of every frame."""
        frames = tuple(range(num_frames))
        return cls(frames + frames, (True,) * num_frames + (False,) * num_frames)

    def __len__(self) -> int:
        return len(self.frames)


def causal_table(layout: FrameLayout) -> Tensor:
    """Return bool ``[Q, F]`` for a sequence that attends to itself, causally.

    A frame sees itself and the frames before it. With a history copy, history sees history; a noisy frame sees the
    history before it and, of the noisy frames, itself alone.
    """
    frames = torch.tensor(layout.frames)
    history = torch.tensor(layout.history)
    query, key = frames[:, None], frames[None, :]
    if not any(layout.history):
        return key <= query
    seen_history = torch.where(history[:, None], key <= query, key < query) & history[None, :]
    return seen_history | (~history[:, None] & ~history[None, :] & (key == query))


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


class AttentionMask:
    """A frame table and the number of tokens per frame on either side.

    Attributes:
        table_QF: bool table of the frames.
        query_tokens, key_tokens: tokens per frame.
    """

    def __init__(self, table_QF: Tensor, query_tokens: int, key_tokens: int) -> None:
        self.table_QF = table_QF
        self.query_tokens = query_tokens
        self.key_tokens = key_tokens
        self._dense: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._blocks: dict[torch.device, object] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Return ``(Lq, Lk)``."""
        return self.table_QF.shape[0] * self.query_tokens, self.table_QF.shape[1] * self.key_tokens

    def additive(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return ``[Lq, Lk]``: 0 where a token is seen, minus infinity where it is not."""
        key = (device, dtype)
        if key not in self._dense:
            seen = self.table_QF.to(device)
            seen = seen.repeat_interleave(self.query_tokens, 0).repeat_interleave(self.key_tokens, 1)
            self._dense[key] = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
        return self._dense[key]

    def blocks(self, device: torch.device) -> object:
        """Return FlexAttention's block mask, made once per device."""
        if device not in self._blocks:
            from torch.nn.attention.flex_attention import create_block_mask

            table = self.table_QF.to(device)
            query_tokens, key_tokens = self.query_tokens, self.key_tokens

            def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return table[query // query_tokens, key // key_tokens]

            compiled = device.type == "cuda"
            length_q, length_k = self.shape
            self._blocks[device] = create_block_mask(
                seen, None, None, length_q, length_k, device=str(device), _compile=compiled
            )
        return self._blocks[device]


@lru_cache(maxsize=32)
def causal_mask(layout: FrameLayout, query_tokens: int, key_tokens: int) -> AttentionMask:
    """Return the mask of a sequence that attends causally to itself or to the other stream of the same layout."""
    return AttentionMask(causal_table(layout), query_tokens, key_tokens)
