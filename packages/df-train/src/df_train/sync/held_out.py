"""How well an expert tells audio in sync from shifted audio, on held-out people.

A clip counts by all its windows and all shifts that fit; intervals are over people, by the rule that df-eval's metrics
have (`df_models.intervals`), since neither windows of one clip nor clips of one person are independent of each other.

Shape legend: N clips (or windows, behind B), T latent frames, X shifts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from df_data.reading import Batch
from df_data.reading.batch import Recipe, clip_of, collate
from df_data.reading.shard import RawSample
from df_models.encoders import AudioPool
from df_models.intervals.estimate import Cells, estimate
from df_models.intervals.ranges import SHARE
from df_train.sync.expert import SyncExpert
from df_train.sync.pairs import FARTHEST, SHIFTS, Candidates, compare

_OFFSETS = tuple(range(-FARTHEST, FARTHEST + 1))


@dataclass(frozen=True)
class Accuracy:
    """A share of comparisons that came out right, with its 95 % interval over people (over clips, of one person).

    Attributes:
        value: NaN without any comparison; ``low``, ``high``: NaN with fewer than two clips, too.
        clips, people, comparisons: what it rests on.
    """

    value: float
    low: float
    high: float
    clips: int
    people: int
    comparisons: int

    def __str__(self) -> str:
        of = "1 person" if self.people == 1 else f"{self.people} people"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.clips} clips of {of})"


class HeldOut(NamedTuple):
    """A held-out clip: who it is of, and its pieces in one batch."""

    person: str
    pieces: Batch


def pieces_of(sample: RawSample, length: int, pool: AudioPool) -> Batch:
    """A clip cut into as many crops of `length` latent frames as fit, in one batch; they share their first frames.

    The expert leaves out first frames, so none is seen twice, and none is taken for a clip's first.

    Raises:
        UserError: the clip is shorter than that.
    """
    clip = clip_of(sample, None)
    if len(clip.video) < length:
        clip = clip_of(sample, length)
    whole = collate([clip], [0], None, Recipe(0, pool))
    starts = range(0, len(clip.video) - length + 1, length - 1)
    timed = ("video", "structure", "audio", "mouth_mask", *(("flame",) if whole.flame is not None else ()))
    cut = {name: torch.cat([getattr(whole, name)[:, start : start + length] for start in starts]) for name in timed}
    rows = {
        name: value.expand(len(starts), *value.shape[1:]).contiguous()
        for name, value in vars(whole).items()
        if isinstance(value, Tensor) and name not in timed
    }
    rows["sample_ids"] = rows["sample_ids"] + torch.arange(len(starts))  # else all pieces would get one noise
    rows["start"] = torch.tensor(starts)
    rows["reference_frame"] = torch.where(rows["start"] == 0, rows["reference_frame"], -1)
    return replace(whole, keys=whole.keys * len(starts), **cut, **rows)


@torch.no_grad()
def judged(expert: SyncExpert, batch: Batch, video: Tensor | None = None) -> Candidates:
    """The expert's cosines of a batch, or of other latents in place of its own."""
    video = batch.video if video is None else video
    return compare(expert.video(video, batch.mouth_mask), expert.audio(batch.audio))


def right_and_all(found: Candidates, where_BN: Tensor | None = None) -> np.ndarray:
    """Comparisons that came out right, and their number, for all shifts and for each distance: int64 `[1 + 9, 2]`.

    Args:
        where_BN: bool, the windows that count; None: all.
    """
    fits = torch.isfinite(found.shifted_BNX)
    if where_BN is not None:
        fits = fits & where_BN[..., None]
    right = (found.own_BN[..., None] > found.shifted_BNX) & fits
    pairs_X2 = torch.stack([right.sum(dim=(0, 1)), fits.sum(dim=(0, 1))], dim=-1).cpu().numpy()
    distances = sorted({abs(shift) for shift in SHIFTS})
    each = [sum(pairs_X2[i] for i, shift in enumerate(SHIFTS) if abs(shift) == far) for far in distances]
    return np.stack([pairs_X2.sum(axis=0), *each])


def accuracy(pairs_N2: np.ndarray, people: Sequence[str], seed: int = 0) -> Accuracy:
    """The share over all clips: sum of those right over sum of all; ``people`` are the clips', in their order."""
    right_1N, total_1N = np.asarray(pairs_N2, dtype=np.float64).T[:, None]
    found = estimate(Cells(right_1N, total_1N), within=SHARE, people=people, seed=seed)
    value, low, high = (float("nan") if x is None else x for x in (found.value, found.low, found.high))
    return Accuracy(value, low, high, found.clips, found.people, int(total_1N.sum()))


def measure(expert: SyncExpert, clips: Sequence[HeldOut]) -> tuple[Accuracy, Accuracy, float]:
    """Accuracy against all shifts and against the nearest alone, and the share of clips whose best offset is 0.

    A clip's best offset is the shift, of -10 to 10 pixel frames, at which the mean cosine of its windows is largest.
    """
    pairs, hits = [], []
    device = expert.audio_mean.device
    for clip in clips:
        batch = clip.pieces.to(device)
        pairs.append(right_and_all(judged(expert, batch)))
        hits.append(best_offset(expert, batch) == 0)
    stacked, people = np.stack(pairs), [clip.person for clip in clips]
    return accuracy(stacked[:, 0], people), accuracy(stacked[:, 1], people), float(np.mean(hits))


@torch.no_grad()
def best_offset(expert: SyncExpert, batch: Batch) -> int:
    """The shift in pixel frames, positive if the lips go with later audio, at which a clip's mean cosine is largest."""
    found = compare(expert.video(batch.video, batch.mouth_mask), expert.audio(batch.audio), _OFFSETS).shifted_BNX
    fits = torch.isfinite(found)
    means_X = found.where(fits, 0.0).sum(dim=(0, 1)) / fits.sum(dim=(0, 1)).clamp_min(1)
    return _OFFSETS[int(means_X.masked_fill(~fits.any(dim=0).any(dim=0), -torch.inf).argmax())]


def read_pieces(samples: Iterable[RawSample], length: int, pool: AudioPool, count: int) -> list[HeldOut]:
    """The first clips of a split, each cut into its pieces."""
    return [HeldOut(sample.identity, pieces_of(sample, length, pool)) for sample in itertools.islice(samples, count)]
