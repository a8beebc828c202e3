"""From speech to mouth shapes: a kernel ridge regression, fitted to one person in a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_COMPONENTS = 150  # principal components of the sound
_STRENGTH = 3.0  # of the ridge; 1 to 10 differ little on a video of 70 s
_LINEAR = 0.01  # weight of the linear kernel of a network's shapes
_MAX_FRAMES = 2000  # the time of a fit grows with the third power


@dataclass(frozen=True)
class KernelRidge:
    """Ridge regression with a Gaussian kernel of the sound and a linear one of a network's output.

    Attributes:
        mean, deviation, axes: standardisation and principal components of the rows.
        points: (N,C) components of the rows that it was fitted to.
        width: of the kernel.
        guess: (N,G) outputs of the network for these rows; G = 0 without one.
        weights: (N,D).
        target: (D,) mean of the targets.
    """

    mean: np.ndarray
    deviation: np.ndarray
    axes: np.ndarray
    points: np.ndarray
    width: float
    guess: np.ndarray
    weights: np.ndarray
    target: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, guess: np.ndarray, targets: np.ndarray) -> KernelRidge:
        """From rows (N,720), network outputs (N,G) and targets (N,D)."""
        if len(rows) > _MAX_FRAMES:
            kept = np.linspace(0, len(rows) - 1, _MAX_FRAMES).astype(int)
            rows, guess, targets = rows[kept], guess[kept], targets[kept]
        mean, deviation = rows.mean(0), rows.std(0) + 0.1
        scaled = (rows - mean) / deviation
        axes = np.linalg.eigh(scaled.T @ scaled)[1][:, -_COMPONENTS:]
        points, target = scaled @ axes, targets.mean(0)
        distances = squared_distances(points, points)
        width = float(np.median(distances)) or 1.0
        kernel = np.exp(-distances / width) + _LINEAR * guess @ guess.T
        kernel[np.diag_indices_from(kernel)] += _STRENGTH
        weights = np.linalg.solve(kernel, targets - target)
        return cls(mean, deviation, axes, points, width, guess, weights, target)

    def __call__(self, rows: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """(n,D) for rows (n,720) and network outputs (n,G)."""
        points = (rows - self.mean) / self.deviation @ self.axes
        kernel = np.exp(-squared_distances(points, self.points) / self.width)
        return (kernel + _LINEAR * guess @ self.guess.T) @ self.weights + self.target


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,m)."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)
