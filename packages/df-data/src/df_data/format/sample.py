"""One sample of a shard: `<key>.json` (metadata), `<key>.safetensors` (tensors), optionally `<key>.mp4` (the clip).

Shape legend: P pixel frames, T latent frames, A = 2P audio features, R reference images, N reference tokens,
H, W pixels, h = H/8, w = W/8 latent cells, L text tokens, D feature widths, K named truth values.

====================  =======  =============  ======  ========================================================
tensor                dtype    shape          needed  what
====================  =======  =============  ======  ========================================================
`video_latent`        float16  [T, 16, h, w]  yes     normalised VAE latent of the whole clip
`structure`           float32  [P, D_s]       faces   raw structure vector, layout named in the metadata
`flame`               float32  [P, 159]       no      FLAME vector
`audio`               float16  [2P, D_a]      faces   50 Hz audio features, not pooled
`reference_latents`   float16  [R, 16, h, w]  yes     images of the clip, each encoded alone
`reference_frames`    int32    [R]            yes     pixel frame of each reference image
`reference_features`  float16  [R, N, D_r]    yes     reference encoder's tokens of each image
`mouth_boxes`         float32  [P, 4]         faces   x0, y0, x1, y1 in pixels of the clip
`truth`               float32  [P, K]         no      exact values of a synthetic clip, named by `truth_names`
`identity_vector`     float32  [D_id]         no      identity of the face: exact of a synthetic clip
`text_features`       float16  [L, D_t]       no      encoded prompt, as long as it is (no padding)
====================  =======  =============  ======  ========================================================

Clips of general video show no face: their metadata's `structure_layout` is `none`, and they have none of the tensors
that `faces` stands at.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import torch
from pydantic import Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor

from df_models.errors import UserError
from df_models.settings import FrozenModel
from df_models.structure import FLAME_159, LIVEPORTRAIT_70, VectorLayout
from df_models.text import TEXT_TOKENS
from df_models.time import FPS, SPATIAL_STRIDE, latent_length

SCHEMA_VERSION = 1
LATENT_CHANNELS = 16
LAYOUTS: dict[str, VectorLayout] = {layout.name: layout for layout in (LIVEPORTRAIT_70,)}
KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,88}")

NO_FACE = "none"
"""The structure layout of general video."""
REQUIRED = ("video_latent", "reference_latents", "reference_frames", "reference_features")
OF_FACES = ("structure", "audio", "mouth_boxes")
"""Needed of clips with a face, and not there in others."""
DTYPES: dict[str, torch.dtype] = {
    "video_latent": torch.float16,
    "structure": torch.float32,
    "flame": torch.float32,
    "audio": torch.float16,
    "reference_latents": torch.float16,
    "reference_frames": torch.int32,
    "reference_features": torch.float16,
    "mouth_boxes": torch.float32,
    "truth": torch.float32,
    "identity_vector": torch.float32,
    "text_features": torch.float16,
}


FEATURE_TENSORS = {"audio": "audio", "reference": "reference_features", "text": "text_features"}
"""The tensor of each encoder whose width a model must know, by the encoder's role."""

WEIGHT_LOWERED_BY = "weight_lowered_by"
"""Names in a sample's provenance the soft faults that lowered its weight, separated by commas."""


class EncoderRecord(FrozenModel):
    """Which frozen model made a tensor."""

    id: str
    sha256: str


class SampleMeta(FrozenModel):
    """The json of a sample.

    Attributes:
        key: name inside the shard; letters, digits, `_` and `-` only (webdataset splits names at the first dot).
        source: where the clip comes from (a file name, a URL, `synth`); never an absolute path.
        identity: name of the person, unique in the dataset; splits are disjoint in it.
        num_frames: pixel frames P = 1 + 4n.
        scores: quality scores by name.
        weight: sampling weight of the clip, at most 1; soft quality problems lower it.
        encoders: the frozen model by role (`video_vae`, `audio`, `reference`, `structure`, `text`).
        structure_layout: of the structure vectors; `none`: general video, whose clips have no tensors of a face.
        text: what is said.
        prompt: what `text_features` encode: words that describe the clip, not those said in it.
        phonemes: (symbol, start, end), in seconds of the clip.
        provenance: anything needed to make the clip again (seed, crop, time span, tool versions).
    """

    key: str
    schema_version: int = SCHEMA_VERSION
    source: str
    licence: str
    identity: str
    split: str
    num_frames: int
    height: int
    width: int
    fps: int = FPS
    structure_layout: str = LIVEPORTRAIT_70.name
    scores: dict[str, float] = Field(default_factory=dict)
    weight: float = 1.0
    encoders: dict[str, EncoderRecord] = Field(default_factory=dict)
    text: str | None = None
    prompt: str | None = None
    phonemes: tuple[tuple[str, float, float], ...] | None = None
    truth_names: tuple[str, ...] | None = None
    provenance: dict[str, str | int | float | bool | list[float] | None] = Field(default_factory=dict)

    @property
    def has_face(self) -> bool:
        """Whether the clip shows a face, and so has structure, audio and mouth boxes."""
        return self.structure_layout != NO_FACE

    def weight_lowered_by(self) -> tuple[str, ...]:
        """Names of the soft faults that lowered the weight, as far as the build recorded them."""
        named = self.provenance.get(WEIGHT_LOWERED_BY)
        return tuple(named.split(", ")) if isinstance(named, str) and named else ()

    @field_validator("key")
    @classmethod
    def _plain_key(cls, value: str) -> str:
        check_key(value)
        return value


@dataclass(frozen=True)
class Sample:
    """A clip as it stands in a shard; `video` is the bytes of the mp4, or None."""

    meta: SampleMeta
    tensors: dict[str, Tensor]
    video: bytes | None = None

    @property
    def key(self) -> str:
        return self.meta.key


def check_key(key: str) -> None:
    """Raise UserError unless `key` is safe as a file name and for webdataset (no dots, no slashes)."""
    if not KEY_PATTERN.fullmatch(key):
        raise UserError(f"sample key {key!r}: use 1 to 88 letters, digits, '_' and '-' only")


def expected_shapes(meta: SampleMeta) -> dict[str, tuple[int | None, ...]]:
    """The shape each tensor must have; None where the width is free (encoders, number of images)."""
    frames, latent = meta.num_frames, latent_length(meta.num_frames)
    h, w = meta.height // SPATIAL_STRIDE, meta.width // SPATIAL_STRIDE
    return {
        "video_latent": (latent, LATENT_CHANNELS, h, w),
        "structure": (frames, LAYOUTS[meta.structure_layout].dim if meta.has_face else None),
        "flame": (frames, FLAME_159.dim),
        "audio": (2 * frames, None),
        "reference_latents": (None, LATENT_CHANNELS, h, w),
        "reference_frames": (None,),
        "reference_features": (None, None, None),
        "mouth_boxes": (frames, 4),
        "truth": (frames, len(meta.truth_names or ())),
        "identity_vector": (None,),
        "text_features": (None, None),
    }


def validate_sample(sample: Sample) -> None:
    """Check the metadata's consistency and every tensor's name, dtype, shape, range and finiteness.

    Raises:
        UserError: one line naming the sample and the first thing that is wrong.
    """
    problem = _meta_problem(sample.meta) or _tensor_problem(sample)
    if problem:
        raise UserError(f"sample {sample.key}: {problem}")


def _meta_problem(meta: SampleMeta) -> str | None:
    if meta.schema_version != SCHEMA_VERSION:
        return f"schema version {meta.schema_version}, this program reads {SCHEMA_VERSION}"
    if meta.fps != FPS:
        return f"{meta.fps} fps instead of {FPS}"
    if meta.num_frames < 1 or (meta.num_frames - 1) % 4:
        return f"{meta.num_frames} pixel frames are not 1 + 4n"
    if meta.height < SPATIAL_STRIDE or meta.height % SPATIAL_STRIDE or meta.width % SPATIAL_STRIDE or meta.width < 1:
        return f"size {meta.width}x{meta.height} is not a multiple of {SPATIAL_STRIDE}"
    if meta.has_face and meta.structure_layout not in LAYOUTS:
        return f"unknown structure layout {meta.structure_layout!r}; known: {', '.join(LAYOUTS)}"
    if not 0.0 <= meta.weight <= 1.0:
        return f"weight {meta.weight} is not in 0..1"
    return None


def _tensor_problem(sample: Sample) -> str | None:
    shapes = expected_shapes(sample.meta)
    needed = (*REQUIRED, *OF_FACES) if sample.meta.has_face else REQUIRED
    missing = [name for name in needed if name not in sample.tensors]
    foreign = [name for name in (*OF_FACES, "flame", "identity_vector") if name in sample.tensors]
    if foreign and not sample.meta.has_face:
        return f"{foreign} of a clip without a face (structure_layout {NO_FACE})"
    unknown = sorted(set(sample.tensors) - set(DTYPES))
    if missing or unknown:
        return f"tensors missing: {missing}" if missing else f"unknown tensors: {unknown}"
    if ("truth" in sample.tensors) != (sample.meta.truth_names is not None):
        return "`truth` and `truth_names` must come together"
    if len({"text_features" in sample.tensors, sample.meta.prompt is not None, "text" in sample.meta.encoders}) != 1:
        return "`text_features`, `prompt` and the encoder `text` must come together"
    for name, tensor in sample.tensors.items():
        shape = shapes[name]
        fits = tensor.ndim == len(shape) and all(b is None or a == b for a, b in zip(tensor.shape, shape))
        if not fits or 0 in tensor.shape:
            wanted = "x".join("*" if size is None else str(size) for size in shape)
            return f"{name} has shape {'x'.join(map(str, tensor.shape))}, wanted {wanted}"
        if tensor.dtype != DTYPES[name]:
            return f"{name} is {tensor.dtype}, wanted {DTYPES[name]}"
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"{name} holds values that are not finite"
    return _range_problem(sample)


def _range_problem(sample: Sample) -> str | None:
    frames = sample.tensors["reference_frames"]
    counts = {sample.tensors[name].shape[0] for name in ("reference_latents", "reference_frames", "reference_features")}
    if len(counts) != 1:
        return f"reference latents, frames and features differ in number: {sorted(counts)}"
    if int(frames.min()) < 0 or int(frames.max()) >= sample.meta.num_frames:
        return f"reference_frames lie outside 0..{sample.meta.num_frames - 1}"
    if "text_features" in sample.tensors and len(sample.tensors["text_features"]) > TEXT_TOKENS:
        return f"text_features has {len(sample.tensors['text_features'])} rows, a text at most {TEXT_TOKENS}"
    if "mouth_boxes" not in sample.tensors:
        return None
    x0, y0, x1, y1 = sample.tensors["mouth_boxes"].unbind(-1)
    if bool((x1 < x0).any()) or bool((y1 < y0).any()):
        return "mouth_boxes are not (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1"
    return None


# -------------------- to and from bytes


def to_members(sample: Sample) -> dict[str, bytes]:
    """File name -> bytes of a sample's members, in name order. Equal samples give equal bytes."""
    validate_sample(sample)
    document = sample.meta.model_dump(mode="json", exclude_none=True)
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    tensors = {name: sample.tensors[name].detach().cpu().contiguous() for name in sorted(sample.tensors)}
    members = {f"{sample.key}.json": text.encode("utf-8")}
    if sample.video is not None:
        members[f"{sample.key}.mp4"] = sample.video
    members[f"{sample.key}.safetensors"] = safetensors_torch.save(tensors)
    return members


def meta_from_json(data: bytes, where: str) -> SampleMeta:
    """Parse a sample's json; `where` names the file in errors."""
    try:
        return SampleMeta.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: bad metadata: {place}: {first['msg']}") from error


def tensors_from_bytes(data: bytes, where: str) -> dict[str, Tensor]:
    """Parse a sample's safetensors; `where` names the file in errors."""
    try:
        return safetensors_torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where}: the tensors cannot be read ({error}); the shard is damaged, build it again"
        ) from error


def from_members(key: str, members: dict[str, bytes], where: str) -> Sample:
    """A sample from its members' bytes by suffix (`json`, `safetensors`, `mp4`); `where` names the shard in errors."""
    place = f"{where}: sample {key}"
    for suffix in ("json", "safetensors"):
        if suffix not in members:
            raise UserError(f"{place}: its .{suffix} is missing; the shard is damaged, build it again")
    meta = meta_from_json(members["json"], place)
    if meta.key != key:
        raise UserError(f"{place}: its metadata names another key, {meta.key!r}")
    return Sample(meta, tensors_from_bytes(members["safetensors"], place), members.get("mp4"))
