"""Compiled procedural materials and light: colour of a point from its material, texture coordinates and normal.

Textures live in the face's own coordinates, so that they do not depend on the resolution and move with the skin.

Most features of a face end at an edge, beyond which they leave a colour as it was, to the bit: they are left out there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from df_data.synth.head.head import (
    CAVITY,
    EYE_LINE,
    EYEBALL,
    HAIR,
    INNER_LIP,
    MOUTH_LINE,
    NECK,
    SKIN,
    TEETH,
    TONGUE,
)

# Rows of the colour table, see df_data.synth.head.identity.Palette.
_C_SKIN, _C_LIPS, _C_HAIR, _C_BROWS, _C_IRIS, _C_CLOTHES = range(6)
# Entries of HeadMesh.look.
_MOUTH, _UPPER, _LOWER, _SPACING, _EYE, _BROW_Y, _BROW, _STUBBLE, _NOSE, _CURLY, _TILT = range(11)


@njit(cache=True, error_model="numpy")
def _step(value, low, high):
    t = (value - low) / (high - low)
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, error_model="numpy")
def _hump(value, width):
    """Smooth bump of half width ``width`` around 0, without exp."""
    t = 1.0 - (value / width) ** 2
    return t * t if t > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def _mix(color, table, row, share):
    for c in range(3):
        color[c] += (table[row, c] - color[c]) * share


@njit(cache=True, error_model="numpy")
def _scale(color, r, g, b):
    color[0] *= r
    color[1] *= g
    color[2] *= b


@njit(cache=True, error_model="numpy")
def _lips(x, y, look, colors, color):
    """Lips and the line between them; returns the gloss of the lips."""
    reach = 1.0 - (x / (look[_MOUTH] * 1.03)) ** 2
    if reach <= 0.0:
        return 0.0
    thickest = look[_UPPER] * 1.15 if y < MOUTH_LINE else look[_LOWER] * 1.1
    if abs(y - MOUTH_LINE) >= max(thickest + 0.012, 0.022):
        return 0.0
    if y < MOUTH_LINE:
        bow = 1.0 - 0.22 * _hump(x, 0.05)
        edge = look[_UPPER] * 1.15 * bow * reach**0.7
        inside = 1.0 - _step(MOUTH_LINE - y, edge - 0.018, edge + 0.012)
    else:
        edge = look[_LOWER] * 1.1 * reach**0.75
        inside = 1.0 - _step(y - MOUTH_LINE, edge - 0.02, edge + 0.012)
    _mix(color, colors, _C_LIPS, 0.92 * inside)
    if y < MOUTH_LINE:
        _scale(color, 1 - 0.10 * inside, 1 - 0.12 * inside, 1 - 0.12 * inside)
    line = _hump(y - MOUTH_LINE, 0.022) * min(reach * 6.0, 1.0)
    _scale(color, 1 - 0.62 * line, 1 - 0.70 * line, 1 - 0.70 * line)
    return inside * (1.0 - line)


@njit(cache=True, error_model="numpy")
def _brows_and_lids(x, y, look, colors, color):
    side = abs(x)
    offset = (side - look[_SPACING]) / look[_EYE]
    if offset <= -1.45 or offset >= 1.5:
        return
    arch = look[_BROW_Y] - 0.035 * (1.0 - offset * offset) + 0.02 * offset
    taper = look[_BROW] * (1.0 - 0.32 * offset)
    if abs(y - arch) < 1.25 * taper + 0.008:
        ends = _step(offset, -1.45, -1.15) * (1.0 - _step(offset, 1.15, 1.5))
        brow = ends * (1.0 - _step(abs(y - arch), 0.45 * taper, 1.25 * taper + 0.008))
        _mix(color, colors, _C_BROWS, 0.88 * brow)
    if abs(offset) < 1.35 and abs(y - EYE_LINE) < 0.18:
        slit = 1.0 - (offset / 1.12) ** 2
        if slit > 0.0:
            above = EYE_LINE - y
            lash = (1.0 - _step(above, 0.012, 0.034)) * _step(above, -0.03, 0.0) * min(slit * 5.0, 1.0)
            _scale(color, 1 - 0.80 * lash, 1 - 0.82 * lash, 1 - 0.80 * lash)
            below = (1.0 - _step(-above, 0.004, 0.02)) * min(slit * 5.0, 1.0) if above < 0.0 else 0.0
            _scale(color, 1 - 0.35 * below, 1 - 0.42 * below, 1 - 0.40 * below)
        crease = _hump(y - (EYE_LINE - 0.075 + 0.04 * offset * offset), 0.022) * _hump(offset, 1.3)
        shade = 0.16 * _hump(y - EYE_LINE, 0.17) * _hump(offset, 1.35) + 0.28 * crease
        _scale(color, 1 - shade, 1 - 1.1 * shade, 1 - 1.05 * shade)


@njit(cache=True, error_model="numpy")
def _skin(x, y, third, look, colors, color):
    """Skin of the face and the ears (``third < -0.5``); returns its gloss."""
    for c in range(3):
        color[c] = colors[_C_SKIN, c]
    if third < -0.5:
        _scale(color, 0.94, 0.84, 0.80)
        hollow = 0.35 * _step(third, -2.2, -1.0)
        _scale(color, 1 - hollow, 1 - hollow, 1 - hollow)
        return 0.1
    if third <= 0.0:
        return 0.15
    side = abs(x)
    if -0.07 < y < 0.47:
        _blush(x, y, side, color)
    if y > 0.21:
        _lower_face(x, y, side, look, colors, color)
    _brows_and_lids(x, y, look, colors, color)
    return 0.28 + 0.5 * _lips(x, y, look, colors, color)


@njit(cache=True, error_model="numpy")
def _blush(x, y, side, color):
    """Cheeks and the tip of the nose; nothing at ``y`` up to -0.06 or from 0.46 on."""
    blush = 0.10 * _hump(side - 0.43, 0.28) * _hump(y - 0.2, 0.26) + 0.07 * _hump(x, 0.16) * _hump(y - 0.25, 0.13)
    _scale(color, 1 + 0.3 * blush, 1 - blush, 1 - 0.8 * blush)


@njit(cache=True, error_model="numpy")
def _lower_face(x, y, side, look, colors, color):
    """Beard, nostrils, folds and the shadow under the lip; nothing at ``y`` up to 0.22."""
    beard = look[_STUBBLE] * _step(y, 0.32, 0.52) * (1 - 0.5 * _hump(x, 0.09) * _hump(y - 0.38, 0.12))
    _mix(color, colors, _C_HAIR, 0.42 * beard * (1 - 0.6 * _hump(side - 0.38, 0.2) * _hump(y - 0.38, 0.15)))
    nostril = _hump(side - 0.55 * look[_NOSE], 0.040) * _hump(y - 0.318, 0.028)
    _scale(color, 1 - 0.72 * nostril, 1 - 0.8 * nostril, 1 - 0.8 * nostril)
    wing = 0.22 * _hump(side - 1.75 * look[_NOSE], 0.05) * _hump(y - 0.29, 0.07)
    fold = 0.13 * _hump(side - (0.19 + 0.65 * (y - 0.29)), 0.05) * _step(y, 0.28, 0.34) * (1 - _step(y, 0.44, 0.54))
    under = 0.10 * _hump(y - (MOUTH_LINE + look[_LOWER] + 0.045), 0.05) * _hump(x, 0.22)
    dark = wing + fold + under
    _scale(color, 1 - dark, 1 - 1.1 * dark, 1 - 1.1 * dark)


@njit(cache=True, error_model="numpy")
def _eyeball(x, y, z, colors, color):
    """White, iris and pupil by the direction from the ball's centre; returns its gloss."""
    color[0], color[1], color[2] = 0.93, 0.92, 0.91
    if z > 0.0:
        return 0.3
    radius = np.sqrt(x * x + y * y)
    iris = 1.0 - _step(radius, 0.42, 0.49)
    _mix(color, colors, _C_IRIS, iris)
    ring = _step(radius, 0.30, 0.44) * iris
    _scale(color, 1 - 0.5 * ring, 1 - 0.5 * ring, 1 - 0.5 * ring)
    pupil = 1.0 - _step(radius, 0.17, 0.23)
    _scale(color, 1 - 0.92 * pupil, 1 - 0.92 * pupil, 1 - 0.92 * pupil)
    corner = 0.25 * _step(radius, 0.60, 0.95)
    _scale(color, 1 - corner, 1 - 1.3 * corner, 1 - 1.3 * corner)
    return 1.0


@njit(cache=True, error_model="numpy")
def _hair(lon, y, margin, look, colors, color):
    """Strands; returns their gloss."""
    for c in range(3):
        color[c] = colors[_C_HAIR, c]
    if look[_CURLY] > 0.5:
        strand = 0.5 * np.sin(23 * lon + 3 * np.sin(17 * y)) * np.sin(21 * y + 2 * np.sin(13 * lon))
    else:
        strand = 0.45 * np.sin(31 * lon + 2.5 * y) + 0.30 * np.sin(53 * lon - 4 * y + 1.0)
    tone = 1.0 + 0.22 * strand - 0.25 * (1 - _step(margin, 0.0, 0.12))
    _scale(color, tone, tone, tone)
    return 0.35


@njit(cache=True, error_model="numpy")
def surface(material, a, b, c, look, colors, color):
    """Colour of a surface point into ``color [3]``; returns ``(gloss, share of light that reaches it)``."""
    if material == SKIN:
        return _skin(a, b, c, look, colors, color), 1.0
    if material == EYEBALL:
        return _eyeball(a, b, c, colors, color), 0.95
    if material == HAIR:
        return _hair(a, b, c, look, colors, color), 1.0
    if material == TEETH:
        gap = 0.12 * _hump(np.sin(8.5 * a), 0.28)
        tone = (0.96 if c < 0.5 else 0.84) - gap
        color[0], color[1], color[2] = tone, tone * 0.975, tone * 0.92
        return 0.4, 1.0 - 0.55 * _step(abs(a), 0.5, 1.3)
    if material == TONGUE:
        color[0], color[1], color[2] = 0.74, 0.36, 0.36
        return 0.3, 0.80 - 0.35 * _step(c, -1.0, 0.0)
    if material == CAVITY:
        color[0], color[1], color[2] = 0.20, 0.06, 0.06
        return 0.0, 0.55
    if material == INNER_LIP:
        for k in range(3):
            color[k] = colors[_C_LIPS, k] * (0.74 - 0.6 * b)
        return 0.4, 1.0 - 0.6 * b
    if material == NECK:
        for k in range(3):
            color[k] = colors[_C_SKIN, k]
        _scale(color, 0.97, 0.93, 0.91)
        return 0.1, 0.50 + 0.42 * _step(b, 1.02, 1.42)
    for k in range(3):
        color[k] = colors[_C_CLOTHES, k]
    seam = 0.20 * _hump(b - 0.045, 0.04)
    _scale(color, 1 - seam, 1 - seam, 1 - seam)
    return 0.05, 0.80 + 0.20 * _step(b, 0.0, 0.25)


@njit(cache=True, error_model="numpy")
def shade(points, normals, texture, triangles, material, sides, owner, weights, look, colors, light, background, out):
    """Light every covered sub-pixel.

    Args:
        light: float64 ``[4]``: direction to the light (camera frame) and its intensity.
        background: float64 ``[S, S, 3]``.
        out: float64 ``[S, S, 3]`` out, display colours in [0, 1].
    """
    size = owner.shape[0]
    color = np.empty(3)
    lx, ly, lz = light[0], light[1], light[2]
    hx, hy, hz = lx, ly, lz - 1.0
    length = np.sqrt(hx * hx + hy * hy + hz * hz)
    hx, hy, hz = hx / length, hy / length, hz / length
    for y in range(size):
        for x in range(size):
            t = owner[y, x]
            if t == -2:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = 0.10, 0.03, 0.03
                continue
            if t < 0:
                for k in range(3):
                    out[y, x, k] = background[y, x, k]
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb = weights[y, x, 0], weights[y, x, 1]
            wc = 1.0 - wa - wb
            u = wa * texture[a, 0] + wb * texture[b, 0] + wc * texture[c, 0]
            v = wa * texture[a, 1] + wb * texture[b, 1] + wc * texture[c, 1]
            w = wa * texture[a, 2] + wb * texture[b, 2] + wc * texture[c, 2]
            nx = -(wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0])
            ny = -(wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1])
            nz = -(wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2])
            norm = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            if sides[t] == 1 and nz > 0.0:
                norm = -norm
            nx, ny, nz = nx / norm, ny / norm, nz / norm
            kind = material[t]
            gloss, reach = surface(kind, u, v, w, look, colors, color)
            diffuse = nx * lx + ny * ly + nz * lz
            wrapped = max((diffuse + 0.35) / 1.35, 0.0)
            shine = max(nx * hx + ny * hy + nz * hz, 0.0)
            shine = shine * shine
            shine = shine * shine
            shine = shine * shine
            shine = gloss * 0.22 * shine * shine
            if kind == EYEBALL:
                shine = 2.2 * shine * shine
                wrapped = 0.55 + 0.45 * wrapped
            ambient = 0.40 + 0.08 * (-ny)
            rim = 1.0 - 0.22 * (1.0 + nz) * (1.0 + nz)
            bright = light[3] * reach * rim * (ambient + 0.72 * wrapped)
            warm = 0.06 * wrapped * (1.0 - wrapped) if kind in (SKIN, NECK) else 0.0
            out[y, x, 0] = min(max(color[0] * (bright + warm) + shine * light[3], 0.0), 1.0)
            out[y, x, 1] = min(max(color[1] * bright + shine * light[3], 0.0), 1.0)
            out[y, x, 2] = min(max(color[2] * (bright - warm) + shine * light[3], 0.0), 1.0)


@njit(cache=True, error_model="numpy")
def paint_background(top, bottom, spot, spot_x, spot_y, out):
    """A soft vertical gradient with one blurred patch of light, ``out [S, S, 3]``."""
    size = out.shape[0]
    for y in range(size):
        fy = (y + 0.5) / size
        for x in range(size):
            fx = (x + 0.5) / size
            glow = 0.8 * _hump(np.sqrt((fx - spot_x) ** 2 + (fy - spot_y) ** 2), 0.75)
            for k in range(3):
                plain = top[k] + (bottom[k] - top[k]) * fy
                out[y, x, k] = plain + (spot[k] - plain) * glow


@njit(cache=True, error_model="numpy")
def average_down(fine, factor, out):
    """Box filter ``[S*factor, S*factor, 3]`` in [0, 1] to uint8 ``out [S, S, 3]``."""
    size = out.shape[0]
    for y in range(size):
        for x in range(size):
            for k in range(3):
                total = 0.0
                for j in range(factor):
                    for i in range(factor):
                        total += fine[y * factor + j, x * factor + i, k]
                out[y, x, k] = np.uint8(total / (factor * factor) * 255.0 + 0.5)
