"""Values of the training split that belong to a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class TrainingStatistics:
    """Means, standard deviations and the like, which travel in checkpoints.

    A new run takes them from its training split (:meth:`fit`); a resumed run and inference load
    them from the checkpoint (:meth:`load`).

    Class attributes:
        names: of the values, as in checkpoints.

    Attributes:
        values: by name; empty before :meth:`fit` or :meth:`load`.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def measure(self, data: Any) -> dict[str, Any]:
        """The values of a training dataset: tensors or plain Python values."""
        raise NotImplementedError

    def fit(self, data: Any) -> None:
        """Take the values from a training dataset."""
        self.values = self.measure(data)

    def state(self) -> dict[str, Any]:
        """Content for the checkpoint: tensors or plain Python values."""
        return dict(self.values)

    def load(self, values: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned. Files of other origin may lack any name."""
        self.values = {n: values[n] for n in self.names if values.get(n) is not None}

    def check_resume(self, data: Any) -> None:
        """Compare with the training dataset of a resumed run.

        Raises:
            TalkingFaceError: the dataset has changed; two sets of units would be mixed.
        """

    def check_test(self, data: Any) -> None:
        """Compare with a test dataset.

        Raises:
            TalkingFaceError: its values mean something else than those of the training.
        """
