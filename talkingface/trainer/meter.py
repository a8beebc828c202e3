"""Running means of losses, and a warning for a loss that does not fall."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

log = logging.getLogger(__name__)

PLATEAU_STEPS = 1000  # steps within the plateau before the warning


class LossMeter:
    """Sums losses on the device; :meth:`take` copies the means to the host."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        for key, value in losses.items():
            value = value.detach()
            self._sums[key] = self._sums[key] + value if key in self._sums else value
            self._counts[key] += 1

    def means(self) -> dict[str, float]:
        """Means since the last :meth:`take`."""
        return {key: float(value) / self._counts[key] for key, value in self._sums.items()}

    def take(self) -> dict[str, float]:
        """Means since the last call; resets the sums."""
        means = self.means()
        self.clear()
        return means

    def clear(self) -> None:
        self._sums.clear()
        self._counts.clear()


class PlateauWatch:
    """Warns once when a loss stays at the value of a network that predicts at random.

    Args:
        rule: ``plateau`` of the model: loss name, low, high, advice; None never warns.
    """

    def __init__(self, rule: tuple[str, float, float, str] | None) -> None:
        self.rule = rule
        self.steps = 0
        self.warned = False

    def see(self, means: Mapping[str, float], steps: int) -> None:
        """Update with the means of ``steps`` further steps."""
        if self.rule is None or self.warned:
            return
        name, low, high, advice = self.rule
        value = means.get(name, math.nan)
        self.steps = self.steps + steps if low <= value <= high else 0
        if self.steps >= PLATEAU_STEPS:
            self.warned = True
            log.warning("%s has stayed at %.3f for %d steps: %s", name, value, self.steps, advice)
