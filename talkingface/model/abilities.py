"""Optional methods and attributes of models. The toolkit checks for each with ``isinstance``.

A model has an ability if it defines the methods or attributes; it need not inherit from these
classes.
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
            N samples of one sound, for metrics that compare sets of motions. A part has a row with
            the model's name and a row ``real``, with NaN in frames that do not count. A part
            without the row ``real`` is written to files but not evaluated.
        details: further values, e.g. for ``result_notes``; ``key_step`` is the number of frames
            between the key poses of a part ``<part>_keys``.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    motions: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class EvaluatesClips(Protocol):
    """Generates motion instead of video, and evaluates it clip by clip.

    Attributes:
        clip_outputs: name of each value -> ``direction`` and ``unit``.
    """

    clip_outputs: dict[str, dict[str, str]]

    def evaluate_clip(self, clip: Any, mismatched: Any) -> ClipResult:
        """Generate and evaluate the motion of one clip of the dataset's ``whole_clips()``.

        Args:
            mismatched: another clip, as the source of a sound that does not belong to ``clip``.
        """


@runtime_checkable
class HasResultNotes(Protocol):
    """Adds explanations to its results, e.g. that real key poses were given."""

    def result_notes(self, results: Sequence[ClipResult]) -> dict[str, str]:
        """Entries for ``metrics.json`` and the log, from the results of all clips."""


@runtime_checkable
class Visualizes(Protocol):
    """Draws pictures for the logger."""

    def visualize(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Pictures (B,3,H,W) or videos (B,T,3,H,W), RGB in 0..1."""


@runtime_checkable
class Initializes(Protocol):
    """Prepares its networks before the first step of a new run; not called on resume."""

    def initialize(self, data: Any) -> None:
        """Load pretrained weights, or compute initial values from the training dataset."""


@runtime_checkable
class HasExtraState(Protocol):
    """Has further state, beside networks and statistics, that a checkpoint must keep."""

    def other_parameter(self) -> dict[str, Any]:
        """Tensors or plain Python values; plain values are also exported to ``weights.json``."""

    def load_other_parameter(self, values: Mapping[str, Any]) -> None:
        """Restore what :meth:`other_parameter` returned."""


@runtime_checkable
class FollowsProgress(Protocol):
    """Has losses that change during the training.

    Attributes:
        training_progress: share of the completed steps of the run, 0..1; the trainer sets it.
    """

    training_progress: float


@runtime_checkable
class FollowsValidation(Protocol):
    """Has losses that depend on the last validation."""

    def after_validation(self, losses: Mapping[str, float]) -> None:
        """Called after each validation with the mean losses."""


@runtime_checkable
class WatchesPlateau(Protocol):
    """Names a loss that may get stuck.

    Attributes:
        plateau: loss name, low, high, advice; the trainer warns once if the loss stays between low
            and high for long, e.g. a sync loss at ln 2.
    """

    plateau: tuple[str, float, float, str]


@runtime_checkable
class RenamesOfficialKeys(Protocol):
    """Official files have other weight names than the main network."""

    def remap_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the weights of an official file to the names of the main network."""


@runtime_checkable
class HasOptionalKeys(Protocol):
    """Official files may lack some weights or contain unused ones.

    Attributes:
        optional_keys: prefixes of the names of these weights.
    """

    optional_keys: tuple[str, ...]


@runtime_checkable
class ExplainsMismatch(Protocol):
    """Infers settings from the names in a state_dict."""

    def state_hint(self, state: Mapping[str, Tensor]) -> str:
        """A sentence with the settings that would fit a state_dict that does not load."""


def mismatched_sound(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rows (T,...) of another clip's sound, repeated or cut to the length of ``own``.

    If both are the same array (a split with a single clip), it is rolled by half its length.
    """
    if other is own:
        return np.roll(own, len(own) // 2, axis=0)
    return np.ascontiguousarray(np.resize(other, own.shape))
