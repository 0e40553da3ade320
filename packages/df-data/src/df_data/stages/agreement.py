"""Whether those who read a head's motion from the same frames agree: MediaPipe, LivePortrait, FLAME (DECA or EMOCA).

Each pair of them gives two scores, named after the pair (``liveportrait_flame_head_deg``,
``liveportrait_flame_mouth``, ``liveportrait_mediapipe_...``, ``flame_mediapipe_...``). Neither knows which of the two
is right, and neither depends on units, or on what each takes for a face that looks straight ahead.

``..._head_deg``: how far the heads' rotations are apart, in degrees, after the best constant alignment. With a(t) and
b(t) the rotations, both of one head, ``a(t) = head(t) A`` and ``b(t) = head(t) B`` for the constant poses A and B that
each calls neutral. So ``b(t) = a(t) C``; C is fitted (:func:`head_disagreement`), and the score is the root mean square
over time of the angle of ``(a(t) C)^T b(t)``. A head that stands still agrees with anything that stands still.

``..._mouth``: Pearson's correlation over time of how far the mouth is open, -1 to 1 (:func:`agreement`).

The rotations' axes, made one here: x to the right of the image, y down, z away from the camera, column vectors.

============  =========================================  ==============================================================
who           head                                       mouth
============  =========================================  ==============================================================
mediapipe     ``Rz(roll) Ry(yaw) Rx(pitch)`` in these    ``mouth_open``
              axes (:mod:`df_data.stages.readings`)
liveportrait  the same of its angles                     y of keypoint 19's expression, turned back into the head's
              (``head_rotation`` is its transpose, for   axes: what LivePortrait's own editor moves for "lip close to
              row vectors)                               open" (``src/gradio_pipeline.py``, ``lip_variation_three``)
flame         ``F exp([pose_0..2]x) F``, F = diag(1,     jaw's turn about x, ``pose_3``; above 0 the mouth opens
              -1, -1): FLAME's axes are x right, y up,   (EMOCA and DECA open lips by ``expression`` too, which is not
              z to the camera, and DECA flips y and z    counted)
              of what it projects (``decalib/deca.py``,
              ``trans_verts[:, :, 1:] *= -1``)
============  =========================================  ==============================================================

What real weights reach is not known here (they cannot be had where this was written), so no score has a limit by
default: set one after a look at the distributions that ``df-data inspect`` draws. Proved on known truth instead
(``tests/encoders/test_agreement.py``).

Shape legend: T frames, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from pydantic import Field

from df_models.encoders.face.liveportrait import head_rotation
from df_models.settings import FrozenModel
from df_models.structure import FLAME_159, LIVEPORTRAIT_70

OPENING_KEYPOINT = 19
"""LivePortrait's keypoint at the lower lip (see the module's table)."""
FLIP = np.diag([1.0, -1.0, -1.0])
STILL = 1e-9
"""A track with a smaller standard deviation does not move, and agrees or disagrees with nothing."""


class AgreementFilter(FrozenModel):
    """When readers of motion disagree: each soft fault halves the weight; null: never.

    Attributes:
        max_head_deg: a pair's heads are further apart than this, in degrees.
        min_mouth: a pair's mouths go together less than this (correlation).
    """

    max_head_deg: float | None = Field(default=None, gt=0)
    min_mouth: float | None = Field(default=None, ge=-1, le=1)


@dataclass(frozen=True)
class View:
    """What one of them saw: the head's rotation ``[T, 3, 3]`` in the module's axes, the mouth's opening ``[T]``."""

    rotation: np.ndarray
    mouth: np.ndarray


def mediapipe_view(structure_TD: np.ndarray, mouth_open_T: np.ndarray) -> View:
    """See with MediaPipe: its structure vectors ``[T, 70]`` and ``mouth_open``."""
    return View(structure_rotation(structure_TD), mouth_open_T)


def liveportrait_view(motion_TD: np.ndarray) -> View:
    """See with LivePortrait's motion vectors ``[T, 70]``."""
    rotation = structure_rotation(motion_TD)
    offsets_TK3 = motion_TD[:, LIVEPORTRAIT_70.slice("expression")].reshape(len(motion_TD), -1, 3)
    in_head_T3 = np.einsum("ti,tij->tj", offsets_TK3[:, OPENING_KEYPOINT], rotation)
    return View(rotation, in_head_T3[:, 1])


def flame_view(flame_TD: np.ndarray) -> View:
    """See with FLAME vectors ``[T, 159]`` of DECA or EMOCA."""
    pose_T6 = flame_TD[:, FLAME_159.slice("pose")].astype(np.float64)
    x, y, z = pose_T6[:, :3].T
    zero = np.zeros_like(x)
    cross_T33 = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
    turn_T33 = torch.linalg.matrix_exp(torch.from_numpy(cross_T33)).numpy()
    return View(FLIP @ turn_T33 @ FLIP, pose_T6[:, 3])


def structure_rotation(structure_TD: np.ndarray) -> np.ndarray:
    """Return the head's rotation float64 ``[T, 3, 3]``, column vectors, of structure vectors ``[T, 70]``."""
    angles_T3 = np.column_stack([structure_TD[:, LIVEPORTRAIT_70.slice(name)] for name in ("pitch", "yaw", "roll")])
    return head_rotation(torch.from_numpy(angles_T3.astype(np.float64))).mT.numpy()


def agreement_scores(views: Mapping[str, View]) -> dict[str, float]:
    """Return the scores of every pair of views, in the order of their names (see the module).

    A mouth that does not move has no score.
    """
    scores: dict[str, float] = {}
    for (name, view), (other_name, other) in combinations(views.items(), 2):
        pair = f"{name}_{other_name}"
        scores[f"{pair}_head_deg"] = head_disagreement(view.rotation, other.rotation)
        together = agreement(view.mouth, other.mouth)
        scores |= {} if together is None else {f"{pair}_mouth": together}
    return scores


def head_disagreement(rotation_T33: np.ndarray, other_T33: np.ndarray) -> float:
    """Return the root mean square angle, in degrees, between ``rotation @ C`` and ``other``, for the best constant C.

    C is the rotation that is least in ``sum_t |rotation_t C - other_t|^2``: with ``U S V^T`` of ``sum_t rotation_t^T
    other_t``, ``C = U diag(1, 1, det(U V^T)) V^T`` (Kabsch 1976). The angle of a rotation E follows from its distance
    to none, ``|E - 1|_F = 2 sqrt(2) sin(angle / 2)``, which is exact for small angles too.
    """
    u, _, vt = np.linalg.svd(np.einsum("tji,tjk->ik", rotation_T33, other_T33))
    constant_33 = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    distance_T = np.linalg.norm(rotation_T33 @ constant_33 - other_T33, axis=(1, 2))
    angle_T = 2 * np.arcsin(np.clip(distance_T / np.sqrt(8), 0, 1))
    return float(np.degrees(np.sqrt(np.square(angle_T).mean())))


def agreement(track_T: np.ndarray, other_T: np.ndarray) -> float | None:
    """Return the correlation of two tracks over time, or None where one of them does not move."""
    if track_T.std() < STILL or other_T.std() < STILL:
        return None
    return float(np.corrcoef(track_T, other_T)[0, 1])


def doubts(scores: Mapping[str, float], filters: AgreementFilter) -> tuple[str, ...]:
    """Return the names of the limits that are passed, by whichever pair; each is a soft fault and halves the weight."""
    heads = [value for name, value in scores.items() if name.endswith("_head_deg")]
    mouths = [value for name, value in scores.items() if name.endswith("_mouth")]
    apart = filters.max_head_deg is not None and any(value > filters.max_head_deg for value in heads)
    against = filters.min_mouth is not None and any(value < filters.min_mouth for value in mouths)
    return ("heads_disagree",) * apart + ("mouths_disagree",) * against
