"""Shards: plain tar files of samples, written whole or not at all, with bytes that do not depend on how they were made.

A clip's shard is decided by a hash of its group (usually its key), so it depends on nothing else in the build. Clips
are first *staged*, one small file each, in any order; when every input of a shard has come to its end its staged
clips are joined, sorted by key, into the shard: temporary file, fsync, rename, entry in `manifest.json`. A build
killed at any moment keeps what was staged, and ends with the same bytes as an undisturbed one. A shard whose inputs
make more samples later (one that failed is tried again) is written anew, from itself and what is staged.

The files are POSIX ustar, all times, owners and groups zero, members `<key>.<suffix>` sorted by name: what
webdataset reads.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from df_data.format.ledger import StagedSample
from df_data.format.manifest import (
    MANIFEST_NAME,
    Features,
    Manifest,
    ShardEntry,
    features_of,
    read_manifest,
    structure_layout,
    structure_statistics,
    write_manifest,
)
from df_data.format.sample import FEATURE_TENSORS, NO_FACE, EncoderRecord, Sample, check_key, from_members, to_members
from df_data.format.staging import Staging, intact
from df_data.format.statistics import Moments, merge_moments, moments_of
from df_models.errors import UserError
from df_models.files import atomic_path, remove_leftovers, sha256_file
from df_models.media.levels import LEVEL_SCORE, SILENT_DB
from df_models.structure import LIVEPORTRAIT_70

STAGING_NAME = ".staging"
SUFFIXES = ("json", "mp4", "safetensors")
LARGEST_HEADER = 1 << 20
"""Bytes; a member's header has 512, those that `tarfile` knows beyond ustar some more."""
_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


# -------------------- placement


def shard_of(group: str, num_shards: int) -> int:
    """The shard of a group of clips: the first 64 bits of sha256(group) modulo the number of shards."""
    return int.from_bytes(hashlib.sha256(group.encode("utf-8")).digest()[:8], "big") % num_shards


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"shard-{index:05d}.tar"


def num_shards_for(clips: int, clips_per_shard: int) -> int:
    """How many shards a split of about `clips` clips gets."""
    return max(1, -(-clips // clips_per_shard))


# -------------------- bytes


def tar_members(members: Mapping[str, bytes]) -> bytes:
    """The tar blocks of files, in name order, without the end-of-archive mark (so that pieces can be joined)."""
    out = bytearray()
    for name in sorted(members):
        info = tarfile.TarInfo(name)
        info.size = len(members[name])
        info.mode = 0o644
        out += info.tobuf(format=tarfile.USTAR_FORMAT)
        out += members[name]
        out += b"\0" * (-len(members[name]) % _BLOCK)
    return bytes(out)


def write_tar(path: Path, pieces: Iterable[bytes]) -> tuple[str, int]:
    """Join tar pieces into an archive under its final name, atomically; return (sha256, bytes)."""
    digest, total = hashlib.sha256(), 0
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for piece in itertools.chain(pieces, [_END]):
            file.write(piece)
            digest.update(piece)
            total += len(piece)
    return digest.hexdigest(), total


# -------------------- writing


class SplitWriter:
    """Writes one split of a dataset: `root/<split>/manifest.json`, `shard-*.tar`, and while building `.staging/`.

    Args:
        root: the dataset's directory.
        split: `train` or `val`.
        num_shards: fixed for the life of the dataset; clips are placed by hash among them.
        build: fingerprint of everything that decides the bytes (configuration, encoders); another one is refused.
        older: what the same was called by a program that did not know all settings; it is called `build` from now on.
        encoders, crop: what made the tensors and how faces were cropped, for the manifest.
        faces: whether the clips show faces; False: general video.

    Raises:
        UserError: the directory holds a dataset made with another configuration.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        num_shards: int,
        build: str,
        encoders: Mapping[str, EncoderRecord],
        crop: str = "none",
        faces: bool = True,
        older: Sequence[str] = (),
    ) -> None:
        self.root, self.split = root, split
        self.directory = root / split
        self.staging = Staging(root / STAGING_NAME / split)
        wanted = Manifest(
            split=split,
            build=build,
            num_shards=num_shards,
            encoders=dict(encoders),
            structure_layout=LIVEPORTRAIT_70.name if faces else NO_FACE,
            structure_vectors=structure_layout(encoders.get("structure")) if faces else None,
            crop=crop,
        )
        if (self.directory / MANIFEST_NAME).exists():
            self.manifest = read_manifest(self.directory)
            if self.manifest.build in older:
                self._save(self.manifest.model_copy(update={"build": build}))
            if (self.manifest.build, self.manifest.num_shards) != (build, num_shards):
                raise UserError(
                    f"{root} holds a dataset made with another configuration or other encoders, or of other inputs "
                    "(one added or taken away changes which are held out); choose another directory or delete it"
                )
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.manifest = wanted
            write_manifest(self.directory, wanted)
        remove_leftovers(self.directory)

    @property
    def complete(self) -> bool:
        return self.manifest.complete

    def stage(self, sample: Sample, group: str | None = None) -> StagedSample:
        """Write one sample to the staging directory; record what is returned in the ledger.

        Args:
            group: what decides the shard; the sample's key by default. Clips of one input share a group, so that a
                shard is finished as soon as its inputs are.
        """
        return self.stage_members(sample.key, to_members(sample), sample.key if group is None else group)

    def stage_members(self, key: str, members: Mapping[str, bytes], group: str) -> StagedSample:
        """Do as :meth:`stage` with the members of a sample (:func:`df_data.format.sample.to_members`)."""
        return self.staging.put(key, tar_members(members), shard_of(group, self.manifest.num_shards))

    def has(self, staged: StagedSample) -> bool:
        """Whether a sample of the ledger is in a finished shard, or staged and whole.

        For builds that finish a shard once, with all its samples; see :meth:`missing` for others.
        """
        return self.manifest.complete or self._entry(staged.shard) is not None or self.staging.get(staged) is not None

    def forget_damaged(self, *, verify: bool = False) -> list[str]:
        """Take shards off the manifest that are not there as it says; what they held is then :meth:`missing`.

        Args:
            verify: read every shard and compare its sha256 too, not only its size.

        Returns:
            Names of the shards.
        """
        damaged = [entry.name for entry in self.manifest.shards if not self._stands(entry, verify)]
        if damaged:
            kept = tuple(entry for entry in self.manifest.shards if entry.name not in damaged)
            self._save(self.manifest.model_copy(update={"shards": kept, "complete": False}))
            for name in damaged:
                (self.directory / name).unlink(missing_ok=True)
        return damaged

    def _stands(self, entry: ShardEntry, verify: bool) -> bool:
        path = self.directory / entry.name
        if not path.is_file() or path.stat().st_size != entry.bytes:
            return False
        return not verify or sha256_file(path) == entry.sha256

    def missing(self, shard: int, samples: Sequence[StagedSample]) -> list[StagedSample]:
        """Return those of a shard's samples, all that the ledger has for it, that must be made again."""
        entry = self._entry(shard)
        if entry is not None and entry.count == len(samples):
            return []
        standing = self._standing(shard)
        return [s for s in samples if s.key not in standing and self.staging.get(s) is None]

    def finish_shard(self, shard: int, samples: Iterable[StagedSample]) -> None:
        """Join the samples of a shard (those of other shards are passed over). An empty shard is not written.

        Raises:
            UserError: two samples have one key, or a staged file was damaged or removed since it was written.
        """
        mine = sorted((s for s in samples if s.shard == shard), key=lambda s: s.key)
        before = self._entry(shard)
        if not mine or (before is not None and before.count == len(mine)):
            return
        twice = next((a.key for a, b in itertools.pairwise(mine) if a.key == b.key), None)
        if twice:
            raise UserError(f"two inputs made a sample of the same key {twice!r}; give them different names")
        if self.manifest.complete:
            self._save(self.manifest.model_copy(update={"complete": False}))
        summary = _Summary()
        path = self.directory / shard_name(shard)
        sha256, size = write_tar(path, map(summary.add, self._pieces(shard, mine)))
        entry = ShardEntry(
            name=path.name,
            sha256=sha256,
            bytes=size,
            count=len(mine),
            pixel_frames=sum(summary.lengths),
            shortest=min(summary.lengths),
            longest=max(summary.lengths),
            structure=merge_moments(summary.moments),
            speech_level=float(np.mean(summary.speech)) if summary.speech else None,
        )
        self._enter(entry, summary)
        for staged in mine:
            self.staging.drop(staged.key)

    def _entry(self, shard: int) -> ShardEntry | None:
        """The manifest's entry of a shard; None if it is not finished."""
        return next((entry for entry in self.manifest.shards if entry.name == shard_name(shard)), None)

    def _standing(self, shard: int) -> dict[str, dict[str, tuple[int, int]]]:
        """Where the members of a finished shard's samples lie in its file, by key and suffix; empty without a shard."""
        path = self.directory / shard_name(shard)
        if self._entry(shard) is None or not path.is_file():
            return {}
        with open(path, "rb") as file:
            return dict(iter_groups(file, str(path)))

    def _pieces(self, shard: int, samples: Sequence[StagedSample]) -> Iterator[bytes]:
        """The tar piece of each sample, staged or from the shard as it stands."""
        path, standing = self.directory / shard_name(shard), self._standing(shard)
        with open(path, "rb") if standing else io.BytesIO() as file:
            for staged in samples:
                piece = self.staging.get(staged)
                if piece is None and (places := standing.get(staged.key)):
                    members = {
                        f"{staged.key}.{suffix}": read_exactly(file, *place, str(path))
                        for suffix, place in places.items()
                    }
                    piece = intact(tar_members(members), staged)
                if piece is None:
                    raise UserError(
                        f"the staged sample {staged.key} of {self.root} was removed or damaged; build again"
                    )
                yield piece

    def _enter(self, entry: ShardEntry, summary: _Summary) -> None:
        known = summary.sizes | ({(self.manifest.height, self.manifest.width)} if self.manifest.shards else set())
        if len(known) != 1:
            raise UserError(f"clips of different sizes in one split: {sorted(known)}; set one crop size")
        height, width = known.pop()
        features = self._features(summary.widths)
        others = (shard for shard in self.manifest.shards if shard.name != entry.name)
        shards = tuple(sorted((*others, entry), key=lambda shard: shard.name))
        update = {"shards": shards, "height": height, "width": width, "features": features}
        self._save(self.manifest.model_copy(update=update))

    def _features(self, found: Mapping[str, set[int]]) -> dict[str, Features]:
        """The manifest's widths with those of a shard's samples; all samples of a split have the same."""
        widths = {role: set(dims) for role, dims in found.items()}
        for role, known in self.manifest.features.items():
            widths.setdefault(role, set()).add(known.dim)
        mixed = next((role for role, dims in widths.items() if len(dims) != 1), None)
        if mixed is not None:
            raise UserError(f"{mixed} features of widths {sorted(widths[mixed])} in one split; build it anew")
        return features_of({role: dims.pop() for role, dims in widths.items()}, self.manifest.encoders)

    def finish(self) -> Manifest:
        """Mark the split complete, with its statistics, and remove the staging directory."""
        statistics = structure_statistics(self.manifest.shards)
        self._save(self.manifest.model_copy(update={"complete": True, "structure_statistics": statistics}))
        self.staging.close()
        return self.manifest

    def _save(self, manifest: Manifest) -> None:
        write_manifest(self.directory, manifest)
        self.manifest = manifest


@dataclass
class _Summary:
    """What the manifest says about a shard, gathered while its pieces pass by."""

    lengths: list[int] = field(default_factory=list)
    moments: list[Moments] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    widths: dict[str, set[int]] = field(default_factory=dict)
    speech: list[float] = field(default_factory=list)

    def add(self, piece: bytes) -> bytes:
        sample = next(iter_tar_samples(io.BytesIO(piece + _END), "staged sample", video=False))
        self.lengths.append(sample.meta.num_frames)
        self.sizes.add((sample.meta.height, sample.meta.width))
        if "structure" in sample.tensors:
            self.moments.append(moments_of(sample.tensors["structure"].numpy()))
        for role, name in FEATURE_TENSORS.items():
            if name in sample.tensors:
                self.widths.setdefault(role, set()).add(sample.tensors[name].shape[-1])
        speech = sample.meta.scores.get(LEVEL_SCORE)
        if speech is not None and speech > SILENT_DB:
            self.speech.append(speech)
        return piece


# -------------------- reading


def split_member_name(name: str, where: str) -> tuple[str, str]:
    """(key, suffix) of a member, refusing anything but `<key>.<known suffix>`.

    Raises:
        UserError: paths, links and other tricks in the name.
    """
    key, _, suffix = name.partition(".")
    if suffix not in SUFFIXES:
        raise UserError(f"{where}: unexpected member {name!r}; a shard holds <key>.json, <key>.safetensors, <key>.mp4")
    try:
        check_key(key)
    except UserError as error:
        raise UserError(f"{where}: unsafe member name {name!r}") from error
    return key, suffix


def iter_members(file: IO[bytes], where: str) -> Iterator[tuple[str, str, int, int]]:
    """(key, suffix, offset of the data, size) of each member of a seekable tar, from the headers alone.

    Raises:
        UserError: not a tar, a cut one, or a member that is no plain file with a plain name.
    """
    try:
        headers: Any = _Headers(file)
        with tarfile.open(fileobj=headers, mode="r:") as archive:
            for info in archive:
                if not info.isreg():
                    raise UserError(f"{where}: member {info.name!r} is not a plain file")
                yield (*split_member_name(info.name, where), info.offset_data, info.size)
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # keeps memory flat
    except UserError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:  # tarfile believes its headers
        raise UserError(f"{where}: not a whole tar file ({error}); build the shard again or remove it") from error


class _Headers:
    """A tar as `tarfile` may see it: whatever a header says of its length, no more is read at once than any needs."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, LARGEST_HEADER))

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def iter_tar_samples(file: IO[bytes], where: str, *, video: bool = True) -> Iterator[Sample]:
    """The samples of a seekable tar, in order. `video=False` leaves the mp4 bytes unread.

    Raises:
        UserError: see `iter_members`; also members of a key that do not stand together.
    """
    seen: set[str] = set()
    for key, places in iter_groups(file, where):
        if key in seen:
            raise UserError(f"{where}: the members of {key} do not stand together")
        seen.add(key)
        members: dict[str, bytes] = {}
        for suffix, (offset, size) in places.items():
            if suffix != "mp4" or video:
                members[suffix] = read_exactly(file, offset, size, where)
        yield from_members(key, members, where)


def iter_groups(file: IO[bytes], where: str) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """(key, suffix -> (offset, size)) of each sample of a seekable tar."""
    current, places = "", {}
    for key, suffix, offset, size in iter_members(file, where):
        if key != current and places:
            yield current, places
            places = {}
        if suffix in places:
            raise UserError(f"{where}: member {key}.{suffix} is a duplicate")
        current = key
        places[suffix] = (offset, size)
    if places:
        yield current, places


def read_exactly(file: IO[bytes], offset: int, size: int, where: str) -> bytes:
    """`size` bytes from `offset`, or a UserError if the file ends before."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise UserError(f"{where}: the file is cut short; build the shard again or remove it")
    return data


def iter_shard(path: Path, *, video: bool = True) -> Iterator[Sample]:
    """The samples of a shard file, in order."""
    if not path.is_file():
        raise UserError(f"{path}: the shard is missing; build the dataset again or correct its manifest")
    with open(path, "rb") as file:
        yield from iter_tar_samples(file, str(path), video=video)


def iter_samples(directory: Path, *, video: bool = True) -> Iterator[Sample]:
    """Every sample of a split's directory, shard by shard in the order of the manifest, mp4 and truth included."""
    for entry in read_manifest(directory).shards:
        yield from iter_shard(directory / entry.name, video=video)


def staged_shards(samples: Sequence[StagedSample]) -> list[int]:
    """The shards that samples lie in, in order."""
    return sorted({staged.shard for staged in samples})
