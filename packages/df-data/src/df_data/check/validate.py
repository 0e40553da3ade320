"""`df-data validate`: everything about a dataset that can be checked without its sources.

Shards are checked one by one, here or in a pool of processes; what needs all of them (keys, persons, the ledger,
the manifest's statistics) is checked afterwards from the few facts that each leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from df_data.check.checks.archive import StoredSample, read_archive
from df_data.check.checks.contents import sample_problems
from df_data.check.checks.records import SampleFacts, SplitFacts, identity_problems, ledger_problems, leftover_problems
from df_data.check.checks.video import video_problems
from df_data.common.processes import worker_pool
from df_data.common.wording import counted
from df_data.format.dataset import split_directories
from df_data.format.manifest import Manifest, ShardEntry, StructureStatistics, read_manifest, structure_statistics
from df_data.format.statistics import Moments, merge_moments, moments_of
from df_models.files import sha256_file

STATISTICS_TOLERANCE = 1e-6
"""Relative; sums in another order differ in the last bits."""


@dataclass(frozen=True)
class CheckReport:
    """What was looked at, and every problem as one line.

    Attributes:
        by_split: number of problems by the split's directory.
        clips, shards, bytes: how much was read.
    """

    problems: tuple[str, ...]
    by_split: dict[Path, int]
    clips: int
    shards: int
    bytes: int


def check_dataset(directory: Path, *, media: bool = True, workers: int = 1) -> CheckReport:
    """Check a whole dataset, or one split of it (the ledger and the other splits are then left out).

    Args:
        media: decode every mp4.
        workers: processes, each with a shard at a time.

    Raises:
        UserError: no dataset, or a manifest or config that cannot be read.
    """
    results = {path: _check_split(path, media, workers) for path in split_directories(directory)}
    problems = [line for lines, _, _ in results.values() for line in lines]
    if directory not in results:
        facts = [facts for _, facts, _ in results.values()]
        problems += ledger_problems(directory, facts)
        problems += identity_problems(directory, facts)
        problems += leftover_problems(directory, facts)
    manifests = [manifest for _, _, manifest in results.values()]
    return CheckReport(
        problems=tuple(problems),
        by_split={path: len(lines) for path, (lines, _, _) in results.items()},
        clips=sum(len(facts.samples) for _, facts, _ in results.values()),
        shards=sum(len(manifest.shards) for manifest in manifests),
        bytes=sum(entry.bytes for manifest in manifests for entry in manifest.shards),
    )


# -------------------- one split


@dataclass
class _ShardResult:
    """What checking one shard leaves; `text_widths` are those of its samples' text features.

    `read` is whether the file is the one of the manifest, so that its samples could be looked at.
    """

    problems: list[str] = field(default_factory=list)
    samples: list[SampleFacts] = field(default_factory=list)
    read: bool = False
    text_widths: set[int] = field(default_factory=set)


def _check_split(directory: Path, media: bool, workers: int) -> tuple[list[str], SplitFacts, Manifest]:
    manifest = read_manifest(directory)
    problems = [] if manifest.complete else [f"{directory}: not complete; run the build again"]
    listed = {entry.name for entry in manifest.shards}
    strays = (path for path in sorted(directory.glob("[!.]*.tar")) if path.name not in listed)
    problems += [f"{path}: not in the manifest" for path in strays]
    problems += [f"{directory}: {line}" for line in _manifest_problems(manifest)]
    samples: dict[str, SampleFacts] = {}
    unread, text_widths = set(), set()
    for entry, result in zip(manifest.shards, _results(directory, manifest, media, workers)):
        problems += [f"{directory / entry.name}: {line}" for line in result.problems]
        text_widths |= result.text_widths
        if not result.read:
            unread.add(entry.name)
        for sample in result.samples:
            if sample.key in samples:
                problems.append(f"{directory / entry.name}: sample {sample.key} is a duplicate")
            samples[sample.key] = sample
    if len(text_widths) > 1:
        problems.append(f"{directory}: text_features of several widths: {', '.join(map(str, sorted(text_widths)))}")
    return problems, SplitFacts(manifest.split, manifest.complete, samples, frozenset(unread)), manifest


def _results(directory: Path, manifest: Manifest, media: bool, workers: int) -> Iterator[_ShardResult]:
    jobs = [(directory / entry.name, entry, manifest, media) for entry in manifest.shards]
    if workers == 1 or len(jobs) < 2:
        yield from map(_check_shard, jobs)
        return
    with worker_pool(min(workers, len(jobs))) as pool:
        yield from pool.map(_check_shard, jobs)


def _manifest_problems(manifest: Manifest) -> Iterator[str]:
    names = [entry.name for entry in manifest.shards]
    if len(set(names)) != len(names) or names != sorted(names):
        yield "the manifest's shards are not in the order of their names, each once"
    if len(names) > manifest.num_shards:
        yield f"the manifest lists {counted(len(names), 'shard')} of at most {manifest.num_shards}"
    if manifest.complete and not _same_statistics(manifest.structure_statistics, structure_statistics(manifest.shards)):
        yield "the manifest's structure_statistics are not those of its shards"


def _same_statistics(told: StructureStatistics | None, found: StructureStatistics | None) -> bool:
    if told is None or found is None:
        return told is found
    return told.count == found.count and _close(told.mean, found.mean) and _close(told.std, found.std)


# -------------------- one shard


def _check_shard(job: tuple[Path, ShardEntry, Manifest, bool]) -> _ShardResult:
    path, entry, manifest, media = job
    if not path.is_file():
        return _ShardResult(["missing"])
    if path.stat().st_size != entry.bytes:
        return _ShardResult([f"{path.stat().st_size} bytes, the manifest says {entry.bytes}"])
    if sha256_file(path) != entry.sha256:
        return _ShardResult(["its sha256 is not the manifest's; build it again (df-data build --retry damaged)"])
    result, seen = _ShardResult(read=True), _Seen()
    for found in read_archive(path):
        if isinstance(found, str):
            result.problems.append(found)
            continue
        lines = _sample_problems(found, manifest, media)
        result.problems += [f"sample {found.key}: {line}" for line in lines]
        identity = "" if found.sample is None else found.sample.meta.identity
        result.samples.append(SampleFacts(found.key, path.name, found.bytes, found.sha256, identity))
        seen.add(found)
        if found.sample is not None and "text_features" in found.sample.tensors:
            result.text_widths.update(found.sample.tensors["text_features"].shape[1:2])
    if not result.problems:
        result.problems += _entry_problems(entry, seen)
    return result


def _sample_problems(found: StoredSample, manifest: Manifest, media: bool) -> list[str]:
    problems = list(found.problems)
    if found.sample is not None:
        problems += sample_problems(found.sample, manifest)
        problems += video_problems(found.sample, compare_audio=not problems) if media else []
    return problems


@dataclass
class _Seen:
    """What the manifest's entry of a shard says, gathered anew."""

    lengths: list[int] = field(default_factory=list)
    moments: list[Moments] = field(default_factory=list)

    def add(self, found: StoredSample) -> None:
        if found.sample is not None and ("structure" in found.sample.tensors or not found.sample.meta.has_face):
            self.lengths.append(found.sample.meta.num_frames)
        if found.sample is not None and "structure" in found.sample.tensors:
            self.moments.append(moments_of(found.sample.tensors["structure"].numpy()))


def _entry_problems(entry: ShardEntry, seen: _Seen) -> Iterator[str]:
    found = {
        "count": len(seen.lengths),
        "pixel_frames": sum(seen.lengths),
        "shortest": min(seen.lengths, default=0),
        "longest": max(seen.lengths, default=0),
    }
    for name, value in found.items():
        if getattr(entry, name) != value:
            yield f"its {name} is {value}, the manifest says {getattr(entry, name)}"
    merged, told = merge_moments(seen.moments), entry.structure
    if told.count != merged.count or not (_close(told.mean, merged.mean) and _close(told.m2, merged.m2)):
        yield "the manifest's moments of its structure vectors are not those of its samples"


def _close(told: Iterable[float], found: Iterable[float]) -> bool:
    a, b = np.asarray(tuple(told)), np.asarray(tuple(found))
    if a.shape != b.shape:
        return False
    return bool(np.allclose(a, b, rtol=STATISTICS_TOLERANCE, atol=STATISTICS_TOLERANCE))
