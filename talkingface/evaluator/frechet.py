"""Frechet distance of Gaussians: FID on image features, FD_g and FD_k on motion."""

from __future__ import annotations

import numpy as np


def frechet_distance(
    mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray
) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2}). The last trace is the sum of the square roots of
    the eigenvalues of C1^{1/2} C2 C1^{1/2}, which is symmetric: no complex numbers, no failure on
    singular matrices, and no scipy.linalg.sqrtm.

    Args:
        mean1, mean2: (D,).
        covariance1, covariance2: (D,D), symmetric and positive semi-definite.
    """
    mean1, mean2 = (np.asarray(m, np.float64).reshape(-1) for m in (mean1, mean2))
    c1, c2 = (np.atleast_2d(np.asarray(c, np.float64)) for c in (covariance1, covariance2))
    values, vectors = np.linalg.eigh(c1)
    root = vectors * np.sqrt(np.maximum(values, 0))  # root @ root.T = C1
    mixed = np.linalg.eigvalsh(root.T @ c2 @ root)
    difference = mean1 - mean2
    trace = np.trace(c1) + np.trace(c2) - 2 * np.sqrt(np.maximum(mixed, 0)).sum()
    return float(difference @ difference + max(trace, 0.0))  # rounding can leave -1e-12


class RunningGaussian:
    """Running mean and covariance of vectors that are added in batches.

    Args:
        size: values per vector.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sum = np.zeros(size)
        self._products = np.zeros((size, size))
        self._origin: np.ndarray | None = None

    def add(self, vectors: np.ndarray) -> None:
        """Add (N,size) vectors."""
        if not len(vectors):
            return
        if self._origin is None:  # keeps the sums small, for precision
            self._origin = vectors[0].astype(np.float64)
        centred = vectors.astype(np.float64) - self._origin
        self.count += len(centred)
        self._sum += centred.sum(axis=0)
        self._products += centred.T @ centred

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (size,) and covariance (size,size), normalised by N - 1; needs two vectors."""
        mean = self._sum / self.count
        covariance = (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)
        return self._origin + mean, covariance
