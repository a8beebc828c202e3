"""Standard deviations that MODA's values are divided by."""

from __future__ import annotations

from typing import Any

from talkingface.errors import WeightsError
from talkingface.model.statistics import TrainingStatistics


class NormStats(TrainingStatistics):
    """Standard deviations of the parts of a motion over the training clips."""

    names = ("norm_stats",)

    def measure(self, data: Any) -> dict[str, Any]:
        return {"norm_stats": data.statistics()}

    def of(self, model: str) -> dict[str, Any]:
        """Standard deviation per part.

        Raises:
            WeightsError: the weights of ``model`` came from a file without them.
        """
        if "norm_stats" not in self.values:
            raise WeightsError(
                f"These weights of {model} have no standard deviations (norm_stats). Use the .ckpt "
                "of the run, or keep weights.json and config.yaml beside the weights; official "
                "weights need model_params.std_mode=none."
            )
        return self.values["norm_stats"]
