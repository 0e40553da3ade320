"""How well an expert tells audio in sync from shifted audio, on held-out people.

A clip counts by all its windows and all shifts that fit; intervals are over clips (people), since windows of one clip
are not independent of each other.

Shape legend: N clips (or windows, behind B), T latent frames, X shifts, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from df_data.reading import Batch
from df_data.reading.batch import Recipe, clip_of, collate
from df_data.reading.shard import RawSample
from df_models.encoders import AudioPool
from df_train.sync.expert import SyncExpert
from df_train.sync.pairs import FARTHEST, SHIFTS, Candidates, compare

_RESAMPLES = 2000
_OFFSETS = tuple(range(-FARTHEST, FARTHEST + 1))


@dataclass(frozen=True)
class Accuracy:
    """A share of comparisons that came out right, with its 95 % interval over clips.

    Attributes:
        value, low, high: NaN without any comparison.
        clips, comparisons: what it rests on.
    """

    value: float
    low: float
    high: float
    clips: int
    comparisons: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.clips} clips)"


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


def accuracy(pairs_N2: np.ndarray, seed: int = 0) -> Accuracy:
    """The share over all clips, with a percentile bootstrap over clips (Efron 1979)."""
    pairs_N2 = pairs_N2[pairs_N2[:, 1] > 0]
    count = len(pairs_N2)
    if not count:
        return Accuracy(float("nan"), float("nan"), float("nan"), 0, 0)
    picks_RN = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    right, total = (pairs_N2[:, i][picks_RN].sum(axis=1) for i in (0, 1))
    low, high = np.quantile(right / total, [0.025, 0.975])
    right_all, total_all = pairs_N2.sum(axis=0)
    return Accuracy(float(right_all / total_all), float(low), float(high), count, int(total_all))


def measure(expert: SyncExpert, clips: Iterable[Batch]) -> tuple[Accuracy, Accuracy, float]:
    """Accuracy against all shifts and against the nearest alone, and the share of clips whose best offset is 0.

    A clip's best offset is the shift, of -10 to 10 pixel frames, at which the mean cosine of its windows is largest.
    """
    pairs, hits = [], []
    device = expert.audio_mean.device
    for batch in clips:
        batch = batch.to(device)
        pairs.append(right_and_all(judged(expert, batch)))
        hits.append(best_offset(expert, batch) == 0)
    stacked = np.stack(pairs)
    return accuracy(stacked[:, 0]), accuracy(stacked[:, 1]), float(np.mean(hits))


@torch.no_grad()
def best_offset(expert: SyncExpert, batch: Batch) -> int:
    """The shift in pixel frames, positive if the lips go with later audio, at which a clip's mean cosine is largest."""
    found = compare(expert.video(batch.video, batch.mouth_mask), expert.audio(batch.audio), _OFFSETS).shifted_BNX
    fits = torch.isfinite(found)
    means_X = found.where(fits, 0.0).sum(dim=(0, 1)) / fits.sum(dim=(0, 1)).clamp_min(1)
    return _OFFSETS[int(means_X.masked_fill(~fits.any(dim=0).any(dim=0), -torch.inf).argmax())]


def read_pieces(samples: Iterable[RawSample], length: int, pool: AudioPool, count: int) -> Sequence[Batch]:
    """The first clips of a split, each cut into its pieces."""
    return [pieces_of(sample, length, pool) for sample, _ in zip(samples, range(count))]
