"""`df-data validate`: everything about a split that can be checked without its sources."""

from __future__ import annotations

from pathlib import Path

from df_data.manifest import Manifest, ShardEntry, read_manifest
from df_data.sample import Sample, validate_sample
from df_data.shards import iter_shard
from df_models.errors import UserError
from df_models.files import sha256_file


def check_split(directory: Path) -> list[str]:
    """Return every problem of a split as one line each; an empty list means that it is sound."""
    manifest = read_manifest(directory)
    problems = [] if manifest.complete else [f"{directory}: not complete; run the build again"]
    listed = {entry.name for entry in manifest.shards}
    problems += [f"{path}: not in the manifest" for path in sorted(directory.glob("*.tar")) if path.name not in listed]
    keys: set[str] = set()
    for entry in manifest.shards:
        problems += _check_shard(directory / entry.name, entry, manifest, keys)
    return problems


def _check_shard(path: Path, entry: ShardEntry, manifest: Manifest, keys: set[str]) -> list[str]:
    if not path.is_file():
        return [f"{path}: missing"]
    if path.stat().st_size != entry.bytes:
        return [f"{path}: {path.stat().st_size} bytes, the manifest says {entry.bytes}"]
    if sha256_file(path) != entry.sha256:
        return [f"{path}: its sha256 is not the manifest's; build it again"]
    problems, count = [], 0
    try:
        for sample in iter_shard(path):
            count += 1
            problems += _check_sample(path, sample, manifest, keys)
    except UserError as error:
        problems.append(str(error))
    if not problems and count != entry.count:
        problems.append(f"{path}: {count} samples, the manifest says {entry.count}")
    return problems


def _check_sample(path: Path, sample: Sample, manifest: Manifest, keys: set[str]) -> list[str]:
    problems = []
    try:
        validate_sample(sample)
    except UserError as error:
        problems.append(f"{path}: {error}")
    if sample.key in keys:
        problems.append(f"{path}: sample {sample.key} stands twice")
    keys.add(sample.key)
    if (sample.meta.split, sample.meta.height, sample.meta.width) != (manifest.split, manifest.height, manifest.width):
        problems.append(f"{path}: sample {sample.key} is of another split or size than the manifest")
    if sample.meta.encoders != manifest.encoders:
        problems.append(f"{path}: sample {sample.key} was made with other encoders than the manifest names")
    return problems
