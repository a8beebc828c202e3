"""What a metric is: one class and one YAML file below ``properties/metric``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from talkingface.errors import ConfigError, WeightsError
from talkingface.registry import Entry, Registry
from talkingface.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from talkingface.config.config import Config


class Metric(ABC):
    """Scores one clip at a time.

    The evaluator calls :meth:`start`, then :meth:`update` for every frame pair of one shared decode
    (when ``uses_frames``), then :meth:`finish`; behind the last clip of a row :meth:`pool`.

    Class attributes:
        takes: ``video`` (the argument ``clip`` is a
            :class:`~talkingface.evaluator.clip.ClipPair`) or ``motion`` (a
            :class:`~talkingface.evaluator.motion_sample.MotionSample`).
        uses_frames: whether :meth:`update` is called.

    Args:
        entry: the metric's YAML; ``outputs`` names its numbers with direction and unit.
        params: settings, checked against the YAML's ``params``.
        cfg: the run's configuration, for metrics that need weights; None: paths only.
    """

    takes: ClassVar[str] = "video"
    uses_frames: bool = True

    def __init__(self, entry: Entry, params: dict[str, Any], cfg: Config | None = None) -> None:
        self.entry: Entry | None = entry
        self.cfg = cfg
        self.name = entry.name
        self.params = params
        self.outputs: dict[str, dict[str, Any]] = dict(entry.meta.get("outputs") or {})
        self.reasons: dict[str, str] = {}

    def weights_file(self, *names: str) -> Path | None:
        """The first of some files that lies in ``weights_dir`` (``checkpoints/``)."""
        from talkingface.utils.paths import resolve

        folder = resolve(self.cfg.weights_dir if self.cfg else "checkpoints")
        return next((folder / name for name in names if (folder / name).is_file()), None)

    def missing(self) -> str | None:
        """What it lacks to give any value, and how to get it; None when it has all."""
        return None

    @staticmethod
    def checksum(*files: Path) -> str:
        """First digits of each file's SHA-256: numbers of other weights do not compare."""
        return "+".join(
            _checksum(file, file.stat().st_mtime_ns) if file.is_file() else "missing"
            for file in files
        )

    def definition(self) -> str:
        """The metric with the settings that its value depends on."""
        text = ",".join(f"{k}={_short(v)}" for k, v in sorted(self.params.items()))
        return f"{self.name}[{text}]" if text else self.name

    def start(self, clip: Any) -> None:
        """Begin a clip."""
        self.reasons = {}

    def update(self, clip: Any, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        """Take one frame pair, (H,W,3) uint8 RGB."""

    @abstractmethod
    def finish(self, clip: Any) -> dict[str, float]:
        """Values of the clip by output name. nan with an entry in ``reasons`` when undefined."""

    def pool(self) -> tuple[dict[str, float], list[str]] | None:
        """Values of all clips since the last call, and remarks on them; None: a mean over clips.

        A metric that has this gives nan per clip: without an entry in ``reasons`` for a clip that
        it took in, with one for a clip that it left out.
        """
        return None

    @property
    def pools(self) -> bool:
        """Whether it has one value for a whole row instead of one per clip."""
        return type(self).pool is not Metric.pool

    def undefined(self, reason: str) -> dict[str, float]:
        """nan for every output."""
        self.reasons = {key: reason for key in self.outputs}
        return {key: math.nan for key in self.outputs}


@lru_cache(maxsize=64)
def _checksum(path: Path, _stamp: int) -> str:
    from talkingface.utils.hashes import sha256_of

    return sha256_of(path)[:8]


def require_weights(metrics: list[Metric]) -> None:
    """Refuse metrics that a user named but that could give no value.

    Raises:
        WeightsError: names all of them at once.
    """
    lacking = [f"{m.name}: {text}" for m in metrics if (text := m.missing())]
    if lacking:
        raise WeightsError("\n  ".join(["These metrics cannot be computed:", *lacking]))


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def build_metric(
    registry: Registry,
    name: str,
    params: dict[str, Any] | None = None,
    cfg: Config | None = None,
) -> Metric:
    """A metric by name in any spelling.

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
