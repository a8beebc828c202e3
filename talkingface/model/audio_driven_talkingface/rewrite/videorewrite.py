"""VideoRewrite: a small network from speech to mouth shapes; pictures are taken from the video.

After Bregler, Covell and Slaney, "Video Rewrite: driving visual speech with audio", SIGGRAPH 1997.
There, phonemes choose the stored mouths; here, a network predicts their shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from talkingface.data.face.mouth_shapes import SHAPE_SIZE
from talkingface.data.media.mel import ROW_SIZE
from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors

if TYPE_CHECKING:
    from talkingface.config.config import Config


class LipNet(nn.Sequential):
    """Two hidden layers from the spectrogram around a frame to its mouth shape.

    Input (...,720), see ``sound_rows``; output (...,41,3), the difference from the mean shape of
    the person in head coordinates, see ``HeadFrame``.
    """

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(ROW_SIZE, elementwise_affine=False),
            nn.Linear(ROW_SIZE, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, SHAPE_SIZE * 3),
            nn.Unflatten(-1, (SHAPE_SIZE, 3)),
        )
        last = self[-2]  # an untrained network predicts the mean shape
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class VideoRewrite(AbstractTalkingFace):
    """Learns the mouth shapes of many people.

    Batch of ``VideoRewriteDataset``: ``sound`` (B,T,720), ``shape`` (B,T,41,3).
    """

    main_network: ClassVar[str] = "lip_net"
    batch_keys: ClassVar[tuple[str, ...]] = ("sound", "shape")

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.lip_net = LipNet(**cfg.model_params.model_dump())

    def forward_train(self, batch: Batch) -> Tensors:
        return {"shape": self.lip_net(batch["sound"])}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        """Mean absolute error in per cent of the distance of the outer eye corners."""
        return {"loss": 100 * (shared["shape"] - batch["shape"]).abs().mean()}
