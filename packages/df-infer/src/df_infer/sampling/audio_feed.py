"""Hands a rollout its audio: the chunk's own slots and the lookahead, and nothing it no longer needs.

Shape legend: B batch, C latent frames of a chunk, L lookahead latent frames, S = 4 slots, D features.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from df_models.errors import UserError
from df_models.time import SLOTS


def lookahead_frames(audio_future: int) -> int:
    """Return how many latent frames of audio beyond a chunk hold ``audio_future`` slots (25 Hz)."""
    return -(-audio_future // SLOTS)


class AudioFeed:
    """Walks over audio features chunk by chunk.

    Args:
        audio: ``[B, T, 4, D]`` for a whole clip, or an iterable of such pieces (a live source) of any lengths; a
            piece is asked for only when it is needed, so latency is the chunk plus the lookahead.
        lookahead: latent frames to show beyond each chunk.
        what: what messages call it: anything in slots can be fed so.
    """

    def __init__(self, audio: Tensor | Iterable[Tensor], lookahead: int, what: str = "audio") -> None:
        pieces: Iterator[Tensor] = iter([audio]) if isinstance(audio, Tensor) else iter(audio)
        self._pieces = pieces
        self._held: deque[Tensor] = deque()
        self._held_frames = 0
        self._lookahead = lookahead
        self._ended = False
        self._what = what

    def take(self, count: int) -> tuple[Tensor, int] | None:
        """Return (``[B, C+L, 4, D]``, C) for the next chunk of at most ``count`` frames; None at the end.

        Near the end of the clip C and L shrink to what is there.
        """
        self._fill(count + self._lookahead)
        own = min(count, self._held_frames)
        if own == 0:
            return None
        shown = self._first(min(count + self._lookahead, self._held_frames))
        self._drop(own)
        return shown, own

    def _fill(self, wanted: int) -> None:
        while self._held_frames < wanted and not self._ended:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                return
            if piece.ndim != 4 or piece.shape[2] != SLOTS:
                raise UserError(
                    f"{self._what} must be [batch, latent frames, {SLOTS}, features], not {list(piece.shape)}"
                )
            if piece.shape[1]:
                self._held.append(piece)
                self._held_frames += piece.shape[1]

    def _first(self, count: int) -> Tensor:
        parts, left = [], count
        for piece in self._held:
            parts.append(piece[:, :left])
            left -= parts[-1].shape[1]
            if left == 0:
                break
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _drop(self, count: int) -> None:
        self._held_frames -= count
        while count:
            piece = self._held.popleft()
            if piece.shape[1] > count:
                self._held.appendleft(piece[:, count:])
                return
            count -= piece.shape[1]
