"""Distances of two sets of feature vectors: Frechet's of their Gaussians, and the kernel distance.

Shape suffixes: N and M vectors, n of one clip, C clips, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def frechet_distance(
    mean_D: np.ndarray, cov_DD: np.ndarray, other_mean_D: np.ndarray, other_cov_DD: np.ndarray
) -> float:
    """Squared Frechet distance of two Gaussians: ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))`` (Dowson, Landau 1982).

    The trace of the root is the sum of the roots of the eigenvalues of ``L^T C' L`` with ``C = L L^T``, which is
    symmetric, so no root of a matrix is needed and nothing turns complex.
    """
    values, vectors = np.linalg.eigh(cov_DD)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    product = np.linalg.eigvalsh(root.T @ other_cov_DD @ root)
    cross = np.sqrt(np.maximum(product, 0.0)).sum()
    gap = float(np.square(mean_D - other_mean_D).sum())
    return gap + float(np.trace(cov_DD) + np.trace(other_cov_DD) - 2.0 * cross)


def frechet_of_sets(set_ND: np.ndarray, other_MD: np.ndarray, ddof: int) -> float:
    """`frechet_distance` of the sets' means and covariances.

    With fewer vectors than features the covariances are not built: with ``C = A^T A / (N - ddof)`` the trace of the
    root is the sum of the singular values of ``A B^T``, a table of N by M.

    Args:
        ddof: taken off N in the covariance: 1 for the unbiased one, 0 for that of StyleGAN-V and cd-fvd.

    Raises:
        ValueError: a set has fewer than two vectors.
    """
    if min(len(set_ND), len(other_MD)) < 2:
        raise ValueError("a covariance needs two vectors at least")
    means = [values.mean(axis=0) for values in (set_ND, other_MD)]
    centred = [(v - m) / np.sqrt(len(v) - ddof) for v, m in zip((set_ND, other_MD), means, strict=True)]
    if max(len(set_ND), len(other_MD)) > set_ND.shape[1]:
        covs = [values.T @ values for values in centred]
        return frechet_distance(means[0], covs[0], means[1], covs[1])
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    spread = sum(float(np.square(values).sum()) for values in centred)
    return float(np.square(means[0] - means[1]).sum()) + spread - 2.0 * float(cross)


def clip_kernels(clips: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """The kernel ``(x . y / D + 1)^3`` (Binkowski et al. 2018), mean over the vectors of two clips: [C, C'].

    Args:
        clips, others: the vectors ``[n, D]`` of each clip.
    """
    rows = np.concatenate(others)
    starts = np.cumsum([0, *[len(values) for values in others[:-1]]])
    sizes = np.array([len(values) for values in others])
    lines = []
    for values in clips:
        kernel_nN = (values @ rows.T / rows.shape[1] + 1.0) ** 3
        lines.append(np.add.reduceat(kernel_nN.mean(axis=0), starts) / sizes)
    return np.array(lines)


def kernel_distance(true_CC: np.ndarray, made_CC: np.ndarray, cross_CC: np.ndarray, pick: np.ndarray) -> float:
    """Squared maximum mean discrepancy of two sets of clips, each of them paired with one of the other, unbiased.

    Frames of one clip are alike, and so are the true and the made clip: only kernels between two different clips count,
    in all three terms. What remains is a U-statistic over clips, whose mean is 0 for equal distributions, however few.

    Args:
        true_CC, made_CC, cross_CC: :func:`clip_kernels` of the true clips, the made ones, and the two.
        pick: places of the clips that count; a clip may stand there more than once.

    Raises:
        ValueError: there are no two different clips.
    """
    apart = pick[:, None] != pick[None, :]
    if not apart.any():
        raise ValueError("two different clips are needed")
    true, made, cross = (kernels[np.ix_(pick, pick)][apart].mean() for kernels in (true_CC, made_CC, cross_CC))
    return float(true + made - 2.0 * cross)
