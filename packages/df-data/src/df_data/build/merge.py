"""`df-data merge`: the parts of one build, made on several machines, become one dataset.

A part (``part: 2/8`` in the build's config) makes every eighth shard of the same plan: same inputs, same split, same
number of shards. So the parts' shards never meet, and what is joined is byte for byte that of an undivided build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from df_data.build.config import BuildConfig
from df_data.build.part import refuse_other_part
from df_data.format.dataset import CONFIG_NAME, split_directories
from df_data.format.ledger import LEDGER_NAME, Ledger
from df_data.format.manifest import (
    MANIFEST_NAME,
    Features,
    Manifest,
    ShardEntry,
    read_manifest,
    structure_statistics,
    write_manifest,
)
from df_data.sources.division import DIVISION_NAME
from df_models.errors import UserError
from df_models.files import atomic_path, atomic_write, sha256_file
from df_models.locks import one_writer
from df_models.settings import dump_config, load_config

MARK_NAME = ".merging"
"""Stands in the joined dataset while it is not finished and holds the fingerprint of its build."""
PIECE = 1 << 22
"""Bytes copied at a time."""


def merge(parts: Sequence[Path], out: Path) -> list[Manifest]:
    """Copy the shards of all parts to ``out``, each checked by its hash, and return the joined manifests.

    Interrupted, it goes on where it stopped; the manifests come last, so nothing unfinished looks whole.

    Raises:
        UserError: a part is missing, unfinished, damaged, or of another build; ``out`` is a part or holds something
            else.
    """
    config = _whole_config(parts)
    if out.resolve() in {part.resolve() for part in parts}:
        raise UserError(f"--out {out} is one of the parts; give a directory of its own for the joined dataset")
    splits = [path.name for path in split_directories(parts[0])]
    build = read_manifest(parts[0] / splits[0]).build
    with one_writer(out, "df-data merge"):
        _refuse_other_dataset(out, build)
        atomic_write(out / MARK_NAME, build)
        joined = [_join([(part, read_manifest(part / split)) for part in parts], out) for split in splits]
        _join_ledgers(parts, out)
        if (parts[0] / DIVISION_NAME).is_file():  # older parts have none
            atomic_write(out / DIVISION_NAME, (parts[0] / DIVISION_NAME).read_text(encoding="utf-8"))
        atomic_write(out / CONFIG_NAME, dump_config(config.model_copy(update={"out": str(out), "part": "1/1"})))
        for manifest in joined:
            write_manifest(out / manifest.split, manifest)
        (out / MARK_NAME).unlink()
    return joined


def _refuse_other_dataset(out: Path, build: str) -> None:
    """Do nothing if ``out`` holds no dataset, or what an earlier merge of the same build left or finished.

    Raises:
        UserError: it holds something else.
    """
    mark = out / MARK_NAME
    there = [read_manifest(path.parent) for path in out.glob(f"*/{MANIFEST_NAME}")]
    ours = bool(there) or (mark.is_file() and mark.read_text(encoding="utf-8") == build)
    traces = [out / name for name in (CONFIG_NAME, LEDGER_NAME, MANIFEST_NAME)]
    foreign = any(not (manifest.complete and manifest.build == build) for manifest in there)
    if foreign or (not ours and (any(path.exists() for path in traces) or any(out.glob("*/shard-*.tar")))):
        raise UserError(f"{out} holds something else than these parts joined; give --out another directory or empty it")
    refuse_other_part(out, "1/1")


def _whole_config(parts: Sequence[Path]) -> BuildConfig:
    """Return the configuration of the parts, all of which must be there."""
    configs = [load_config(BuildConfig, part / CONFIG_NAME, recorded=True) for part in parts]
    count = int(configs[0].part.partition("/")[2])
    there = sorted(config.part for config in configs)
    wanted = sorted(f"{index + 1}/{count}" for index in range(count))
    if there != wanted:
        raise UserError(f"these are the parts {', '.join(there)}; to join, give each of {', '.join(wanted)} once")
    return configs[0]


def _join(parts: Sequence[tuple[Path, Manifest]], out: Path) -> Manifest:
    """Copy the shards of one split and return its manifest, not yet written."""
    first = parts[0][1]
    for part, manifest in parts:
        if not manifest.complete:
            raise UserError(f"{part / manifest.split} is not complete; run its build to the end first")
        if (manifest.build, manifest.num_shards) != (first.build, first.num_shards):
            raise UserError(f"{part} and {parts[0][0]} differ in settings, models or inputs; build them alike")
    (out / first.split).mkdir(parents=True, exist_ok=True)
    shards: dict[str, ShardEntry] = {}
    sizes: dict[tuple[int, int], Path] = {}
    for part, manifest in parts:
        for entry in manifest.shards:
            if entry.name in shards:
                raise UserError(f"{part / manifest.split / entry.name} is in another part too; build the parts anew")
            _copy(part / manifest.split / entry.name, out / manifest.split / entry.name, entry)
            shards[entry.name] = entry
            sizes[manifest.height, manifest.width] = part
    if len(sizes) > 1:
        raise UserError(f"clips of different sizes in one split: {sorted(sizes)}; set one crop size")
    height, width = next(iter(sizes), (0, 0))
    entries = tuple(shards[name] for name in sorted(shards))
    statistics = structure_statistics(entries)
    features: dict[str, Features] = {}
    for _, manifest in parts:
        features |= manifest.features  # an empty part has none
    changed = {"shards": entries, "height": height, "width": width, "structure_statistics": statistics}
    changed |= {"features": features}
    return first.model_copy(update=changed)


def _copy(source: Path, target: Path, entry: ShardEntry) -> None:
    """Copy a shard unless it is there already.

    Raises:
        UserError: it is missing or its bytes are not those of the manifest.
    """
    if target.is_file() and target.stat().st_size == entry.bytes and sha256_file(target) == entry.sha256:
        return
    if not source.is_file():
        raise UserError(f"{source}: the shard is missing; build its part again")
    digest = hashlib.sha256()
    with atomic_path(target) as temporary, open(source, "rb") as read, open(temporary, "wb") as write:
        while piece := read.read(PIECE):
            digest.update(piece)
            write.write(piece)
        if digest.hexdigest() != entry.sha256:
            raise UserError(f"{source}: its sha256 is not the manifest's; build its part again with --retry damaged")


def _join_ledgers(parts: Sequence[Path], out: Path) -> None:
    joined = Ledger(out / LEDGER_NAME)
    for part in parts:
        lines = Ledger(part / LEDGER_NAME).entries
        joined.record(*(entry for name, entry in lines.items() if joined.get(name) != entry))
