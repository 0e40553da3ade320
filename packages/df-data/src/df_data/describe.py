"""`df-data stats`: what a dataset holds, in lines for a person."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from df_data.ledger import LEDGER_NAME, Ledger
from df_data.manifest import Manifest, read_manifest
from df_data.sample import LAYOUTS, Sample
from df_data.shards import iter_samples
from df_data.statistics import Moments, merge_moments, moments_of
from df_models.time import FPS


@dataclass
class _Gathered:
    """What one pass over the samples of a split collects."""

    identities: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    latents: list[Moments] = field(default_factory=list)
    audio: list[Moments] = field(default_factory=list)
    mouth: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    with_video: int = 0

    def add(self, sample: Sample) -> None:
        meta, tensors = sample.meta, sample.tensors
        self.identities[meta.identity] += 1
        self.licences[meta.licence] += 1
        self.lengths.append(meta.num_frames)
        self.latents.append(moments_of(tensors["video_latent"].float().numpy().reshape(-1, 1)))
        self.audio.append(moments_of(tensors["audio"].float().numpy().reshape(-1, 1)))
        x0, y0, x1, y1 = tensors["mouth_boxes"].unbind(-1)
        self.mouth.append(float(((x1 - x0) * (y1 - y0)).mean()) / (meta.height * meta.width))
        self.with_video += sample.video is not None
        for name, value in meta.scores.items():
            self.scores.setdefault(name, []).append(value)


def describe_split(directory: Path) -> list[str]:
    """Return lines on a split: size, people, lengths, value ranges, scores, encoders.

    Raises:
        UserError: no such split, or a damaged shard.
    """
    manifest = read_manifest(directory)
    size = sum(shard.bytes for shard in manifest.shards) / 2**20
    state = "complete" if manifest.complete else "NOT complete: run its build again"
    lines = [
        f"{directory}: {manifest.count} clips, {_duration(manifest.pixel_frames)}, {manifest.width}x{manifest.height}, "
        f"crop {manifest.crop}",
        f"  {len(manifest.shards)} shards, {size:.1f} MiB, {state}",
    ]
    if manifest.count:
        lines += _content(directory)
    lines += [f"  {role}: {made.id} (sha256 {made.sha256[:12]})" for role, made in sorted(manifest.encoders.items())]
    return lines + _structure(manifest)


def _content(directory: Path) -> list[str]:
    seen = _Gathered()
    for sample in iter_samples(directory):
        seen.add(sample)
    lengths = np.asarray(seen.lengths)
    lines = [
        f"  people: {len(seen.identities)}, at most {seen.identities.most_common(1)[0][1]} clips each; "
        f"{seen.with_video} clips have their mp4",
        "  licences: " + ", ".join(f"{name} ({count})" for name, count in seen.licences.most_common()),
        f"  pixel frames per clip: {lengths.min()} to {lengths.max()}, median {np.median(lengths):.0f}",
        f"  latents: {_spread(seen.latents)} (about 0 and 1 is right); audio features: {_spread(seen.audio)}",
        f"  mouth box: {100 * float(np.median(seen.mouth)):.1f} % of the picture (median)",
    ]
    for name, values in sorted(seen.scores.items()):
        low, middle, high = np.percentile(values, [5, 50, 95])
        lines.append(f"  score {name}: 5 % {low:.3g}, median {middle:.3g}, 95 % {high:.3g}")
    return lines


def _structure(manifest: Manifest) -> list[str]:
    statistics = manifest.structure_statistics
    if statistics is None:
        return []
    layout = LAYOUTS[manifest.structure_layout]
    lines = [f"  structure ({layout.name}, {statistics.count} frames), mean and standard deviation:"]
    for name, width in layout.fields:
        mean = np.asarray(statistics.mean)[layout.slice(name)]
        std = np.asarray(statistics.std)[layout.slice(name)]
        if width > 3:
            lines.append(f"    {name}: {width} values, |mean| to {np.abs(mean).max():.3g}, std to {std.max():.3g}")
        else:
            lines.append(f"    {name}: " + ", ".join(f"{m:.4g} +- {s:.3g}" for m, s in zip(mean, std)))
    return lines


def describe_ledger(root: Path) -> list[str]:
    """Return lines on what became of the inputs; none if the directory has no ledger."""
    if not (root / LEDGER_NAME).is_file():
        return []
    ledger = Ledger(root / LEDGER_NAME)
    lines = [f"{root / LEDGER_NAME}: " + ", ".join(f"{number} {status}" for status, number in ledger.counts().items())]
    lines += [f"  rejected: {number} x {reason}" for reason, number in ledger.reasons().items()]
    return lines + [f"  failed: {entry.input}: {entry.error}" for entry in ledger.of_status("failed")]


def _spread(pieces: list[Moments]) -> str:
    merged = merge_moments(pieces)
    return f"mean {merged.mean[0]:.3f}, std {merged.std[0]:.3f}"


def _duration(pixel_frames: int) -> str:
    seconds = pixel_frames / FPS
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.2f} h"
