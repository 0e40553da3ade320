"""The parametric head: identity, motion, geometry, rasteriser, shading, and its exact ground truth."""
