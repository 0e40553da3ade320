"""`manifest.json`: what a directory of shards holds, how to check it, and what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError, field_serializer, field_validator

from df_data.format.sample import NO_FACE, SCHEMA_VERSION, EncoderRecord
from df_data.format.statistics import Moments, merge_moments
from df_models.encoders.registry import AudioPool, audio_pool, find_entry
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import FrozenModel
from df_models.structure import FLAME_MOTION_59, LIVEPORTRAIT_70, StructureLayout

MANIFEST_NAME = "manifest.json"


class ShardEntry(FrozenModel):
    """One shard: its file, its bytes, its samples.

    Attributes:
        pixel_frames: sum of the clips' pixel frames; `shortest` and `longest` clip in pixel frames.
        structure: moments of the raw structure vectors of the shard.
        speech_level: mean of the clips' speech levels in dB of full scale (:mod:`df_models.media.levels`), but for
            silent clips; None: not recorded.
    """

    name: str
    sha256: str
    bytes: int
    count: int
    pixel_frames: int
    shortest: int
    longest: int
    structure: Moments
    speech_level: float | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if "/" in value or "\\" in value or value.startswith(".") or not value.endswith(".tar"):
            raise ValueError("a shard's name is a plain file name ending in .tar")
        return value


class Features(FrozenModel):
    """What an encoder's stored features look like; a model that is trained on them takes it from here.

    Attributes:
        dim: width of one.
        pool: of audio: how the two of a pixel frame become one slot, unless a model's config says otherwise.
    """

    dim: int = Field(ge=1)
    pool: AudioPool | None = None


class StructureStatistics(FrozenModel):
    """Mean and standard deviation [D_s] of the raw structure vector over `count` pixel frames."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int


class Manifest(FrozenModel):
    """What one split of a dataset holds.

    Attributes:
        build: fingerprint of the configuration and encoders the split was made with.
        complete: all shards are there; a reader refuses a split that is not complete.
        height, width: size of the clips in pixels.
        crop: how faces were cropped (:class:`df_models.crop.CropRule`), `none` for rendered ones.
        structure_layout: of the clips' structure vectors; `none`: general video, without faces (:attr:`has_faces`).
        num_shards: how many shards the split was planned with (some may have stayed empty and are not listed).
        structure_vectors: what the structure vectors mean; datasets of before it was recorded have none
            (:func:`structure_of`).
        features: widths of the stored features by role (`audio`, `reference`, `text`), as far as there are shards.
    """

    schema_version: int = SCHEMA_VERSION
    split: str
    build: str
    complete: bool = False
    num_shards: int = Field(ge=1)
    structure_layout: str = LIVEPORTRAIT_70.name
    height: int = 0
    width: int = 0
    crop: str = "none"
    shards: tuple[ShardEntry, ...] = ()
    encoders: dict[str, EncoderRecord] = Field(default_factory=dict)
    structure_vectors: StructureLayout | None = None
    features: dict[str, Features] = Field(default_factory=dict)
    structure_statistics: StructureStatistics | None = None

    @property
    def has_faces(self) -> bool:
        """Whether its clips show faces, and so have structure, audio and mouth boxes."""
        return self.structure_layout != NO_FACE

    @property
    def speech_level(self) -> float | None:
        """Mean level of the speech that a model trained on the split hears, in dB; None: not recorded."""
        known = [(shard.speech_level, shard.count) for shard in self.shards if shard.speech_level is not None]
        levels, counts = zip(*known, strict=True) if known else ((), ())
        return round(float(np.average(levels, weights=counts)), 2) if known else None

    @field_validator("structure_vectors", mode="before")
    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            return StructureLayout.from_dict(value)
        except UserError as error:
            raise ValueError(str(error)) from error

    @field_serializer("structure_vectors")
    def _as_plain(self, value: StructureLayout | None) -> dict[str, Any] | None:
        return None if value is None else value.to_dict()

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(shard.count for shard in self.shards)

    @property
    def pixel_frames(self) -> int:
        """Pixel frames of all clips together."""
        return sum(shard.pixel_frames for shard in self.shards)

    @property
    def digest(self) -> str:
        """sha256 of the split's name and its shards' sha256: what the split holds, wherever it lies.

        A shard's bytes carry the metadata of its clips with the encoders that made them, so nothing else is needed.
        """
        shards = sorted((shard.name, shard.sha256) for shard in self.shards)
        return hashlib.sha256(json.dumps([self.split, shards]).encode()).hexdigest()


def features_of(widths: Mapping[str, int], encoders: Mapping[str, EncoderRecord]) -> dict[str, Features]:
    """Return what a manifest says of stored features that are so wide, by role."""
    pool = audio_pool(encoders["audio"].id) if "audio" in encoders else None
    return {role: Features(dim=dim, pool=pool if role == "audio" else None) for role, dim in sorted(widths.items())}


SYNTHETIC = "synthetic"
"""The structure encoder of corpora that are rendered: no network made their vectors, so no record names one."""


def structure_of(manifest: Manifest, source: Literal["structure", "flame"] = "structure") -> StructureLayout | None:
    """Return what a dataset's structure vectors mean, of one made before manifests said so too.

    Those record the encoder, whose fields and units are known by its name; a rendered corpus records none. None: the
    encoder is not one of :mod:`df_models.encoders.registry`.

    Args:
        source: `flame`: the motion part of the FLAME vectors instead.

    Raises:
        UserError: there are no FLAME vectors.
    """
    if source == "flame":
        return _flame_layout(manifest)
    if manifest.structure_vectors is not None or not manifest.has_faces:
        return manifest.structure_vectors
    return structure_layout(manifest.encoders.get("structure"))


def _flame_layout(manifest: Manifest) -> StructureLayout:
    record, own = manifest.encoders.get("flame"), structure_of(manifest)
    if record is None and (own is None or own.encoder != SYNTHETIC):
        raise UserError(
            "the dataset holds no FLAME vectors to take structure from; build it with `flame: deca` or emoca"
        )
    return flame_layout(record)


def flame_layout(record: EncoderRecord | None) -> StructureLayout:
    """Return what the motion of FLAME vectors means; no record: a rendered corpus's."""
    name = SYNTHETIC if record is None else record.id
    return StructureLayout.of(FLAME_MOTION_59, name, None if record is None else record.sha256)


def source_of(layout: StructureLayout | None) -> Literal["structure", "flame"]:
    """Return which vectors of a dataset a model's structure is."""
    return "flame" if layout is not None and layout.name == FLAME_MOTION_59.name else "structure"


def structure_layout(record: EncoderRecord | None) -> StructureLayout | None:
    """Return what the vectors of a structure encoder mean; no record: a rendered corpus's. None: an unknown encoder."""
    name = SYNTHETIC if record is None else record.id
    try:
        layout = find_entry("structure", name).layout
    except UserError:
        return None
    assert layout is not None
    return StructureLayout.of(layout, name, None if record is None else record.sha256)


def structure_statistics(shards: tuple[ShardEntry, ...]) -> StructureStatistics | None:
    """Statistics over all shards in the order of their names, or None when there are none, or no vectors in them."""
    if not any(shard.structure.count for shard in shards):
        return None
    merged = merge_moments(shard.structure for shard in sorted(shards, key=lambda shard: shard.name))
    std: np.ndarray = merged.std
    return StructureStatistics(mean=merged.mean, std=tuple(std.tolist()), count=merged.count)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a split's directory.

    Raises:
        UserError: no such directory, no manifest in it, or one that is damaged or of another schema version.
    """
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise UserError(f"no such dataset directory: {directory}; make one with df-data synth or df-data build")
    if not path.is_file():
        splits = sorted(child.name for child in directory.iterdir() if (child / MANIFEST_NAME).is_file())
        hint = (
            f"; did you mean {directory / splits[0]}?" if splits else "; make one with df-data synth or df-data build"
        )
        raise UserError(f"{directory} holds no {MANIFEST_NAME}{hint}")
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from its file's bytes; `where` names the file in errors.

    Raises:
        UserError: it is damaged or of another schema version.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise UserError(f"{where}: schema version {manifest.schema_version}, this program reads {SCHEMA_VERSION}")
    return manifest


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest atomically; equal manifests give equal bytes."""
    text = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False)
    atomic_write(directory / MANIFEST_NAME, text + "\n")
