"""Chunks made one after another, of which the latest can be undone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from df_infer.clip_decoder import ClipDecoder, GeneratedClip
from df_infer.rollout import Rollout
from df_infer.sampling.drive import GivenChunk
from df_infer.sampling.sampler import Moment, Sampler
from df_infer.sampling.steps import Steps
from df_models.encoders.base import DecoderState
from df_models.errors import UserError


class _Made(NamedTuple):
    """A chunk that can be undone: its first latent frame, and the moment before it."""

    latent: int
    sampler: Moment
    decoder: DecoderState


class Making:
    """A generation in progress: sampler, decoder, and the moments before the latest chunks.

    Args:
        keep: chunks that can be undone.

    Attributes:
        latent: latent frames made, less those undone.
    """

    def __init__(self, sampler: Sampler, decoder: ClipDecoder, keep: int) -> None:
        self.latent = 0
        self._sampler, self._decoder, self._keep = sampler, decoder, keep
        self._made: deque[_Made] = deque()
        self._undoable_from = 0

    @torch.no_grad()
    def make(self, audio_BCSD: Tensor, count: int, given: GivenChunk | None) -> Steps[list[GeneratedClip]]:
        """Make the next ``count`` latent frames, of the audio that they and the lookahead hear, by steps."""
        made = _Made(self.latent, self._sampler.moment(count), self._decoder.state())
        try:
            finished = yield from self._sampler.chunk(audio_BCSD, self.latent, count, given=given)
            clips = yield from self._decoder.by_steps(Rollout(finished.video, finished.structure, self.latent))
        except BaseException:  # the chunk may be stored, and is not seen: it can be made again
            self._sampler.rewind(made.sampler)
            self._decoder.restore(made.decoder)
            raise
        self.latent += count
        self._made.append(made)
        while len(self._made) > self._keep:
            self._undoable_from = self._made.popleft().latent + 1
        return clips

    @property
    def earliest(self) -> int:
        """The earliest latent frame that can be made again."""
        return self._made[0].latent if self._made else self.latent

    def undo(self, first: int) -> None:
        """Undo all chunks that begin at latent frame ``first`` or later.

        Raises:
            UserError: one of them is further back than can be undone.
        """
        if first < self._undoable_from:
            raise UserError(
                f"latent frame {first} of {self.latent} is further back than can be undone, the last {self._keep} "
                "chunks; show frames sooner, or keep more"
            )
        while self._made and self._made[-1].latent >= first:
            made = self._made.pop()
            self._sampler.rewind(made.sampler)
            self._decoder.restore(made.decoder)
            self.latent = made.latent

    @property
    def bytes(self) -> int:
        """Memory of cache, decoder and moments."""
        moments = sum(made.sampler.cache.bytes + _bytes_of(made.decoder) for made in self._made)
        return self._sampler.cache.bytes + _bytes_of(self._decoder.state()) + moments

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain facts from which :meth:`restore` goes on; moments to undo are not among them."""
        tensors = {f"sampler.{name}": x for name, x in self._sampler.state().items()}
        tensors |= {f"decoder.{name}": x for name, x in self._decoder.state().items()}
        return tensors, {"latent": self.latent}

    def wanted(self, latent: int) -> dict[str, Tensor]:
        """Return tensors of the names and shapes that a state has after so many latent frames."""
        tensors = {f"sampler.{name}": x for name, x in self._sampler.wanted(latent).items()}
        decoder = self._decoder.wanted(self._sampler.reference) if latent else {}
        return tensors | {f"decoder.{name}": x for name, x in decoder.items()}

    def restore(self, tensors: Mapping[str, Tensor], latent: int) -> None:
        """Go on after ``latent`` latent frames from a state of a generation with the same model and settings."""
        self.latent = self._undoable_from = latent
        self._made.clear()
        self._sampler.restore(_below("sampler", tensors), self.latent)
        self._decoder.restore(_below("decoder", tensors))


def _below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): x for key, x in tensors.items() if key.startswith(f"{name}.")}


def _bytes_of(state: DecoderState) -> int:
    return sum(held.numel() * held.element_size() for held in state.values())
