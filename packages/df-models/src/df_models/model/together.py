"""One denoising step of several generations in one batch: each with its own cache, frame, window and noise levels.

What a step reads of a cache is tensors (:class:`df_models.model.plan.ChunkView`). Those of several caches are laid one
after the other along the batch, once for all steps of their chunks; masks and rotations, which caches alone share over
their batch, become those of each sample. A ring with fewer places than the longest gets empty ones, which nobody sees.
The batch changes how sums are rounded, and nothing else.

Shape legend: Y layers, B batch, F places of a ring, C frames of a chunk, N tokens per frame, Lq and Lk query and key
tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

from df_models.model.audio import AudioWindows, HeardAudio
from df_models.model.block import Attend
from df_models.model.cache import Held, KVCache
from df_models.model.inputs import Inputs
from df_models.model.plan import ChunkPlan, ChunkView, RingView
from df_models.model.sequence import SameFrame
from df_models.model.tower import Noise

if TYPE_CHECKING:
    from df_models.model.dualforce import DualForce, Velocity

_log = logging.getLogger(__name__)
REMEMBERED = 64
"""Chunks that were made apart: more than are made at a time."""
T = TypeVar("T")


class StepCall(NamedTuple):
    """The arguments of :meth:`df_models.DualForce.step`."""

    video: Tensor | None
    structure: Tensor | None
    audio: Tensor | None
    sigma_video: Tensor | None
    sigma_structure: Tensor | None
    cache: KVCache
    frame: int
    write: bool
    structure_known: Tensor | None = None
    audio_future: Tensor | int | None = None
    heard: HeardAudio | None = None
    noise: Noise | None = None


class Ready(NamedTuple):
    """A call that was checked, with its plan and what it hears; ``inputs`` without the audio of the lookahead."""

    call: StepCall
    inputs: Inputs
    plan: ChunkPlan
    heard: HeardAudio

    def store(self, held: Held) -> None:
        """Take what a pass left into the cache."""
        self.call.cache.store(held, self.plan.chunk, self.inputs.audio.flatten(1, 2))


class _Laid(NamedTuple):
    """What the chunks of some calls read, one after the other, and the plans and sounds that it was made of."""

    plans: list[ChunkPlan]
    heards: list[HeardAudio]
    view: ChunkView
    heard: HeardAudio

    @property
    def sizes(self) -> tuple[object, ...]:
        """Of what is read, which a compiled step takes for granted."""
        leaves = pytree.tree_leaves((self.view, self.heard))
        return tuple(leaf.shape for leaf in leaves if isinstance(leaf, Tensor))

    def is_of(self, batch: Sequence[Ready]) -> bool:
        return len(batch) == len(self.plans) and all(
            ready.plan is plan and ready.heard is heard
            for ready, plan, heard in zip(batch, self.plans, self.heards, strict=True)
        )


class StepsTogether:
    """Makes steps of several caches of one model in as few batches as there can be.

    It keeps what it laid together for as long as the same calls come, step after step; let go of it with their chunks.
    """

    def __init__(self, model: DualForce) -> None:
        self._model = model
        self._laid: list[_Laid] = []
        self._apart: list[ChunkPlan] = []

    def step(self, calls: Sequence[StepCall]) -> list[Velocity | Exception]:
        """Return what :meth:`df_models.DualForce.step` returns for each call; an exception where it would raise one.

        Calls go into one batch whose chunks have the same number of frames and the same height and width, and that
        are conditioned on the same things; only some of them may write. What a batch cannot do is tried call by call,
        for the rest of these chunks, so that one that fails fails alone. A compiled model compiles each size of a batch
        anew, so its batches are of 2, 4, 8, ... calls with as many samples each.

        Args:
            calls: of different caches.
        """
        assert len({id(call.cache) for call in calls}) == len(calls), "a cache takes one step at a time"
        found: dict[int, Velocity | Exception] = {}
        batches: dict[Hashable, list[tuple[int, Ready]]] = {}
        for place, call in enumerate(calls):
            ready = _caught(self._model._ready, call)
            if isinstance(ready, Exception):
                found[place] = ready
            else:
                key = (_alike(ready), len(ready.inputs.structure)) if self._model.compiled_step else _alike(ready)
                batches.setdefault(key, []).append((place, ready))
        kept = []
        self._apart = self._apart[-REMEMBERED:]
        for batch in batches.values():
            for part in _powers_of_two(batch) if self._model.compiled_step else [batch]:
                places, every = [place for place, _ in part], [ready for _, ready in part]
                found |= zip(places, self._batch(every, kept), strict=True)
        self._laid = kept
        return [found[place] for place in range(len(calls))]

    def _batch(self, batch: list[Ready], kept: list[_Laid]) -> Sequence[Velocity | Exception]:
        failed_before = any(ready.plan is plan for ready in batch for plan in self._apart)
        if len(batch) > 1 and not failed_before:
            try:
                velocities, helds = self._together(batch, kept)
            except Exception as error:
                self._apart += [ready.plan for ready in batch]
                _log.warning("%d steps could not be made in one batch, and are made one by one: %s", len(batch), error)
            else:
                return [_caught(_stored, *each) for each in zip(batch, helds, velocities, strict=True)]
        return [_caught(self._model._run_ready, ready) for ready in batch]

    @torch.no_grad()
    def _together(self, batch: list[Ready], kept: list[_Laid]) -> tuple[list[Velocity], list[Held | None]]:
        """Run a batch; return each call's velocities, and what it is to store. No cache changes."""
        laid = next((laid for laid in self._laid if laid.is_of(batch)), None) or _laid(batch)
        inputs, noise = _one([ready.inputs for ready in batch]), _one([ready.call.noise for ready in batch])
        write, known = any(ready.call.write for ready in batch), _known(batch)
        velocity, held = self._model._run_chunk(inputs, laid.heard, laid.view, known, write, noise, laid.sizes)
        kept.append(laid)
        sizes = [len(ready.inputs.structure) for ready in batch]
        velocities = zip(*(stream.split(sizes) for stream in velocity), strict=True)
        helds = [None] * len(batch) if held is None else _divided(held, sizes)
        return (
            [type(velocity)(*parts).like(*ready.call[:2]) for ready, parts in zip(batch, velocities, strict=True)],
            [part if ready.call.write else None for ready, part in zip(batch, helds, strict=True)],
        )


def _powers_of_two(calls: Sequence[T]) -> Iterator[Sequence[T]]:
    """Divide calls into parts of 1, 2, 4, ... calls, the largest first."""
    while calls:
        most = 1 << (len(calls).bit_length() - 1)
        yield calls[:most]
        calls = calls[most:]


def _stored(ready: Ready, held: Held | None, velocity: Velocity) -> Velocity:
    if held is not None:
        ready.store(held)
    return velocity


def _caught(call: Callable[..., T], *args: Any) -> T | Exception:
    try:
        return call(*args)
    except Exception as error:
        return error


def _alike(ready: Ready) -> Hashable:
    """What calls have in common that fit into one batch: the shapes of what they read, the batch apart."""
    call, view = ready.call, ready.plan.view
    read = (ready.inputs, view.video_context, view.structure_context, ready.heard.keys, call.noise)
    leaves, structure = pytree.tree_flatten(read)
    return str(structure), tuple(None if leaf is None else (leaf.shape[1:], leaf.dtype, leaf.device) for leaf in leaves)


def _one(trees: Sequence[Any]) -> Any:
    """Lay the tensors of trees alike one after the other along the batch; None stays None."""
    return pytree.tree_map(lambda *each: None if each[0] is None else torch.cat(each), *trees)


def _known(batch: list[Ready]) -> Tensor | None:
    """Return which entries are given, of all samples; None if nobody gives any."""
    every = [ready.call.structure_known for ready in batch]
    if all(known is None for known in every):
        return None
    structures = (ready.inputs.structure for ready in batch)
    none = (torch.zeros_like(structure, dtype=torch.bool) for structure in structures)
    return torch.cat([nothing if known is None else known for known, nothing in zip(every, none, strict=True)])


def _divided(held: Held, sizes: list[int]) -> list[Held]:
    """Return of what a pass left each call's part."""

    def part(begin: int, size: int) -> Held:
        end = begin + size
        rings = ([[(k[begin:end], v[begin:end]) for k, v in layer] for layer in ring or ()] for ring in held)
        return Held(*rings)

    return [part(sum(sizes[:index]), size) for index, size in enumerate(sizes)]


def _laid(batch: list[Ready]) -> _Laid:
    plans, heards = [ready.plan for ready in batch], [ready.heard for ready in batch]
    return _Laid(plans, heards, views_together([plan.view for plan in plans]), heard_together(heards))


def views_together(views: Sequence[ChunkView]) -> ChunkView:
    """Return what chunks of several caches read as one, one cache after the other along the batch."""
    sizes = [len(view.reference_latent) for view in views]
    names = ("video", "structure", "bridge_to_video", "bridge_to_structure")
    rings = {name: _ring([getattr(view, name) for view in views], sizes) for name in names}
    same = [_same_frame([view.same_frame[side] for view in views], sizes) for side in (0, 1)]
    contexts = ("video_context", "structure_context", "aligned_BC", "reference_latent")
    read = {name: _one([getattr(view, name) for view in views]) for name in contexts}
    return views[0]._replace(**rings, same_frame=(same[0], same[1]), **read)


def heard_together(heards: Sequence[HeardAudio]) -> HeardAudio:
    """Return what several chunks hear as one.

    Of the windows the rotations are read alone: the tokens are made of the rest, and are there.
    """
    tokens = [heard.tokens_BTSD for heard in heards]
    tables = _tables([heard.windows.table_TSP2 for heard in heards], [len(each) for each in tokens])
    windows: AudioWindows = replace(heards[0].windows, table_TSP2=tables)
    return HeardAudio(torch.cat(tokens), windows, _one([heard.keys for heard in heards]))


def _ring(views: Sequence[RingView | None], sizes: list[int]) -> RingView | None:
    """Lay views of one ring together; the places of shorter ones are filled up with such as nobody sees."""
    if views[0] is None:
        return None
    there = [view for view in views if view is not None]
    places = max(view.keys_YBFNHK.shape[2] for view in there)
    alike = all(view.mask is None and view.keys_YBFNHK.shape[2] == places for view in there)
    return RingView(
        torch.cat([_filled(view.keys_YBFNHK, places) for view in there], dim=1),
        torch.cat([_filled(view.values_YBFNHK, places) for view in there], dim=1),
        _tables([view.query_table_CNP2 for view in there], sizes),
        _tables([view.own_table_CNP2 for view in there], sizes),
        None if alike else torch.cat([_mask(view, places).expand(n, 1, -1, -1) for view, n in zip(there, sizes)]),
    )


def _filled(stored_YBFNHK: Tensor, places: int) -> Tensor:
    lacks = places - stored_YBFNHK.shape[2]
    return pad(stored_YBFNHK, (0, 0, 0, 0, 0, 0, 0, lacks)) if lacks else stored_YBFNHK


def _mask(view: RingView, places: int) -> Tensor:
    """Return a view's additive mask ``[Lq, Lk]`` over as many places and the chunk; 0 where it has none."""
    stored, own = view.keys_YBFNHK, view.own_table_CNP2.shape
    tokens = stored.shape[2] * stored.shape[3]
    mask = view.mask
    if mask is None:
        mask = stored.new_zeros(view.query_table_CNP2.shape[:2].numel(), tokens + own[:2].numel())
    empty = (places - stored.shape[2]) * stored.shape[3]
    return torch.cat([pad(mask[:, :tokens], (0, empty), value=-torch.inf), mask[:, tokens:]], dim=1)


def _tables(tables: Sequence[Tensor], sizes: list[int]) -> Tensor:
    """Return rotations of each sample ``[B, C, N, P, 2]``."""
    return torch.cat([table.expand(size, *table.shape) for table, size in zip(tables, sizes, strict=True)])


def _same_frame(attends: Sequence[Attend | None], sizes: list[int]) -> Attend | None:
    there = [attend for attend in attends if isinstance(attend, SameFrame)]
    if not there:
        return None
    queries = _tables([attend.query_table_TNP2 for attend in there], sizes)
    return SameFrame(queries, _tables([attend.key_table_TNP2 for attend in there], sizes))
