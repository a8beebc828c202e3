"""MODAPortrait: the trained parts of MODA as one model that generates videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from talkingface.model.abstract_talkingface import AbstractTalkingFace, FrozenNetwork

if TYPE_CHECKING:
    from talkingface.config.config import Config

# What the released code's weights were trained with (spec 2.8, 2.9).
_OFFICIAL_MAPPING: dict[str, Any] = {
    "fps": 30,
    "prep": {"canonical": "official"},
    "audio_encoder": {"kind": "wav2vec2", "weights": "random"},
    "model_params": {
        "subject_norm": "batch",
        "std_mode": "none",
        "legacy_pe": True,
        "legacy_mask": True,
    },
}


class MODAPortrait(AbstractTalkingFace):
    """Nothing of its own to train: a run joins three trained parts and evaluates the whole."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)

    def frozen_networks(self) -> dict[str, FrozenNetwork]:
        weights = self.cfg.weights

        def part(
            name: str, model: str, file: str, why: str, agree: tuple[str, ...], **official: Any
        ) -> FrozenNetwork:
            return FrozenNetwork(
                None,
                getattr(weights, name),
                files=(f"MODA/{file}", file),
                model=model,
                why=why,
                required=True,
                generates=True,
                agree=agree,
                whole=official,
            )

        space = ("prep.canonical", "prep.torso_space")
        return {
            "moda": part(
                "moda", "MODA", "MODA.pkl", "the motion", ("fps", *space), **_OFFICIAL_MAPPING
            ),
            "faco": part(
                "faco", "MODAFaCo", "FaCo.pkl", "the face around lips and eyes", space[:1],
                prep={"canonical": "official"}, model_params={"std_mode": "none"},
            ),
            "renderer": part(
                "renderer", "MODARenderer", "Render.pkl", "the pictures", ("fps", *space),
                fps=30, prep={"canonical": "official"},
            ),
        }  # fmt: skip
