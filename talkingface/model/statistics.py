"""Values of the training split that belong to a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch


class TrainingStatistics:
    """Means, standard deviations and similar values, which are stored in checkpoints.

    A new run computes them on its training split (:meth:`fit`); a resumed run and inference load
    them from the checkpoint (:meth:`load`).

    Class attributes:
        names: of the values in checkpoints.

    Attributes:
        values: by name; empty before :meth:`fit` or :meth:`load`.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def measure(self, data: Any) -> dict[str, Any]:
        """Compute the values of a training dataset: tensors or plain Python values."""
        raise NotImplementedError

    def fit(self, data: Any) -> None:
        """Set the values to those of a training dataset."""
        self.values = self.measure(data)

    def state(self) -> dict[str, Any]:
        """Content for the checkpoint: tensors or plain Python values."""
        return dict(self.values)

    def load(self, values: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned; official files may lack some names."""
        self.values = {n: values[n] for n in self.names if values.get(n) is not None}

    def check_resume(self, data: Any) -> None:
        """Compare with the training dataset of a resumed run.

        Raises:
            TalkingFaceError: the dataset has changed, so that the units would be inconsistent.
        """

    def check_test(self, data: Any) -> None:
        """Compare with a test dataset.

        Raises:
            TalkingFaceError: the values of the two datasets have different meanings.
        """


def tensors(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content for the checkpoint: arrays as tensors, which do not share their memory."""
    return {
        k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v
        for k, v in content.items()
    }
