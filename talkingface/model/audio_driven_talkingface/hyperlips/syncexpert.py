"""Training of the lip-sync expert that the sync loss of stage 1 uses (official code)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from talkingface.model.abstract_talkingface import AbstractTalkingFace, Batch, Tensors
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks import SyncNetColor
from talkingface.model.losses.sync import cosine_bce, sync_accuracy

if TYPE_CHECKING:
    from talkingface.config.config import Config


class SyncExpert(AbstractTalkingFace):
    """Classifies whether five frames and a mel window are in sync.

    Batch of ``SyncExpertDataset``: ``faces`` (B,15,64,128), ``mels`` (B,1,80,16), ``label`` (B,).
    """

    main_network: ClassVar[str] = "expert"
    plateau: ClassVar[tuple[str, float, float, str]] = (
        "loss",
        0.685,
        0.700,
        "the output is still at chance level (ln 2 = 0.693). Usual causes: audio and video of the "
        "data are out of sync, too few or too similar clips, too high a learning rate. Large "
        "corpora may need tens of thousands of steps before the loss falls.",
    )

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.expert = SyncNetColor(width=cfg.model_params.width)

    def forward_train(self, batch: Batch) -> Tensors:
        audio, face = self.expert(batch["mels"], batch["faces"])
        return {"audio": audio, "face": face}

    def calculate_loss(self, batch: Batch, phase: str, shared: Tensors) -> Tensors:
        triple = shared["audio"], shared["face"], batch["label"]
        return {"loss": cosine_bce(*triple), "accuracy": sync_accuracy(*triple)}
