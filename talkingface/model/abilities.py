"""What only some models can do. The toolkit checks for each with ``isinstance``.

A model has an ability when it defines the named methods or attributes; it need not inherit from
these classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@dataclass
class ClipResult:
    """Evaluation of one whole test clip.

    Attributes:
        values: row (the model's name, ``shuffled audio``, ``mean motion``, ``real``) -> output ->
            value; outputs are declared in ``clip_outputs``.
        motions: part of the motion (``face``, ``pose``) -> row -> (N,T,C) in the units of the data,
            N samples of one sound, for metrics that compare sets of motions. A part has a row of
            the model's name and one called ``real``, with NaN where a frame does not count. A part
            without the row ``real`` is only written to the files.
        details: further values, e.g. for ``result_notes``; ``key_step`` is the number of frames
            between the key poses of a part ``<part>_keys``.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    motions: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class EvaluatesClips(Protocol):
    """Generates motion instead of video, which is evaluated clip by clip.

    Attributes:
        clip_outputs: name of each value -> ``direction`` and ``unit``.
    """

    clip_outputs: dict[str, dict[str, str]]

    def evaluate_clip(self, clip: Any, mismatched: Any) -> ClipResult:
        """Generate and evaluate one clip of the dataset's ``whole_clips()``.

        Args:
            mismatched: another clip, whose sound is the wrong one for ``clip``.
        """


@runtime_checkable
class HasResultNotes(Protocol):
    """Its results need an explanation, e.g. that real key poses were given."""

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        """Entries for ``metrics.json`` and the log, from the results of all clips."""


@runtime_checkable
class Visualizes(Protocol):
    """Has pictures for the logger."""

    def visualize(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Pictures (B,3,H,W) or videos (B,T,3,H,W), RGB in 0..1."""


@runtime_checkable
class Initializes(Protocol):
    """Prepares its networks before the first step of a new run; not called on resume."""

    def initialize(self, data: Any) -> None:
        """Load pretrained parts, or take starting values from the training dataset."""


@runtime_checkable
class HasExtraState(Protocol):
    """Has state beside its networks and statistics that a checkpoint must keep."""

    def other_parameter(self) -> dict[str, Any]:
        """Tensors or plain Python values; plain values are also exported to ``weights.json``."""

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        """Restore what :meth:`other_parameter` returned."""


@runtime_checkable
class FollowsProgress(Protocol):
    """Has losses that change during the training.

    Attributes:
        training_progress: share of the run's steps that are done, 0..1; the trainer sets it.
    """

    training_progress: float


@runtime_checkable
class FollowsValidation(Protocol):
    """Has losses that depend on the last validation."""

    def after_validation(self, losses: Mapping[str, float]) -> None:
        """Called after each validation with its mean losses."""


@runtime_checkable
class WatchesPlateau(Protocol):
    """Names a loss that may get stuck.

    Attributes:
        plateau: loss name, low, high, advice: training warns once when the loss stays between low
            and high for long, e.g. a sync loss at ln 2.
    """

    plateau: tuple[str, float, float, str]


@runtime_checkable
class RenamesOfficialKeys(Protocol):
    """Official files have other names than the main network."""

    def remap_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of an official file -> names of the main network."""


@runtime_checkable
class HasOptionalKeys(Protocol):
    """Official files may lack some names or have unused ones.

    Attributes:
        optional_keys: prefixes of these names.
    """

    optional_keys: tuple[str, ...]


@runtime_checkable
class ExplainsMismatch(Protocol):
    """Can tell the settings of a state_dict from its names."""

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        """Settings with which a state_dict that does not fit would fit."""


def mismatched_sound(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rows (T,...) of another clip's sound, repeated or cut to the length of ``own``.

    The same array as ``own``, from a split with a single clip, is moved by half its length.
    """
    if other is own:
        return np.roll(own, len(own) // 2, axis=0)
    return np.ascontiguousarray(np.resize(other, own.shape))
