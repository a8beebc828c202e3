"""Configuration keys of SyncNet."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from talkingface.config.schema import ModelConfig, Section


class SyncNetNetwork(Section):
    """Size of the network; the defaults are the official network."""

    width: float = Field(1.0, gt=0, le=2, description="Channel factor.")
    image_size: int = Field(224, ge=96, le=512, description="Side of the face crop in pixels.")
    out_features: int = Field(1024, ge=16, description="Length of the embeddings.")


class SyncNetData(Section):
    """Training items."""

    frames: int = Field(
        25,
        ge=8,
        description="Consecutive frames per item. Each of its windows (4 fewer than frames) is "
        "paired with the audio of every window.",
    )
    windows_per_clip: int = Field(1, ge=1, description="Items per clip and epoch.")
    augment: bool = Field(
        True,
        description="Random mirroring, shift, scale and brightness, the same for all frames of an "
        "item.",
    )
    vary: bool = Field(
        False,
        description="Also random rotation, colours, sharpness and noise of the pictures, and "
        "vocal tract length, loudness and microphone of the voice: for a network that is to work "
        "on other people than those of a small data set.",
    )


class SyncNetLoss(Section):
    """Loss on the distances of all windows of an item."""

    kind: Literal["contrastive", "cosine", "matching"] = Field(
        "contrastive",
        description="contrastive: margin loss on the distance (the paper); cosine: cross-entropy "
        "of the cosine similarity (Wav2Lip); matching: select the matching audio among those of "
        "the item (Chung et al. 2019), learns fastest.",
    )
    margin: float = Field(
        20.0, gt=0, description="contrastive: minimum distance of negative pairs."
    )
    min_shift: int = Field(
        1, ge=1, description="Minimum shift of a negative pair in frames; others are ignored."
    )


class SyncNetConfig(ModelConfig):
    """Keys of SyncNet."""

    fps: Literal[25.0] = Field(25.0, description="Frames/s; fixed, as a frame has 4 MFCC columns.")
    model_params: SyncNetNetwork = Field(default_factory=SyncNetNetwork, description="Network.")
    data: SyncNetData = Field(default_factory=SyncNetData, description="Training items.")
    loss: SyncNetLoss = Field(default_factory=SyncNetLoss, description="Loss.")
