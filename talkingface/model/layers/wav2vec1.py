"""Convolutional networks of wav2vec (Schneider et al. 2019) and vq-wav2vec with fairseq's names.

Neither is wav2vec 2.0. Only the parts that audio2photoreal uses are built: the feature extractors,
and the aggregator of wav2vec large.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATE = 16_000
_STRIDES = ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2), (1, 1), (1, 1), (1, 1))
# Prefixes of official weights that A2P does not use.
UNUSED = ("vector_quantizer.", "wav2vec_predictions.")


class FeatureExtractor(nn.Module):
    """(B,N) samples at 16 kHz -> (B,width,L) at about 100 Hz.

    Args:
        layers: 8 for vq-wav2vec, 7 for wav2vec large.
        activation: GELU (vq-wav2vec) or ReLU (wav2vec large).
        log_compression: return log(|x| + 1); the weights do not show whether it was used.
    """

    def __init__(
        self, layers: int, activation: type[nn.Module], log_compression: bool, width: int = 512
    ) -> None:
        super().__init__()
        self.log_compression = log_compression
        channels = [1, *[width] * layers]
        self.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels[i], width, kernel, stride, bias=False),
                nn.Dropout(0.0),
                nn.GroupNorm(1, width),
                activation(),
            )
            for i, (kernel, stride) in enumerate(_STRIDES[:layers])
        )

    def forward(self, wave: Tensor) -> Tensor:
        x = wave[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return torch.log(x.abs() + 1) if self.log_compression else x

    def token_count(self, samples: int) -> int:
        """Number of tokens for a number of samples at 16 kHz."""
        for layer in self.conv_layers:
            conv = layer[0]
            samples = (samples - conv.kernel_size[0]) // conv.stride[0] + 1
        return samples


class FeatureAggregator(nn.Module):
    """(B,width,L) -> (B,width,L): twelve causal convolutions with kernels 2 to 13."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(
            nn.Sequential(
                nn.ReplicationPad1d((kernel - 1, 0)),  # causal: repeats the first value
                nn.Conv1d(width, width, kernel),
                nn.Dropout(0.0),
                nn.GroupNorm(1, width),
                nn.ReLU(),
            )
            for kernel in range(2, 14)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.conv_layers:
            x = (layer(x) + x) * 0.5**0.5
        return x


class VQWav2Vec(nn.Module):
    """Feature extractor of vq-wav2vec; official A2P files also contain the unused aggregator."""

    def __init__(self, log_compression: bool = False) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(8, nn.GELU, log_compression)
        self.feature_aggregator = FeatureAggregator()

    def forward(self, wave: Tensor) -> Tensor:
        """(B,N) at 16 kHz -> (B,L,512)."""
        return self.feature_extractor(wave).transpose(1, 2)


class Wav2VecLarge(nn.Module):
    """Extractor and aggregator of wav2vec large."""

    def __init__(self, log_compression: bool = True) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(7, nn.ReLU, log_compression)
        self.feature_aggregator = FeatureAggregator()

    def forward(self, wave: Tensor) -> Tensor:
        """(B,N) at 16 kHz -> (B,L,512)."""
        return self.feature_aggregator(self.feature_extractor(wave)).transpose(1, 2)
