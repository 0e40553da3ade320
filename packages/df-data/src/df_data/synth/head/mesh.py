"""All parts of a person joined into arrays that the compiled code reads, cached per identity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from df_data.synth.head import head as h
from df_data.synth.head import parts as p
from df_data.synth.head.identity import Identity, palette


@dataclass(frozen=True)
class HeadMesh:
    """A person at rest.

    Attributes:
        vertices: float64 ``[N, NUM_COLUMNS]`` (see :mod:`df_data.synth.head.head`).
        texture: float64 ``[N, 3]``.
        triangles: int32 ``[M, 3]``.
        material: int32 ``[M]``.
        sides: int32 ``[M]``, 0 seen from the front, 1 from both sides, 2 dark from the back.
        eye_centers: float64 ``[2, 3]``.
        anchors: vertex numbers of named points of the skin; ``iris_left`` and ``iris_right`` on the eyeballs.
        look: float64, numbers the shader needs (see :func:`_look`).
        colors: float64 ``[9, 3]``.
    """

    vertices: np.ndarray
    texture: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    sides: np.ndarray
    eye_centers: np.ndarray
    anchors: dict[str, int]
    look: np.ndarray
    colors: np.ndarray


@lru_cache(maxsize=16)
def build_mesh(identity: Identity) -> HeadMesh:
    """Build the mesh of a person."""
    skin = h.build_head(identity)
    centers = p.eyeball_centers(identity, skin)
    mouth_row = skin.anchors["upper_lip_inner"] // h.NUM_COLS
    eyes = p.build_eyeballs(centers)
    pieces = [skin, *eyes, *p.build_mouth_inside(identity, skin), *p.build_inner_lips(skin, mouth_row)]
    pieces += [*p.build_ears(identity), p.build_hair(identity), *p.build_body(identity)]
    starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
    triangles = np.concatenate([piece.triangles + start for piece, start in zip(pieces, starts)])
    counts = [len(piece.triangles) for piece in pieces]
    anchors = dict(skin.anchors) | {"iris_left": int(starts[1]), "iris_right": int(starts[2])}
    return HeadMesh(
        vertices=np.concatenate([piece.vertices for piece in pieces]),
        texture=np.concatenate([piece.texture for piece in pieces]),
        triangles=triangles.astype(np.int32),
        material=np.repeat([piece.material for piece in pieces], counts).astype(np.int32),
        sides=np.repeat([int(piece.two_sided) + 2 * int(piece.hollow) for piece in pieces], counts).astype(np.int32),
        eye_centers=centers,
        anchors=anchors,
        look=_look(identity),
        colors=palette(identity).table(),
    )


def _look(identity: Identity) -> np.ndarray:
    """Numbers of the shader, in the order that :mod:`df_data.synth.head.shading` names them."""
    stubble = max(0.0, (identity.stubble - 0.6) / 0.4) if identity.hair_style in ("buzz", "short", "curly") else 0.0
    return np.array(
        [
            identity.mouth_width,
            identity.upper_lip,
            identity.lower_lip,
            identity.eye_spacing,
            h.eye_half_width(identity),
            -0.345 + identity.brow_height,
            identity.brow_thickness,
            stubble,
            identity.nose_width,
            float(identity.hair_style == "curly"),
            identity.eye_tilt,
        ]
    )
