"""What a dataset holds, in numbers: one pass over each split's shards, and one over the ledger.

Shape legend: P pixel frames, D_s width of the structure vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from df_data.format.dataset import split_directories
from df_data.format.ledger import LEDGER_NAME, Ledger
from df_data.format.manifest import Manifest, read_manifest
from df_data.format.measures import measures_of
from df_data.format.sample import LAYOUTS, EncoderRecord, Sample
from df_data.format.shards import iter_samples
from df_data.format.statistics import Moments, merge_moments, moments_of
from df_data.people.across import PeopleAcross, SplitComparison
from df_models.settings import FrozenModel
from df_models.structure import VectorLayout
from df_models.time import FPS

SECONDS_PER_HOUR = 3600
MOST_LENGTHS = 8
"""With at most so many different lengths the histogram counts each; with more it has that many equal bins."""


class Spread(FrozenModel):
    """How values are spread: extremes and quantiles over `count` clips (or frames)."""

    count: int
    min: float
    q05: float
    median: float
    q95: float
    max: float


class LengthBin(FrozenModel):
    """Clips of `shortest` to `longest` pixel frames, both included."""

    shortest: int
    longest: int
    clips: int


class TensorStorage(FrozenModel):
    """What one tensor takes in all clips together; `elements` are those of the clips that have it."""

    dtype: str
    bytes: int
    clips: int


class FieldSummary(FrozenModel):
    """Mean, standard deviation, least and greatest value of each entry of a named field, over all pixel frames."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]


class MeanStd(FrozenModel):
    """Mean and standard deviation of all entries of a tensor, over all clips."""

    mean: float
    std: float


class SplitSummary(FrozenModel):
    """One split.

    Attributes:
        most_clips_of_a_person: clips of the person with the most.
        with_video: clips that have their mp4.
        halved: clips that have half their weight by fault, as their build recorded it; one may have several.
        shard_bytes: size of the shard files, tar headers and all; `bytes_per_hour` the same per hour of clips.
        scores: spread of every score that the build recorded; `measures` of what the tensors themselves tell
            (:func:`df_data.format.measures.measures_of`).
        structure: the structure vector by its named fields.
    """

    directory: str
    split: str
    complete: bool
    clips: int
    seconds: float
    hours: float
    persons: int
    most_clips_of_a_person: int
    with_video: int
    halved: dict[str, int]
    height: int
    width: int
    crop: str
    shards: int
    shard_bytes: int
    bytes_per_hour: float
    video_bytes: int
    licences: dict[str, int]
    lengths: tuple[LengthBin, ...]
    scores: dict[str, Spread]
    measures: dict[str, Spread]
    tensors: dict[str, TensorStorage]
    latents: MeanStd | None
    audio: MeanStd | None
    structure_layout: str
    structure_frames: int
    structure: dict[str, FieldSummary]
    encoders: dict[str, EncoderRecord]


class LedgerSummary(FrozenModel):
    """What became of the inputs; `reject_scores` is the spread of every score over the rejected ones."""

    counts: dict[str, int]
    reasons: dict[str, int]
    failures: dict[str, str]
    reject_scores: dict[str, Spread]


class DatasetSummary(FrozenModel):
    """All splits, the ledger where there is one, and who is in several splits where there are several."""

    splits: tuple[SplitSummary, ...]
    ledger: LedgerSummary | None
    people: PeopleAcross | None


def summarise(directory: Path) -> DatasetSummary:
    """Read a whole dataset, or one split of it.

    Raises:
        UserError: no dataset, or a damaged shard.
    """
    paths = split_directories(directory)
    comparison, splits = SplitComparison(), {}
    smallest_first = sorted(paths, key=lambda path: read_manifest(path).count)
    for path in smallest_first:
        splits[path] = summarise_split(path, comparison, last=path == smallest_first[-1])
    return DatasetSummary(
        splits=tuple(splits[path] for path in paths),
        ledger=summarise_ledger(directory),
        people=comparison.result() if len(paths) > 1 else None,
    )


def summarise_split(directory: Path, comparison: SplitComparison, *, last: bool) -> SplitSummary:
    """Read one split, and compare its people with those of the splits before; the ``last`` one's need not be kept."""
    manifest, seen = read_manifest(directory), _Gathered()
    for sample in iter_samples(directory):
        seen.add(sample)
        comparison.add(sample, hold=not last)
    comparison.end_split()
    shard_bytes = sum(shard.bytes for shard in manifest.shards)
    hours = manifest.pixel_frames / FPS / SECONDS_PER_HOUR
    return SplitSummary(
        directory=str(directory),
        split=manifest.split,
        complete=manifest.complete,
        clips=manifest.count,
        seconds=manifest.pixel_frames / FPS,
        hours=hours,
        persons=len(seen.identities),
        most_clips_of_a_person=max(seen.identities.values(), default=0),
        with_video=seen.with_video,
        halved=dict(seen.halved.most_common()),
        height=manifest.height,
        width=manifest.width,
        crop=manifest.crop,
        shards=len(manifest.shards),
        shard_bytes=shard_bytes,
        bytes_per_hour=shard_bytes / hours if hours else 0.0,
        video_bytes=seen.video_bytes,
        licences=dict(seen.licences.most_common()),
        lengths=length_histogram(seen.lengths),
        scores=spreads(seen.scores),
        measures=spreads(seen.measures),
        tensors={name: seen.tensors[name] for name in sorted(seen.tensors)},
        latents=_mean_std(seen.latents),
        audio=_mean_std(seen.audio),
        structure_layout=manifest.structure_layout,
        structure_frames=merge_moments(shard.structure for shard in manifest.shards).count,
        structure=_fields(manifest, seen),
        encoders=manifest.encoders,
    )


def summarise_ledger(root: Path) -> LedgerSummary | None:
    """Read what became of the inputs; None if the directory has no ledger."""
    if not (root / LEDGER_NAME).is_file():
        return None
    ledger = Ledger(root / LEDGER_NAME)
    scores: dict[str, list[float]] = {}
    for entry in ledger.of_status("rejected"):
        gather(scores, entry.scores)
    return LedgerSummary(
        counts=ledger.counts(),
        reasons=ledger.reasons(),
        failures={entry.input: entry.error or "" for entry in ledger.of_status("failed")},
        reject_scores=spreads(scores),
    )


def gather(into: dict[str, list[float]], values: Mapping[str, float]) -> None:
    """Append named values to the lists of their names."""
    for name, value in values.items():
        into.setdefault(name, []).append(value)


def spreads(values: Mapping[str, list[float]]) -> dict[str, Spread]:
    """Return the spread of each named list, by name."""
    return {name: spread(values[name]) for name in sorted(values)}


def spread(values: list[float]) -> Spread:
    """Return the spread of a list that is not empty."""
    low, q05, median, q95, high = np.percentile(values, [0, 5, 50, 95, 100]).tolist()
    return Spread(count=len(values), min=low, q05=q05, median=median, q95=q95, max=high)


def length_histogram(lengths: list[int]) -> tuple[LengthBin, ...]:
    """Count clips by pixel frames: each length alone if there are few, else in equal bins from shortest to longest."""
    found = Counter(lengths)
    if len(found) <= MOST_LENGTHS:
        return tuple(LengthBin(shortest=n, longest=n, clips=found[n]) for n in sorted(found))
    edges = np.linspace(min(lengths), max(lengths) + 1, MOST_LENGTHS + 1).round().astype(int).tolist()
    counts = np.histogram(lengths, edges)[0].tolist()
    return tuple(LengthBin(shortest=a, longest=b - 1, clips=n) for a, b, n in zip(edges, edges[1:], counts))


@dataclass
class _Gathered:
    """What one pass over the samples of a split collects."""

    identities: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    halved: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    latents: list[Moments] = field(default_factory=list)
    audio: list[Moments] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    measures: dict[str, list[float]] = field(default_factory=dict)
    tensors: dict[str, TensorStorage] = field(default_factory=dict)
    with_video: int = 0
    video_bytes: int = 0
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def add(self, sample: Sample) -> None:
        meta, tensors = sample.meta, sample.tensors
        self.identities[meta.identity] += 1
        self.licences[meta.licence] += 1
        self.halved.update(meta.weight_lowered_by())
        self.lengths.append(meta.num_frames)
        self.latents.append(_moments(tensors["video_latent"]))
        self.audio += [_moments(tensors["audio"])] if meta.has_face else []
        self.with_video += sample.video is not None
        self.video_bytes += len(sample.video or b"")
        gather(self.scores, meta.scores)
        gather(self.measures, measures_of(sample))
        for name, tensor in tensors.items():
            before = self.tensors.get(name) or TensorStorage(dtype=_dtype(tensor), bytes=0, clips=0)
            self.tensors[name] = TensorStorage(
                dtype=before.dtype, bytes=before.bytes + tensor.nbytes, clips=before.clips + 1
            )
        if not meta.has_face:
            return
        low, high = (value.numpy() for value in torch.aminmax(tensors["structure"], dim=0))
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _moments(tensor: torch.Tensor) -> Moments:
    return moments_of(tensor.float().numpy().reshape(-1, 1))


def _mean_std(pieces: list[Moments]) -> MeanStd | None:
    merged = merge_moments(pieces)
    return MeanStd(mean=merged.mean[0], std=float(merged.std[0])) if merged.count else None


def _fields(manifest: Manifest, seen: _Gathered) -> dict[str, FieldSummary]:
    merged = merge_moments(shard.structure for shard in manifest.shards)
    if merged.count == 0 or seen.low is None or seen.high is None:
        return {}
    layout: VectorLayout = LAYOUTS[manifest.structure_layout]
    rows = {"mean": merged.mean, "std": merged.std.tolist(), "min": seen.low.tolist(), "max": seen.high.tolist()}
    return {
        name: FieldSummary(**{kind: tuple(row[layout.slice(name)]) for kind, row in rows.items()})
        for name, _ in layout.fields
    }
