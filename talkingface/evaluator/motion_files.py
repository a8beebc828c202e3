"""Files of generated motions: ``.npz`` without pickle, and ``results.npy`` of audio2photoreal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.npz import save_npz
from talkingface.utils.paths import atomic


@dataclass
class MotionResults:
    """Motions of one kind for N sounds, R of each, in the units of the data.

    Attributes:
        motions: per sound (R,T,C); lengths may differ.
        real: per sound (T,C); empty without recorded motion.
        sounds: per sound (S,2) samples in -1..1.
        keys: per sound (R,K,C) key poses that guided the generation.
        facts: further entries: ``fps``, ``sample_rate``, ``scene``, ``start``, seed, sampler...
    """

    motions: Sequence[np.ndarray]
    real: Sequence[np.ndarray] = ()
    sounds: Sequence[np.ndarray] = ()
    keys: Sequence[np.ndarray] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def _stacked(self, arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
        """One array (N,...); shorter ones are padded with zeros along ``axis``."""
        shape = list(arrays[0].shape)
        shape[axis] = max(a.shape[axis] for a in arrays)
        stacked = np.zeros((len(arrays), *shape), np.float32)
        for number, values in enumerate(arrays):
            stacked[(number, *map(slice, values.shape))] = values
        return stacked

    def save(self, path: Path) -> None:
        """``.npz``: motions (R,N,T,C), gt (N,T,C), keyframes (R,N,K,C), lengths (N,), facts."""
        content: dict[str, Any] = {
            "motions": self._stacked(self.motions, 1).swapaxes(0, 1),
            "lengths": np.array([m.shape[1] for m in self.motions]),
            **self.facts,
        }
        if len(self.real):
            content["gt"] = self._stacked(self.real, 0)
        if len(self.keys):
            content["keyframes"] = self._stacked(self.keys, 1).swapaxes(0, 1)
        save_npz(path, content)

    def save_original(self, path: Path) -> None:
        """``results.npy``: a pickled dictionary in the layout of the original sampler.

        Repetition r of sound i has the index r * N + i.
        """
        repeats = len(self.motions[0])
        motions = self._stacked(self.motions, 1)  # N,R,T,C

        def official(values: np.ndarray) -> np.ndarray:
            """(N,R,T,C) -> (R*N,C,1,T)."""
            flat = values.swapaxes(0, 1).reshape(-1, *values.shape[2:])
            return flat.transpose(0, 2, 1)[:, :, None]

        def repeated(values: np.ndarray) -> np.ndarray:
            return np.concatenate([values] * repeats)

        lengths = np.array([m.shape[1] for m in self.motions])
        content: dict[str, Any] = {"motions": official(motions), "lengths": repeated(lengths)}
        real = (
            self._stacked(self.real, 0) if len(self.real) else np.full_like(motions[:, 0], np.nan)
        )
        content["gt"] = repeated(real.transpose(0, 2, 1)[:, :, None])
        if len(self.sounds):
            content["audio"] = repeated(self._stacked(self.sounds, 0))
        if len(self.keys):
            keys = self._stacked(self.keys, 1)
            content["keyframes"] = keys.swapaxes(0, 1).reshape(-1, *keys.shape[2:])
        else:
            content["keyframes"] = content["gt"][:, :, 0].transpose(0, 2, 1)
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.save(file, np.array(content, dtype=object), allow_pickle=True)
