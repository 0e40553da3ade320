"""Distances of two sets of feature vectors: Frechet's of their Gaussians, and the kernel distance.

Shape suffixes: N and M vectors, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.image.kid import poly_mmd


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


def kernel_distance(set_ND: np.ndarray, other_ND: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the kernel ``(x . y / D + 1)^3``, unbiased (Binkowski et al. 2018).

    By torchmetrics, over all vectors, not over random subsets.

    Raises:
        ValueError: a set has fewer than two vectors, or they are not equally many.
    """
    if len(set_ND) < 2 or len(set_ND) != len(other_ND):
        raise ValueError(
            f"two equally large sets of two vectors or more are needed, not {len(set_ND)}, {len(other_ND)}"
        )
    return float(poly_mmd(torch.from_numpy(set_ND), torch.from_numpy(other_ND), degree=3, coef=1.0))
