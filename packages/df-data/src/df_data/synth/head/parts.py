"""Everything on the head but its skin: eyeballs, teeth, tongue, inside of the mouth, ears, hair, neck and clothes."""

from __future__ import annotations

import numpy as np

from df_data.synth.head import head as h
from df_data.synth.head.identity import Identity


def _part(
    points: np.ndarray, texture: np.ndarray, rows: int, cols: int, material: int, two_sided: bool = True
) -> h.MeshPart:
    vertices = np.zeros((len(points), h.NUM_COLUMNS))
    vertices[:, :3] = points
    vertices[:, h.HEAD] = 1.0
    return h.MeshPart(vertices, texture, h.grid_triangles(rows, cols), material, two_sided=two_sided)


def _grid(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.meshgrid(first, second, indexing="ij")
    return a.ravel(), b.ravel()


def eyeball_centers(identity: Identity, skin: h.MeshPart) -> np.ndarray:
    """Centres of the left and right eyeball ``[2, 3]``: the ball's front lies just behind the closed lids."""
    centers = []
    for side in ("left", "right"):
        lid = skin.vertices[skin.anchors[f"upper_lid_{side}"], :3]
        x = np.copysign(identity.eye_spacing, lid[0])
        centers.append([x, lid[1] - 0.03, lid[2] + h.EYEBALL_RADIUS * 0.90])
    return np.array(centers)


def build_eyeballs(centers: np.ndarray) -> list[h.MeshPart]:
    """The front halves of the two eyeballs; texture coordinates are directions from the centre."""
    parts = []
    angle, turn = _grid(np.linspace(0.0, 1.75, 9), np.linspace(-np.pi, np.pi, 15))
    direction = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), -np.cos(angle)], axis=1)
    for number, center in enumerate(centers, start=1):
        part = _part(center + h.EYEBALL_RADIUS * direction, direction, 9, 15, h.EYEBALL)
        part.vertices[:, h.EYE] = number
        parts.append(part)
    return parts


def build_mouth_inside(identity: Identity, skin: h.MeshPart) -> list[h.MeshPart]:
    """Cavity, two rows of teeth and the tongue, all behind the closed lips."""
    line = skin.vertices[skin.anchors["upper_lip_inner"]]
    y, z = float(line[h.Y]), float(line[h.Z])
    wide = identity.mouth_width
    parts = []
    turn, height = _grid(np.linspace(-1.35, 1.35, 13), np.array([-0.13, 0.030]))
    for lower in (False, True):
        rise = -height + 0.075 if lower else height
        reach = 0.75 * wide if lower else 0.82 * wide
        depth = z + 0.14 if lower else z + 0.115
        points = np.stack([reach * np.sin(turn), y + rise, depth + 0.36 * (1 - np.cos(turn))], axis=1)
        texture = np.stack([turn, (height + 0.13) / 0.16, np.full_like(turn, float(lower))], axis=1)
        part = _part(points, texture, 13, 2, h.TEETH)
        part.vertices[:, h.JAW] = float(lower)
        part.vertices[:, h.RAISE] = 0.0 if lower else 0.35
        parts.append(part)
    side, rise = _grid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    bowl = np.stack([side * wide * 0.80, y + 0.02 + 0.12 * rise, z + 0.46 - 0.12 * side**2 - 0.05 * rise**2], axis=1)
    cavity = _part(bowl, np.stack([side, rise, side * 0], axis=1), 9, 9, h.CAVITY)
    cavity.vertices[:, h.JAW] = h.smoothstep(rise, -0.6, 0.9)
    cavity.vertices[:, h.SPREAD] = h.spread_share(bowl[:, 0], h.MOUTH_LINE + 0.12 * rise)
    lon, lat = _grid(np.linspace(-1.5, 1.5, 9), np.linspace(-1.5, 1.2, 7))
    ball = np.stack([np.sin(lon) * np.cos(lat), np.sin(lat), -np.cos(lon) * np.cos(lat)], axis=1)
    points = ball * np.array([wide * 0.60, 0.085, 0.22]) + np.array([0, y + 0.115, z + 0.40])
    tongue = _part(points, ball, 9, 7, h.TONGUE)
    tongue.vertices[:, h.JAW] = 0.88
    return [*parts, cavity, tongue]


def build_inner_lips(skin: h.MeshPart, mouth_row: int) -> list[h.MeshPart]:
    """The moist inner side of both lips, rolling back into the mouth from the two seam rows."""
    parts = []
    half = h.NUM_COLS // 2
    columns = np.arange(half - 9, half + 10)
    for lower in (False, True):
        seam = (mouth_row + int(lower)) * h.NUM_COLS + columns
        edge = skin.vertices[seam]
        away = 1.0 if lower else -1.0
        rings = []
        for back, rise in ((0.0, 0.0), (0.035, 0.006), (0.075, 0.03), (0.11, 0.07)):
            ring = edge.copy()
            ring[:, h.Z] += back
            ring[:, h.Y] += away * rise
            rings.append(ring)
        texture = np.stack(
            [np.tile(edge[:, h.X], 4), np.repeat([0.0, 0.3, 0.7, 1.0], len(seam)), np.zeros(4 * len(seam))], 1
        )
        triangles = h.grid_triangles(4, len(seam))
        parts.append(h.MeshPart(np.concatenate(rings), texture, triangles, h.INNER_LIP, two_sided=True))
    return parts


def build_ears(identity: Identity) -> list[h.MeshPart]:
    """Two flat ellipsoids on the sides of the head."""
    parts = []
    lat, lon = _grid(np.linspace(-np.pi / 2, np.pi / 2, 9), np.linspace(-np.pi, np.pi, 13))
    ball = np.stack([np.cos(lat) * np.cos(lon), np.sin(lat), np.cos(lat) * np.sin(lon)], axis=1)
    for sign in (-1.0, 1.0):
        x, _ = h.shell(identity, np.array([0.0]), np.array([sign * 1.6]))
        rim = 0.75 + 0.25 * np.hypot(ball[:, 1], ball[:, 2])
        points = ball * np.array([0.075, 0.20, 0.115]) * rim[:, None]
        points[:, 2] += 0.10 * points[:, 1] + 0.30 * np.abs(points[:, 0])
        points = points + np.array([x[0] + sign * 0.02, 0.05, 0.06])
        parts.append(
            _part(
                points,
                np.stack([points[:, 0], points[:, 1], ball[:, 0] * sign - 2.0], axis=1),
                9,
                13,
                h.SKIN,
                two_sided=True,
            )
        )
    return parts


# Style -> hairline height in the middle, at the temples (60 degrees), at the ears (95 degrees), at the back.
_HAIRLINES = {
    "buzz": (-0.72, -0.48, -0.02, 0.50),
    "short": (-0.70, -0.50, 0.06, 0.55),
    "fringe": (-0.50, -0.40, 0.10, 0.62),
    "bob": (-0.66, -0.36, 0.72, 0.80),
    "long": (-0.72, -0.42, 1.60, 1.60),
    "curly": (-0.64, -0.38, 0.34, 0.60),
}
_LONGITUDES_OF_LINE = np.array([0.0, 0.55, 1.05, 1.42, 1.75, np.pi])


def hairline(identity: Identity, longitude: np.ndarray) -> np.ndarray:
    """Height of the hair's lower edge by longitude."""
    middle, temple, ear, back = _HAIRLINES[identity.hair_style]
    falls = identity.hair_style in ("bob", "long")
    at_side = 0.5 * (temple + ear) if falls else temple + 0.45 * (ear - temple)
    heights = [middle, middle + 0.02, temple, at_side, ear, back]
    return np.interp(np.abs(longitude), _LONGITUDES_OF_LINE, heights)


def build_hair(identity: Identity) -> h.MeshPart:
    """A shell around the skull, cut at the hairline; long hair hangs from the widest part of the head."""
    style = identity.hair_style
    falls = style in ("bob", "long")
    low = {"bob": 0.85, "long": 1.55}.get(style, 0.65)
    rows = np.concatenate([[-1.18, -1.172, -1.15, -1.11, -1.05, -0.97, -0.87, -0.77], np.linspace(-0.68, low, 17)])
    y, lon = _grid(rows, h.longitudes())
    inner = np.minimum(y, 0.985)
    x, z = h.shell(identity, np.minimum(inner, -0.1) if falls else inner, lon)
    if falls:
        x *= 1 + 0.05 * h.smoothstep(y, 0.0, 1.2)
    volume = {"buzz": 0.022, "short": 0.55, "fringe": 0.7, "bob": 0.8, "long": 0.8, "curly": 1.7}[style]
    thick = 0.02 + volume * identity.hair_volume
    if style == "curly":
        thick = thick * (1 + 0.22 * np.sin(9 * lon + 2 * np.sin(7 * y)) * np.sin(11 * y + 1.3 * np.sin(5 * lon)))
    line = hairline(identity, lon)
    part_shift = 0.35 if identity.index % 2 else -0.35
    if style in ("short", "bob", "long"):
        line = line - 0.13 * h.bump(lon, part_shift, 0.22)
    margin = line - y
    thick = thick * (0.35 + 0.65 * h.smoothstep(margin, -0.02, 0.30))
    norm = np.sqrt(x**2 + z**2 + 1e-6)
    top = 1 - h.smoothstep(y, -1.18, -0.70)
    points = np.stack([x + thick * x / norm, y * identity.head_height, z + thick * z / norm], axis=1)
    points[:, 1] = np.where(y < 0, points[:, 1], y) - 0.75 * thick * top
    return _part(points, np.stack([lon, y, margin], axis=1), len(rows), h.NUM_COLS, h.HAIR)


def build_body(identity: Identity) -> list[h.MeshPart]:
    """Neck (bending between head and body) and clothed shoulders."""
    y, lon = _grid(np.linspace(0.45, 1.62, 8), np.linspace(-np.pi, np.pi, 21))
    share = (y - 0.45) / 1.17
    radius = (0.40 + 0.06 * identity.jaw_width + 0.10 * share**2) * identity.head_width
    points = np.stack([radius * np.sin(lon), y, 0.10 - radius * 0.92 * np.cos(lon)], axis=1)
    neck = _part(points, np.stack([lon, y, share], axis=1), 8, 21, h.NECK, two_sided=False)
    neck.vertices[:, h.HEAD] = 1 - h.smoothstep(share, 0.15, 0.85)
    across, down = _grid(np.linspace(-1, 1, 25), np.linspace(0, 1, 9))
    slope = 1.30 + 0.34 * np.abs(across) ** 1.6 - 0.10 * np.exp(-(((np.abs(across) - 0.32) / 0.12) ** 2))
    dip = 0.22 * np.exp(-((across / 0.30) ** 2))
    front = -0.34 - 0.22 * np.cos(across * 1.4) * np.sqrt(down)
    points = np.stack([across * 1.75, slope + dip * (1 - down) + 1.3 * down, front + 0.45 * across**2], axis=1)
    chest = _part(points, np.stack([across, down, slope], axis=1), 25, 9, h.CLOTHES)
    chest.vertices[:, h.HEAD] = 0.0
    back = chest.vertices.copy()
    back[:, h.Z] = 0.62
    back[:, h.Y] -= 0.05
    collar = h.MeshPart(back, chest.texture + np.array([0, 0.02, 0]), chest.triangles, h.CLOTHES, two_sided=True)
    return [neck, chest, collar]
