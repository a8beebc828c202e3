"""Manifold projection of LSP: speech features as mixtures of those of the training speech."""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-3  # of the mean diagonal; repeated rows (silence) make the Gram matrix singular
_DISTANCES = 1 << 24  # entries of the distance matrix in memory at a time


class ManifoldProjection:
    """Locally linear embedding in a database of the speaker's features (official code).

    Args:
        database: (M,D) features of the speaker's training speech.
        neighbours: K; fewer when the database is smaller.
        percent: weight of the projection, 0 to 1; the rest is the weight of the features.
        ridge: regularisation of the weights relative to the mean diagonal of the Gram matrix;
            official 0.
    """

    def __init__(
        self, database: Tensor, neighbours: int = 10, percent: float = 1.0, ridge: float = _RIDGE
    ) -> None:
        if database.ndim != 2 or not len(database):
            raise ValueError(f"the database must be (M,D), M > 0; got {tuple(database.shape)}")
        self.database = database.float()
        self.neighbours = min(neighbours, len(database))
        self.percent, self.ridge = percent, ridge
        self._norms = self.database.square().sum(1)

    def nearest(self, features: Tensor) -> Tensor:
        """(N,K) rows of the database by squared Euclidean distance, nearest first."""
        step = max(1, _DISTANCES // len(self.database))
        indices = []
        for part in features.split(step):
            distance = torch.addmm(self._norms, part, self.database.T, alpha=-2)
            indices.append(distance.topk(self.neighbours, dim=1, largest=False).indices)
        return torch.cat(indices)

    def weights(self, features: Tensor, rows: Tensor) -> Tensor:
        """(N,K) mixture weights of these rows; they sum to 1 and may be negative."""
        if self.neighbours == 1:
            return features.new_ones(len(features), 1)
        known = self.database[rows].double()
        away = known[:, 1:] - known[:, :1]
        gram = away @ away.transpose(1, 2)
        if self.ridge:
            mean = torch.diagonal(gram, dim1=1, dim2=2).mean(1)
            load = self.ridge * mean + 1e-8
            gram = gram + torch.diag_embed(load[:, None].expand(-1, gram.shape[1]))
        right = away @ (features.double() - known[:, 0])[..., None]
        rest = torch.linalg.solve(gram, right)[..., 0]
        return torch.cat([1 - rest.sum(1, keepdim=True), rest], dim=1)

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Project (N,D) features."""
        if not len(features) or self.percent == 0:
            return features
        rows = self.nearest(features)
        weights = self.weights(features, rows)
        projected = torch.einsum("nk,nkd->nd", weights.float(), self.database[rows])
        return features * (1 - self.percent) + projected * self.percent
