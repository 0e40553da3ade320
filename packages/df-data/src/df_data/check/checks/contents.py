"""What a sample's tensors must agree in, beyond shapes and dtypes: ranges, and the alignment of one to another.

The ranges are far wider than any audio sample needs; a value outside is damage, a wrong unit or a wrong field, not an
unusual clip.

Shape legend: P pixel frames, T latent frames, R reference images, h, w latent cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch

from df_data.format.manifest import Manifest
from df_data.format.measures import structure_field
from df_data.format.sample import Sample, SampleMeta, validate_sample
from df_models.errors import UserError
from df_models.structure import FLAME_159

LIMITS = {
    "video_latent": 30.0,
    "reference_latents": 30.0,
    "audio": 1000.0,
    "reference_features": 1000.0,
    "identity_vector": 1000.0,
    "text_features": 1000.0,
    "truth": 1000.0,
}
"""Greatest magnitude by tensor; latents are normalised, so those of an intact clip lie within about 8."""
STRUCTURE_LIMITS = {
    "expression": 10.0,
    "pitch": 180.0,
    "yaw": 180.0,
    "roll": 180.0,
    "translation": 100.0,
    "scale": 100.0,
}
"""Greatest magnitude by field of the structure vector: angles in degrees, the rest in head units."""
FLAME_LIMITS = {"shape": 100.0, "expression": 100.0, "pose": 2 * math.pi, "camera": 1000.0}
"""The same for FLAME; `pose` is axis-angle in radians."""
BOX_SLACK = 0.5
"""Pixels that a mouth box may reach over the edge (a box is rounded to float32)."""
REFERENCE_RMS = 0.05
"""Greatest root mean square difference of the first latent frame and the latent of pixel frame 0 encoded alone.

They are equal by definition; a VAE computing in bfloat16 may differ in the last bits with the size of its batch.
"""
_ABSOLUTE = re.compile(r"^(?:/|\\|~|file:|[A-Za-z]:[\\/])")


def sample_problems(sample: Sample, manifest: Manifest) -> list[str]:
    """Return what is wrong with a sample's metadata and tensors, a line each without the sample's name."""
    try:
        validate_sample(sample)
    except UserError as error:
        return [str(error).removeprefix(f"sample {sample.key}: ")]
    return [*_meta(sample.meta, manifest), *_ranges(sample), *_boxes(sample), *_references(sample)]


def _meta(meta: SampleMeta, manifest: Manifest) -> Iterator[str]:
    for name in ("split", "height", "width", "structure_layout"):
        mine, theirs = getattr(meta, name), getattr(manifest, name)
        if mine != theirs:
            yield f"its {name} is {mine!r}, the manifest says {theirs!r}"
    if meta.encoders != manifest.encoders:
        roles = sorted(
            role
            for role in {*meta.encoders, *manifest.encoders}
            if meta.encoders.get(role) != manifest.encoders.get(role)
        )
        yield f"was made with other encoders than the manifest names ({', '.join(roles)})"
    for name in ("source", "licence", "identity"):
        if not getattr(meta, name):
            yield f"its {name} is empty"
    if _ABSOLUTE.match(meta.source):
        yield f"its source {meta.source!r} is an absolute path"
    wrong = sorted(name for name, value in meta.scores.items() if not math.isfinite(value))
    if wrong:
        yield f"scores that are not finite: {', '.join(wrong)}"
    if any(not (math.isfinite(start) and start <= end) for _, start, end in meta.phonemes or ()):
        yield "a phoneme ends before it begins"


def _ranges(sample: Sample) -> Iterator[str]:
    for name, limit in LIMITS.items():
        if name in sample.tensors:
            yield from _beyond(name, sample.tensors[name], limit)
    if not sample.meta.has_face:
        return
    for name, limit in STRUCTURE_LIMITS.items():
        yield from _beyond(f"structure's {name}", structure_field(sample, name), limit)
    if bool((structure_field(sample, "scale") <= 0).any()):
        yield "structure's scale is not above 0 in every frame"
    if "flame" in sample.tensors:
        for name, limit in FLAME_LIMITS.items():
            yield from _beyond(f"flame's {name}", sample.tensors["flame"][:, FLAME_159.slice(name)], limit)


def _beyond(name: str, values: torch.Tensor, limit: float) -> Iterator[str]:
    greatest = float(values.abs().max())
    if greatest > limit:
        yield f"{name} reaches {greatest:.4g}, at most {limit:.4g} is plausible"


def _boxes(sample: Sample) -> Iterator[str]:
    if not sample.meta.has_face:
        return
    x0, y0, x1, y1 = sample.tensors["mouth_boxes"].unbind(-1)
    meta = sample.meta
    outside = (x0 < -BOX_SLACK) | (y0 < -BOX_SLACK) | (x1 > meta.width + BOX_SLACK) | (y1 > meta.height + BOX_SLACK)
    if bool(outside.any()):
        yield f"mouth_boxes reach outside the {meta.width}x{meta.height} image in {_frames(outside)}"
    empty = (x1 <= x0) | (y1 <= y0)
    if bool(empty.any()):
        yield f"mouth_boxes are empty in {_frames(empty)}"


def _frames(flags_P: torch.Tensor) -> str:
    found = flags_P.nonzero().flatten().tolist()
    return f"{len(found)} of {len(flags_P)} frames, the first {found[0]}"


def _references(sample: Sample) -> Iterator[str]:
    first = sample.tensors["video_latent"][0].float()
    for index in (sample.tensors["reference_frames"] == 0).nonzero().flatten().tolist():
        alone = sample.tensors["reference_latents"][index].float()
        difference = float((alone - first).square().mean().sqrt())
        if difference > REFERENCE_RMS:
            yield (
                f"reference latent {index} is of pixel frame 0, but differs from latent frame 0 by {difference:.3g} "
                f"(root mean square; at most {REFERENCE_RMS} is rounding)"
            )
