"""Units of MODA's values."""

from __future__ import annotations

from typing import Any

from talkingface.errors import WeightsError
from talkingface.model.statistics import TrainingStatistics


class NormStats(TrainingStatistics):
    """Standard deviations by which the parts of a motion are divided, over the training clips."""

    names = ("norm_stats",)

    def measure(self, data: Any) -> dict[str, Any]:
        return {"norm_stats": data.statistics()}

    def of(self, model: str) -> dict[str, Any]:
        """The values by part.

        Raises:
            WeightsError: the weights of ``model`` were loaded from a file without them.
        """
        if "norm_stats" not in self.values:
            raise WeightsError(
                f"These weights of {model} come without the units of their values (norm_stats). "
                "Take the .ckpt of the run, or keep weights.json and config.yaml beside the "
                "weights; official weights need model_params.std_mode=none."
            )
        return self.values["norm_stats"]
