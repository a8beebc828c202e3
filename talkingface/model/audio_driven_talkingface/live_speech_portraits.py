"""live_speech_portraits: the trained parts of Live Speech Portraits as one model that generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkingface.model.abstract_talkingface import AbstractTalkingFace, FrozenNetwork
from talkingface.model.audio_driven_talkingface.apc_networks import apc_helper
from talkingface.model.audio_driven_talkingface.feature2face_networks import Feature2FaceNet
from talkingface.model.audio_driven_talkingface.lsp_motion_networks import (
    Audio2FeatureNet,
    Audio2HeadposeNet,
)

if TYPE_CHECKING:
    from talkingface.config.config import Config

_FOLDER = "live_speech_portraits"


class LiveSpeechPortraits(AbstractTalkingFace):
    """Nothing of its own to train: a run joins four trained parts and evaluates the whole."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)

    def frozen_networks(self) -> dict[str, FrozenNetwork]:
        weights, size = self.cfg.weights, self.cfg.model_params

        def part(build, name: str, why: str) -> FrozenNetwork:
            return FrozenNetwork(
                build,
                getattr(weights, name.lower()),
                files=(f"{_FOLDER}/{name}.pkl", f"{name}.pkl"),
                model=name,
                why=why,
                required=True,
                generates=True,
            )

        return {
            "audio2feature": part(Audio2FeatureNet, "Audio2Feature", "the movement of the mouth"),
            "audio2headpose": part(Audio2HeadposeNet, "Audio2Headpose", "the movement of the head"),
            "feature2face": part(
                lambda: Feature2FaceNet(size.size, size.levels, size.ngf),
                "Feature2Face",
                "the pictures",
            ),
            "apc": apc_helper(self.cfg, follows=("audio2feature", "audio2headpose")),
        }
