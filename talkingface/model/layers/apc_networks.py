"""Autoregressive predictive coding (Chung et al. 2019), the speech encoder of LSP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from talkingface.config.config import Config


class APCEncoder(nn.Module):
    """Unidirectional GRUs over log-mel rows; official ``state_dict`` names ``rnns.*``.

    Args:
        residual: add the input to the output of layers that keep the width, except the last one.
        postnet: also build the head that predicts mel rows, which only training needs; official
            files contain it.
    """

    def __init__(
        self,
        mel_dim: int = 80,
        hidden_size: int = 512,
        num_layers: int = 3,
        residual: bool = False,
        postnet: bool = True,
    ) -> None:
        super().__init__()
        sizes = [mel_dim] + [hidden_size] * num_layers
        self.rnns = nn.ModuleList(
            nn.GRU(before, after, batch_first=True)
            for before, after in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.residual = residual
        if postnet:
            self.postnet = nn.Module()
            self.postnet.layer = nn.Conv1d(hidden_size, mel_dim, kernel_size=1)

    def forward(self, mel: Tensor, predict: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """(B,M,80) -> features of the last layer (B,M,hidden); with ``predict`` also the predicted
        mel rows (B,M,80)."""
        features = self.stream(mel)[0]
        return (features, self.predict_mel(features)) if predict else features

    def stream(self, mel: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Features of the next rows of a sequence, and the state for the rows after them."""
        hidden, new_state = mel, []
        for number, rnn in enumerate(self.rnns):
            out, last = rnn(hidden, state[number] if state else None)
            new_state.append(last)
            inner = number < len(self.rnns) - 1
            hidden = out + hidden if self.residual and inner and hidden.shape == out.shape else out
        return hidden, new_state

    def predict_mel(self, features: Tensor) -> Tensor:
        """Features (B,M,hidden) -> predicted mel rows (B,M,80)."""
        return self.postnet.layer(features.transpose(1, 2)).transpose(1, 2)


def build_apc(cfg: Config) -> APCEncoder:
    """The network with the settings of section ``apc``."""
    size = cfg.apc
    return APCEncoder(80, size.hidden_size, size.num_layers, size.residual)
