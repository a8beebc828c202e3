"""Base class of metrics; each metric is one class and one YAML file in ``properties/metric``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from talkingface.errors import ConfigError, WeightsError
from talkingface.registry import Entry, Registry
from talkingface.utils.hashes import sha256_of
from talkingface.utils.paths import resolve
from talkingface.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from talkingface.config.config import Config

_GOLDEN = (math.sqrt(5) - 1) / 2


class Metric(ABC):
    """Scores one clip at a time.

    For each clip the evaluator calls :meth:`start`, :meth:`update` for every frame pair (with
    ``uses_frames``; all metrics share one decode) and :meth:`finish`; after a row :meth:`pool`.

    Class attributes:
        takes: ``video`` (the argument ``clip`` is a
            :class:`~talkingface.evaluator.clip.ClipPair`) or ``motion`` (a
            :class:`~talkingface.evaluator.motion_sample.MotionSample`).
        uses_frames: whether :meth:`update` is called.
        choices: parameter -> values that it may have.
        revision: increased when the values change; 2 and more are part of the definition.

    Args:
        entry: the metric's YAML; ``outputs`` lists its values with direction and unit.
        params: settings, checked against the YAML's ``params``; a ``stride`` is 1 or more.
        cfg: the run's configuration, for the folders of weights; None: the default folders.

    Raises:
        ConfigError: a parameter has a value that is not allowed.
    """

    takes: ClassVar[str] = "video"
    uses_frames: bool = True
    choices: ClassVar[Mapping[str, Sequence[str]]] = {}
    revision: ClassVar[int] = 1

    def __init__(self, entry: Entry, params: dict[str, Any], cfg: Config | None = None) -> None:
        self.entry: Entry | None = entry
        self.cfg = cfg
        self.name = entry.name
        self.params = params
        self.outputs: dict[str, dict[str, Any]] = dict(entry.meta.get("outputs") or {})
        self.reasons: dict[str, str] = {}
        if params.get("stride", 1) < 1:
            raise ConfigError(f"metric_params.{self.name}.stride: 1 or more")
        for key, allowed in self.choices.items():
            if params[key] not in allowed:
                text = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
                raise ConfigError(f"metric_params.{self.name}.{key}: choose {text}")

    def weights_file(self, *names: str, key: str | None = None) -> Path | None:
        """The file that parameter ``key`` names, else the first of ``names`` in ``weights_dir``."""
        if key is not None and (given := self.params[key]):
            return self.cfg.weights_path(given) if self.cfg else Path(given)
        folder = resolve(self.cfg.weights_dir if self.cfg else "checkpoints")
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def missing(self) -> str | None:
        """What the metric needs but lacks, and how to get it; None when nothing is missing."""
        return None

    @staticmethod
    def checksum(*files: Path) -> str:
        """First 8 digits of each file's SHA-256, since values depend on the weights."""
        return "+".join(
            _checksum(file, file.stat().st_mtime_ns) if file.is_file() else "missing"
            for file in files
        )

    def definition(self) -> str:
        """Name of the metric and the settings that its values depend on."""
        text = self.settings()
        return f"{self.name}[{text}]" if text else self.name

    def settings(self, *hidden: str) -> str:
        """The parameters as text, without those of the given names, and the revision."""
        shown = {key: value for key, value in self.params.items() if key not in hidden}
        text = ",".join(f"{key}={_short(value)}" for key, value in sorted(shown.items()))
        return f"{text},r{self.revision}".lstrip(",") if self.revision > 1 else text

    def sampled(self, index: int) -> bool:
        """Whether a metric with a ``stride`` measures this frame: one of each ``stride`` frames.

        Its place among them follows the golden ratio. At equal distances, key frames or doubled
        frames of the same period would be measured either always or never.
        """
        group, place = divmod(index, self.params["stride"])
        return place == int(group * _GOLDEN % 1 * self.params["stride"])

    def start(self, clip: Any) -> None:
        """Begin a clip.

        Raises:
            WeightsError: something is missing (:meth:`missing`).
        """
        self.reasons = {}
        if text := self.missing():
            raise WeightsError(text)

    def update(self, clip: Any, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        """Process one frame pair, (H,W,3) uint8 RGB."""

    @abstractmethod
    def finish(self, clip: Any) -> dict[str, float]:
        """Values of the clip by output name; nan, with an entry in ``reasons``, if undefined."""

    def pool(self) -> tuple[dict[str, float], list[str]] | None:
        """Values over all clips since the last call, and remarks; None: values are averaged.

        A metric that pools returns nan for each clip. An entry in ``reasons`` means that the clip
        was left out.
        """
        return None

    @property
    def pools(self) -> bool:
        """Whether the metric has one value per row instead of one per clip."""
        return type(self).pool is not Metric.pool

    def undefined(self, reason: str) -> dict[str, float]:
        """nan for every output, all for one reason."""
        self.reasons = {key: reason for key in self.outputs}
        return {key: math.nan for key in self.outputs}


@lru_cache(maxsize=64)
def _checksum(path: Path, _stamp: int) -> str:
    return sha256_of(path)[:8]


def require_weights(metrics: list[Metric]) -> None:
    """Check that nothing is missing for the metrics that a user named.

    Raises:
        WeightsError: lists all metrics that cannot be computed.
    """
    missing = [f"{m.name}: {text}" for m in metrics if (text := m.missing())]
    if missing:
        raise WeightsError("\n  ".join(["These metrics cannot be computed:", *missing]))


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def build_metric(
    registry: Registry, name: str, params: dict[str, Any] | None = None, cfg: Config | None = None
) -> Metric:
    """Create a metric by its name, in any spelling that the registry accepts.

    Raises:
        ConfigError: unknown metric or parameter, or a parameter of another type.
    """
    entry = registry.entry("metric", name)
    known = dict(entry.meta.get("params") or {})
    for key, value in (params or {}).items():
        if key not in known:
            raise ConfigError(f"{entry.name} has no parameter '{key}'." + did_you_mean(key, known))
        default = known[key]
        numeric = isinstance(default, (int, float)) and not isinstance(default, bool)
        fits = isinstance(value, (int, float) if numeric else type(default))
        if default is not None and not fits:
            raise ConfigError(
                f"metric_params.{entry.name}.{key}: {value!r} should be a "
                f"{type(default).__name__} like {default!r}"
            )
        known[key] = value
    return registry.resolve(entry, "metric")(entry, known, cfg)
