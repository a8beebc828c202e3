"""The best sequence of stored frames for a sequence of wanted mouth shapes."""

from __future__ import annotations

import numpy as np


def best_sequence(
    local: np.ndarray, codes: np.ndarray, follows: np.ndarray, *, jump: float, candidates: int = 60
) -> np.ndarray:
    """Viterbi search over the cheapest stored frames of each time.

    Args:
        local: (T,N) cost of each stored frame for each output frame; infinite: not allowed.
        codes: (N,D) shape of each stored frame; a step between frames costs their squared distance.
        follows: (N,) bool, whether stored frame k+1 continues frame k.
        jump: cost of a step that is no continuation.
        candidates: frames considered at each time, besides the continuations.

    Returns:
        (T,) int, indices of stored frames.
    """
    steps, stored = local.shape
    candidates = min(candidates, stored)
    next_of = np.where(follows, np.minimum(np.arange(stored) + 1, stored - 1), -1)
    close = np.argpartition(local, candidates - 1, axis=1)[:, :candidates]
    states: list[np.ndarray] = []
    origins: list[np.ndarray] = []
    cost = np.zeros(0)
    for time in range(steps):
        if not states:
            states.append(close[0])
            cost = local[0, close[0]]
            continue
        before = states[-1]
        onward = next_of[before[np.argsort(cost)[:candidates]]]
        state = np.unique(np.concatenate([close[time], onward[onward >= 0]]))
        distance = ((codes[before][:, None] - codes[state]) ** 2).sum(-1) + jump
        distance[next_of[before][:, None] == state] = 0.0
        total = cost[:, None] + distance
        origin = total.argmin(0)
        cost = total[origin, np.arange(len(state))] + local[time, state]
        states.append(state)
        origins.append(origin)
    position = int(cost.argmin())
    result = [int(states[-1][position])]
    for time in range(steps - 1, 0, -1):
        position = int(origins[time - 1][position])
        result.append(int(states[time - 1][position]))
    return np.array(result[::-1])
