"""Compiled z-buffer rasteriser: one triangle number and two perspective-correct weights per sub-pixel."""

from __future__ import annotations

import numpy as np
from numba import njit

from df_data.synth.head.head import HAIR


@njit(cache=True, error_model="numpy")
def rasterize(points, triangles, material, sides, texture, focal, distance, center_y, depth, owner, weights):
    """Fill the buffers for camera-frame ``points [N, 3]``.

    Args:
        focal: in shares of the frame; ``distance`` and ``center_y`` as in :mod:`df_data.synth.head.camera`.
        depth: float64 ``[S, S]`` out, 1/z of the nearest surface (0: nothing).
        owner: int32 ``[S, S]`` out, triangle number, -1 where there is nothing, -2 inside a hollow part.
        weights: float64 ``[S, S, 2]`` out, perspective-correct weights of the triangle's first two corners.
    """
    size = depth.shape[0]
    depth[:] = 0.0
    owner[:] = -1
    count = points.shape[0]
    px, py, inv = np.empty(count), np.empty(count), np.empty(count)
    for i in range(count):
        inv[i] = 1.0 / (points[i, 2] + distance)
        px[i] = (0.5 + focal * points[i, 0] * inv[i]) * size - 0.5
        py[i] = (0.5 + focal * (points[i, 1] - center_y) * inv[i]) * size - 0.5
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = px[a], py[a], px[b], py[b], px[c], py[c]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0.0 or (area < 0.0 and sides[t] == 0):
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx))), 0)
        x1 = min(int(np.floor(max(ax, bx, cx))), size - 1)
        y0 = max(int(np.ceil(min(ay, by, cy))), 0)
        y1 = min(int(np.floor(max(ay, by, cy))), size - 1)
        if x0 > x1 or y0 > y1:
            continue
        is_hair = material[t] == HAIR
        scale = 1.0 / area
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wa = ((bx - x) * (cy - y) - (cx - x) * (by - y)) * scale
                wb = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) * scale
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                near = wa * inv[a] + wb * inv[b] + wc * inv[c]
                if near <= depth[y, x]:
                    continue
                wa = wa * inv[a] / near
                wb = wb * inv[b] / near
                if is_hair and wa * texture[a, 2] + wb * texture[b, 2] + (1.0 - wa - wb) * texture[c, 2] < 0.0:
                    continue
                depth[y, x] = near
                owner[y, x] = t if area > 0.0 or sides[t] == 1 else -2
                weights[y, x, 0] = wa
                weights[y, x, 1] = wb
