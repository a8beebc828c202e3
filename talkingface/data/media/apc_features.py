"""Speech features of audio by an APC network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from talkingface.data.media.apc_mel import MOTION_FPS, ROWS_PER_FRAME, apc_mel
from talkingface.utils.hashes import sha256_of

if TYPE_CHECKING:
    from torch import nn

_VERSION = 1  # of the front end
_CHUNK = 60 * ROWS_PER_FRAME * MOTION_FPS  # rows per forward pass, 60 s


def apc_id(path: Path) -> str:
    """Identifier of an APC checkpoint by content: features of another checkpoint are not reused."""
    return f"{sha256_of(path)[:12]}v{_VERSION}"


def encode(network: nn.Module, wave: np.ndarray) -> np.ndarray:
    """16 kHz mono samples -> features (2T, hidden) float32."""
    import torch

    mel = torch.from_numpy(apc_mel(wave))
    device = next(network.parameters()).device
    state, parts = None, []
    with torch.inference_mode():
        for rows in mel.split(_CHUNK):
            features, state = network.stream(rows[None].to(device), state)
            parts.append(features[0].cpu())
    width = network.rnns[0].hidden_size
    return torch.cat(parts).numpy() if parts else np.zeros((0, width), np.float32)
