"""Numbers about a stored clip that follow from its tensors alone, whatever scores its build recorded.

Shape legend: P pixel frames, T latent frames, h, w latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from df_data.format.sample import LAYOUTS, Sample, SampleMeta
from df_models.time import FPS

MOUTH_OPEN = "mouth_open"
"""Name of the mouth's opening among a sample's truths, in the synthetic corpus and by the landmarker."""


def measures_of(sample: Sample) -> dict[str, float]:
    """Return what is measured of a clip, by name.

    ``clip_seconds``; ``weight``, the sampling weight; ``latent_rms``, root mean square of the video latent (about 1);
    ``latent_change``, mean absolute difference of neighbouring latent frames; of a face ``mouth_box_share``, the
    mouth box's share of the image, and ``yaw_abs_deg``, median of ``|yaw|``; ``mouth_open_std`` where the mouth's
    opening is known.
    """
    meta, tensors = sample.meta, sample.tensors
    latent = tensors["video_latent"].float()
    found = {
        "clip_seconds": meta.num_frames / FPS,
        "weight": meta.weight,
        "latent_rms": float(latent.square().mean().sqrt()),
        "latent_change": float(latent.diff(dim=0).abs().mean()) if len(latent) > 1 else 0.0,
    }
    if meta.has_face:
        found["mouth_box_share"] = mouth_share(meta, tensors["mouth_boxes"])
        found["yaw_abs_deg"] = float(structure_field(sample, "yaw").abs().median())
    opening = mouth_opening(meta, tensors)
    if opening is not None:
        found["mouth_open_std"] = float(opening.std(correction=0))
    return found


def structure_field(sample: Sample, field: str) -> Tensor:
    """Return one named field of the structure vector, ``[P, width]``."""
    return sample.tensors["structure"][:, LAYOUTS[sample.meta.structure_layout].slice(field)]


def mouth_opening(meta: SampleMeta, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Return the mouth's opening per pixel frame ``[P]`` as a share of the face's height; None where it is unknown."""
    names = meta.truth_names or ()
    return tensors["truth"][:, names.index(MOUTH_OPEN)] if MOUTH_OPEN in names else None


def mouth_share(meta: SampleMeta, boxes_P4: Tensor) -> float:
    """Return the mean area of mouth boxes as a share of the image."""
    x0, y0, x1, y1 = boxes_P4.unbind(-1)
    return float(torch.mean((x1 - x0) * (y1 - y0))) / (meta.height * meta.width)
