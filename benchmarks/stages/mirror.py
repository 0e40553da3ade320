"""What mirroring an image left to right does to what is known about it.

A mirror negates x: with ``M = diag(-1, 1, 1)`` a rotation R becomes ``M R M``, which for ``Rz(roll) Ry(yaw) Rx(pitch)``
keeps the pitch and negates yaw and roll; the x of translations, keypoints and offsets changes its sign; and what was
the left brow is now seen as the right one, so paired keypoints change places.

Latents are not here: the VAE is not symmetric, so a video has to be mirrored before it is encoded. FLAME vectors are
not here either: FLAME's shape and expression components are not each symmetric or antisymmetric.

Shape legend: K = 21 keypoints, D = 70 structure fields; leading dimensions are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from df_data.stages.readings import KEYPOINTS
from df_models.errors import UserError
from df_models.structure import LIVEPORTRAIT_70

NAMED_KEYPOINTS = tuple(KEYPOINTS)
"""Names of the keypoints of the synthetic corpus and of MediaPipe's structure vectors, in their common order.

LivePortrait's own 21 keypoints are learnt without names or symmetry, and no pairing of them is published: vectors that
its motion extractor made cannot be mirrored by a rule. Mirror the video and encode it again.
"""
_LEFT, _RIGHT = "left", "right"


def keypoint_partners(names: Sequence[str]) -> list[int]:
    """For each keypoint the one that the mirror shows in its place: `brow_left` and `brow_right`, `chin` itself.

    Raises:
        UserError: one side of a pair is missing.
    """
    at = {name: number for number, name in enumerate(names)}
    partners = []
    for name in names:
        words = [_RIGHT if word == _LEFT else _LEFT if word == _RIGHT else word for word in name.split("_")]
        other = "_".join(words)
        if other not in at:
            raise UserError(f"keypoint {name} has no partner {other}; keypoints are mirrored in pairs")
        partners.append(at[other])
    return partners


def mirror_structure(structure_D: Tensor, names: Sequence[str] = NAMED_KEYPOINTS) -> Tensor:
    """The structure vectors ``[..., 70]`` of the mirrored video.

    Args:
        structure_D: in the layout `liveportrait70`, expression in the camera's axes.
        names: of the keypoints, with `left` and `right` in the names of pairs.

    Raises:
        UserError: another width, or names that are not one per keypoint or lack a partner.
    """
    field = LIVEPORTRAIT_70.slice
    width = field("expression").stop - field("expression").start
    if structure_D.shape[-1] != LIVEPORTRAIT_70.dim or 3 * len(names) != width:
        raise UserError(
            f"mirrored are vectors of {LIVEPORTRAIT_70.dim} fields with {width // 3} keypoints, "
            f"not {structure_D.shape[-1]} fields with {len(names)}"
        )
    mirrored = structure_D.clone()
    offsets_K3 = structure_D[..., field("expression")].unflatten(-1, (-1, 3))[..., keypoint_partners(names), :]
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=structure_D.dtype, device=structure_D.device)
    mirrored[..., field("expression")] = (offsets_K3 * sign).flatten(-2)
    mirrored[..., field("translation")] *= sign
    for angle in ("yaw", "roll"):
        mirrored[..., field(angle)] *= -1
    return mirrored
