"""Configuration keys that the renderers of LSP and MODA share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from talkingface.config.component_spec import ComponentSpec, vgg19
from talkingface.config.schema import ModelConfig, Section
from talkingface.model.detail_config import DetailLoss, FeatureWeights, face_features


class ImageGANNetwork(Section):
    """Sizes of generator and discriminator; the defaults are the official ones."""

    image_size: Literal[64, 128, 256, 512] = Field(512, description="Side of the pictures in px.")
    size: Literal["normal", "large", "small"] = Field(
        "normal",
        description="normal, large: residual U-Nets, as of the official speakers; small: the plain "
        "pix2pix U-Net, which fails in the official code.",
    )
    ngf: int = Field(64, ge=4, description="Channels of the generator's first level.")
    n_downsample: int | None = Field(
        None, ge=4, le=8, description="Levels of the U-Net; null: log2(image_size) - 1."
    )
    ndf: int = Field(64, ge=4, description="Channels of the discriminator's first layer.")
    num_d: int = Field(2, ge=1, le=4, description="Scales of the discriminator.")
    n_layers_d: int = Field(3, ge=1, le=5, description="Layers of each discriminator.")

    @property
    def levels(self) -> int:
        return self.n_downsample or self.image_size.bit_length() - 2

    @model_validator(mode="after")
    def _fits(self) -> ImageGANNetwork:
        if 2 ** (self.levels + 1) > self.image_size:
            raise ValueError(
                f"n_downsample={self.levels} leaves one pixel of {self.image_size} px, too few for "
                f"batch normalisation; at most {self.image_size.bit_length() - 2}"
            )
        return self


class ImageGANData(Section):
    """Training items."""

    frames_per_clip: int | None = Field(
        None, ge=1, description="Pictures drawn from each clip per epoch; null: all."
    )


class ImageGANLoss(DetailLoss):
    """Weights of the losses (official values)."""

    gan_wt: float = Field(1.0, ge=0, description="LSGAN; 0 builds no discriminator.")
    l1_wt: float = Field(100.0, ge=0, description="L1.")
    vgg_wt: float = Field(10.0, ge=0, description="VGG19 features; skipped without weights.vgg.")
    style_wt: float = Field(10.0, ge=0, description="Gram matrices of the same features.")
    feature_matching_wt: float = Field(10.0, ge=0, description="Features of the discriminator.")


class ImageGANWeights(FeatureWeights):
    """Components: trained networks that the model needs."""

    vgg: str | None = Field("auto", description="torchvision VGG19 state_dict, auto, or null.")


class ImageGANInfer(Section):
    """Generation."""

    batch_size: int = Field(8, ge=1, description="Frames generated together.")
    crf: int = Field(18, ge=0, le=40, description="H.264 quality of the videos; lower is better.")


class ImageGANConfig(ModelConfig):
    """Keys of a renderer, beside those of its family."""

    model_params: ImageGANNetwork = Field(default_factory=ImageGANNetwork, description="Networks.")
    data: ImageGANData = Field(default_factory=ImageGANData, description="Training items.")
    loss: ImageGANLoss = Field(default_factory=ImageGANLoss, description="Loss weights.")
    weights: ImageGANWeights = Field(default_factory=ImageGANWeights, description="Components.")
    infer: ImageGANInfer = Field(default_factory=ImageGANInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        specs = face_features(cfg.loss, cfg.weights)
        if cfg.loss.vgg_wt > 0 or cfg.loss.style_wt > 0:
            purpose = "the VGG and style losses (loss.vgg_wt, loss.style_wt)"
            specs["vgg"] = vgg19(cfg.weights.vgg, purpose)
        return specs
