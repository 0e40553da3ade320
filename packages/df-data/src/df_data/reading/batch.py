"""A batch as training and evaluation take it: time in slots, audio pooled, a reference chosen.

A clip that starts anywhere but at its first frame is not what the VAE would have made of it: the latent of a slice is
not the slice of the latents, because the first latent of a clip covers one pixel frame and every other covers four.
So clips are *anchored* at their start, or (`start="marked"`) start anywhere and say so in `Batch.start`: latents,
structure, audio and mouth boxes of such a crop are aligned to the frame, but its first latent is an ordinary one, seen
with a past that the crop does not hold, and its four slots are four frames, not one repeated. An objective should
leave that latent out of its loss or give it as clean context, and must not take it for an image. The exact way to
more starts is several anchored windows per video, which the build makes.

There is no horizontal flip: the VAE is not symmetric, so mirrored latents are not the latents of the mirrored video,
and audio would be all that is right about the batch. To train on mirrored clips, mirror the videos before they are
encoded.

Shape legend: B clips, T latent frames, S = 4 slots, h, w latent cells, R reference images, N reference tokens,
P pixel frames, A = 2P audio features, L text tokens, D feature widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from df_data.common.hashing import hash_int, hash_unit
from df_data.reading.shard import RawSample
from df_models.errors import UserError
from df_models.structure import flame_motion
from df_models.time import SLOTS, SPATIAL_STRIDE, pixel_length, pixels_of_latent, pool_audio

CropStart = Literal["anchored", "marked"]
AudioPool = Literal["mean", "concat"]
StructureSource = Literal["structure", "flame"]
"""Which vectors of a clip are its structure: the dataset's own, or the motion part of its FLAME vectors."""


@dataclass(frozen=True)
class Clip:
    """One sample as it is stored, all its reference images still there; slices of numpy arrays cost least.

    Attributes:
        video: float16 ``[T, 16, h, w]``.
        structure, flame, mouth_boxes: float32 ``[P, D]``; ``flame`` may be None.
        audio: float16 ``[A, D]``, not pooled; of general video, D is 0 in all of these.
        reference_latents, reference_features, reference_frames: ``[R, ...]``.
        text: float16 ``[L, D_t]``, not padded, or None.
        bytes: memory that the tensors keep.
    """

    key: str
    video: np.ndarray
    structure: np.ndarray
    audio: np.ndarray
    mouth_boxes: np.ndarray
    reference_latents: np.ndarray
    reference_features: np.ndarray
    reference_frames: np.ndarray
    flame: np.ndarray | None
    weight: float
    bytes: int
    text: np.ndarray | None = None


@dataclass(frozen=True)
class Recipe:
    """How clips become a batch.

    Attributes:
        seed: of the choices below and of the reference image; they depend on (seed, epoch, key) alone.
        audio_pool: how two audio features become one slot.
        start: whether a crop begins at its clip's start, or anywhere (and is marked).
        drop_audio, drop_reference: share of the clips whose audio or reference image and tokens are zeros.
        structure: which of a clip's vectors the batch's structure is.
    """

    seed: int
    audio_pool: AudioPool = "concat"
    start: CropStart = "anchored"
    drop_audio: float = 0.0
    drop_reference: float = 0.0
    structure: StructureSource = "structure"


@dataclass(frozen=True)
class Batch:
    """Clips of equal length.

    Attributes:
        keys: names of the samples.
        sample_ids: int64 ``[B]``, a hash of (key, epoch): what noise is keyed by.
        video: normalised latents, float32 ``[B, T, 16, h, w]``.
        structure: raw vectors, float32 ``[B, T, 4, D_s]``.
        audio: pooled features, float32 ``[B, T, 4, D_a]``.
        reference_latent: float32 ``[B, 16, h, w]``, one image of the same clip, encoded alone.
        reference_tokens: float32 ``[B, N, D_r]``.
        reference_frame: int64 ``[B]``: 0 if the image is pixel frame 0, whose latent frame it equals; else -1.
        mouth_mask: float32 ``[B, T, h, w]``, share of each latent cell inside the mouth box.
            Clips of general video have structure and audio of width 0, and no cell is inside a mouth box.
        weight: float32 ``[B]`` in [0, 1], how much the clip should count (soft quality problems lower it).
        start: int64 ``[B]``, the stored clip's latent frame that the crop begins with; 0 is anchored (see the module).
        audio_dropped, reference_dropped: bool ``[B]``, whose audio, or reference image and tokens, are zeros.
        flame: float32 ``[B, T, 4, 159]``, or None if a clip has none.
        text: float32 ``[B, L, D_t]``, or None if a clip has none; L is the longest prompt's length, shorter ones end in
            zero rows. A model reads 512 rows: :func:`df_models.text.pad_text`, best after the batch has moved to
            its device (of UMT5's width they are 8 MB per clip).
    """

    keys: list[str]
    sample_ids: Tensor
    video: Tensor
    structure: Tensor
    audio: Tensor
    reference_latent: Tensor
    reference_tokens: Tensor
    reference_frame: Tensor
    mouth_mask: Tensor
    weight: Tensor
    start: Tensor
    audio_dropped: Tensor
    reference_dropped: Tensor
    flame: Tensor | None = None
    text: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def anchored(self) -> Tensor:
        """Bool ``[B]``: whose first latent frame is a clip's first, which covers one pixel frame."""
        return self.start == 0

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)})


def clip_of(raw: RawSample, num_latent: int | None) -> Clip:
    """A sample as a clip, cut to its first ``num_latent`` latent frames (None: whole).

    Raises:
        UserError: the clip is shorter than that.
    """
    tensors = raw.tensors
    have = len(tensors["video_latent"])
    length = have if num_latent is None else num_latent
    if length > have:
        raise UserError(f"sample {raw.key} has {have} latent frames, {length} were asked for; lower num_frames")
    if length < have:
        tensors = _cut(tensors, length)
    return Clip(
        key=raw.key,
        video=tensors["video_latent"],
        structure=tensors["structure"],
        audio=tensors["audio"],
        mouth_boxes=tensors["mouth_boxes"],
        reference_latents=tensors["reference_latents"],
        reference_features=tensors["reference_features"],
        reference_frames=tensors["reference_frames"],
        flame=tensors.get("flame"),
        weight=raw.weight,
        bytes=raw.bytes if length == have else sum(tensor.nbytes for tensor in tensors.values()),
        text=tensors.get("text_features"),
    )


def _cut(tensors: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """The first ``length`` latent frames of each stream, copied, so that what is cut off is not kept in memory."""
    pixels = pixel_length(length)
    rows = {"video_latent": length, "audio": 2 * pixels, "structure": pixels, "flame": pixels, "mouth_boxes": pixels}
    return {name: tensor[: rows.get(name)].copy() for name, tensor in tensors.items()}


def collate(clips: Sequence[Clip], epochs: Sequence[int], num_latent: int | None, recipe: Recipe) -> Batch:
    """Join clips; ``num_latent`` is the length of a crop that may start anywhere (None: the clips' own length).

    Raises:
        UserError: the clips differ in length or size.
    """
    named = [(recipe.seed, epoch, clip.key) for clip, epoch in zip(clips, epochs)]
    lengths = [len(clip.video) if num_latent is None else num_latent for clip in clips]
    shapes = {(length, *clip.video.shape[1:]) for clip, length in zip(clips, lengths)}
    if len(shapes) != 1:
        raise UserError(
            f"clips of different shapes {sorted(shapes)} in one batch; set num_frames to the shortest, or use buckets"
        )
    length, _, height, width = shapes.pop()
    starts = [_start(clip, length, name, recipe) for clip, name in zip(clips, named)]
    picks = [hash_int(*name, "reference") % len(clip.reference_frames) for clip, name in zip(clips, named)]
    images = [int(clip.reference_frames[pick]) for clip, pick in zip(clips, picks)]
    flames = [clip.flame for clip in clips if clip.flame is not None]
    texts = [clip.text for clip in clips if clip.text is not None]
    if len({clip.structure.shape[-1] for clip in clips}) != 1:
        raise UserError(f"clips with and without a face in one batch ({', '.join(clip.key for clip in clips)})")
    boxes_BTSK = in_frames(slots([clip.mouth_boxes for clip in clips], starts, length))
    batch = Batch(
        keys=[clip.key for clip in clips],
        sample_ids=torch.tensor([hash_int(clip.key, epoch) for clip, epoch in zip(clips, epochs)]),
        video=stacked([clip.video[start : start + length] for clip, start in zip(clips, starts)]),
        structure=in_frames(slots([_structure(clip, recipe.structure) for clip in clips], starts, length)),
        audio=in_frames(
            pool_audio(slots([clip.audio for clip in clips], starts, length, 2).float(), recipe.audio_pool)
        ),
        reference_latent=stacked([clip.reference_latents[p] for clip, p in zip(clips, picks)]),
        reference_tokens=stacked([clip.reference_features[p] for clip, p in zip(clips, picks)]),
        reference_frame=torch.tensor([0 if (p, start) == (0, 0) else -1 for p, start in zip(images, starts)]),
        mouth_mask=mouth_mask(boxes_BTSK, height, width)
        if boxes_BTSK.shape[-1]
        else torch.zeros(*boxes_BTSK.shape[:2], height, width),
        weight=torch.tensor([clip.weight for clip in clips]),
        start=torch.tensor(starts),
        audio_dropped=_chosen(named, "drop audio", recipe.drop_audio),
        reference_dropped=_chosen(named, "drop reference", recipe.drop_reference),
        flame=in_frames(slots(flames, starts, length)) if len(flames) == len(clips) else None,
        text=padded(texts) if len(texts) == len(clips) else None,
    )
    return _without_dropped(batch)


def structure_vectors(tensors: Mapping[str, Any], source: StructureSource, where: str) -> Any:
    """The structure ``[P, D]`` of a sample's tensors (numpy's or torch's).

    Raises:
        UserError: the sample has no FLAME vectors.
    """
    if source == "structure":
        return tensors["structure"]
    flame = tensors.get("flame")
    if flame is None:
        raise UserError(f"sample {where} holds no FLAME vectors to take the structure from; build it with an encoder")
    return flame_motion(flame)


def _structure(clip: Clip, source: StructureSource) -> np.ndarray:
    found = {"structure": clip.structure} | ({} if clip.flame is None else {"flame": clip.flame})
    return structure_vectors(found, source, clip.key)


def stacked(rows: Sequence[np.ndarray]) -> Tensor:
    """Stack as float32. Values that are stored in half precision are copied once, not stacked and then converted."""
    out = torch.empty((len(rows), *rows[0].shape))
    for row, into in zip(rows, out):
        into.copy_(torch.from_numpy(row))  # numpy converts half precision many times slower
    return out


def padded(texts_LD: Sequence[np.ndarray]) -> Tensor:
    """Stack texts as float32 ``[B, L, D]``, each with zero rows after it up to the longest one's length.

    Raises:
        UserError: they are of different widths.
    """
    widths = sorted({text.shape[-1] for text in texts_LD})
    if len(widths) != 1:
        raise UserError(f"clips with text features of widths {widths} in one batch; build the dataset with one encoder")
    out = torch.zeros(len(texts_LD), max(map(len, texts_LD)), widths[0])
    for text, into in zip(texts_LD, out):
        into[: len(text)].copy_(torch.from_numpy(text))
    return out


def _start(clip: Clip, length: int, name: tuple[int, int, str], recipe: Recipe) -> int:
    """The clip's latent frame that a crop of ``length`` begins with."""
    starts = 1 + len(clip.video) - length
    return hash_int(*name, "start") % starts if recipe.start == "marked" else 0


def _chosen(named: Sequence[tuple[int, int, str]], what: str, share: float) -> Tensor:
    if share == 0.0:
        return torch.zeros(len(named), dtype=torch.bool)
    return torch.tensor([hash_unit(*name, what) < share for name in named])


def _without_dropped(batch: Batch) -> Batch:
    """Put zeros where conditions are dropped."""
    if batch.audio_dropped.any():
        batch.audio[batch.audio_dropped] = 0.0
    if batch.reference_dropped.any():
        batch.reference_latent[batch.reference_dropped] = 0.0
        batch.reference_tokens[batch.reference_dropped] = 0.0
        batch.reference_frame[batch.reference_dropped] = -1
    return batch


def slots(clips_PD: Sequence[np.ndarray], starts: Sequence[int], length: int, rate: int = 1) -> Tensor:
    """Slots ``[B, 4 T rate, D]`` of ``length`` latent frames of each clip, from its latent frame ``start`` on.

    The slots of a crop are a run of pixel frames, so each clip is copied once; where it begins with latent frame 0,
    whose one pixel frame fills four slots, the run begins at the last of them (:func:`df_models.time.to_slots`).

    Args:
        rate: rows of a clip for each pixel frame, and so of the result for each slot.
    """
    out_BND = np.empty((len(clips_PD), rate * SLOTS * length, clips_PD[0].shape[-1]), clips_PD[0].dtype)
    for clip_PD, start, into_ND in zip(clips_PD, starts, out_BND):
        covered = pixels_of_latent(start)
        first, repeats = rate * covered.start, SLOTS - len(covered)
        run_ND = into_ND[rate * repeats :]
        run_ND[:] = clip_PD[first : first + len(run_ND)]
        if repeats:
            into_ND[: rate * repeats].reshape(repeats, rate, -1)[:] = clip_PD[first : first + rate]
    return torch.from_numpy(out_BND)


def in_frames(x_BND: Tensor) -> Tensor:
    """Slots one after the other ``[B, 4 T, D]`` as those of latent frames ``[B, T, 4, D]``."""
    return x_BND.unflatten(1, (-1, SLOTS))


def mouth_mask(boxes_TS4: Tensor, height: int, width: int) -> Tensor:
    """Return float32 ``[..., T, h, w]`` of boxes ``[..., T, 4, 4]``: the share of each latent cell inside the mouth
    box, mean over the frame's slots."""
    x0, y0, x1, y1 = (value[..., None] for value in boxes_TS4.float().unbind(-1))
    columns, rows = torch.arange(width) * SPATIAL_STRIDE, torch.arange(height) * SPATIAL_STRIDE
    across = (torch.minimum(x1, columns + SPATIAL_STRIDE) - torch.maximum(x0, columns)).clamp_min(0) / SPATIAL_STRIDE
    down = (torch.minimum(y1, rows + SPATIAL_STRIDE) - torch.maximum(y0, rows)).clamp_min(0) / SPATIAL_STRIDE
    slots_hw = (down[..., s, :, None] * across[..., s, None, :] for s in range(SLOTS))
    total = next(slots_hw)
    for slot in slots_hw:
        total += slot
    return total / SLOTS
