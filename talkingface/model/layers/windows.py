"""Process long sequences window by window."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def window_starts(count: int, window: int, stride: int) -> list[int]:
    """First frames of windows over ``count`` frames; the last window ends at the last frame."""
    if count <= window:
        return [0]
    return [*range(0, count - window, stride), count - window]


def map_windows(
    run: Callable[[int, int], Mapping[str, Tensor]], count: int, window: int, stride: int
) -> dict[str, Tensor]:
    """Map overlapping windows and cross-fade them linearly.

    Args:
        run: (start, stop) -> outputs (stop - start, n) by name.

    Returns:
        Outputs (count, n) by name.
    """
    total: dict[str, Tensor] = {}
    starts = window_starts(count, window, stride)
    for number, start in enumerate(starts):
        stop = min(count, start + window)
        for key, values in run(start, stop).items():
            if number == 0:
                total[key] = values.new_zeros(count, values.shape[-1])
                total[key][start:stop] = values
                continue
            overlap = starts[number - 1] + window - start  # frames of the previous window
            total[key][start + max(overlap, 0) : stop] = values[max(overlap, 0) :]
            if overlap > 0:
                weight = torch.arange(1, overlap + 1, device=values.device) / (overlap + 1)
                faded = total[key][start : start + overlap]
                faded.copy_(torch.lerp(faded, values[:overlap], weight[:, None].to(values)))
    return total
