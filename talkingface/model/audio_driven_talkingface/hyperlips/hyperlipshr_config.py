"""Configuration keys of HyperLipsHR. Not importing torch keeps ``--explain`` fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from talkingface.config.component_spec import ComponentSpec, vgg19
from talkingface.config.schema import ModelConfig, Section
from talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_config import (
    HyperLipsInfer,
    MelSection,
)
from talkingface.model.detail_config import DetailLoss, FeatureWeights, face_features


class HRNetwork(Section):
    """Size of decoder and discriminator; the defaults are the official networks."""

    image_size: Literal[128, 256, 512] = Field(
        256, description="Side of the output; the input is always 128 px."
    )
    channels: int = Field(64, ge=8, multiple_of=2, description="Channels of the decoder.")
    norm: Literal["batch", "none"] = Field(
        "batch",
        description="batch: BatchNorm as in the official network, for batches of dozens of images; "
        "none: no normalisation, for small batches; the network is then initialised to upsample.",
    )
    disc_channels: int = Field(
        32, ge=4, description="Channels of the first block of the discriminator."
    )


class HRData(Section):
    """Training items."""

    frames: int = Field(5, ge=1, description="Consecutive frames per item (official: 5).")
    windows_per_clip: int = Field(1, ge=1, description="Items per clip and epoch.")
    patch: int | None = Field(
        None,
        ge=32,
        le=128,
        description="Train on squares of this side around the lips, in px of the 128 px input, "
        "which is several times faster on a CPU; null: the whole image (official).",
    )
    sketch: Literal["auto", "unified", "upstream"] = Field(
        "auto",
        description="Line width of the sketch: unified (3 px at 128 px, in training and "
        "generation), upstream (6 px, as in the official generation), or auto: unified, but "
        "upstream for generation with official weights.",
    )
    sketch_smoothing: float = Field(
        0.04,
        ge=0,
        le=1,
        description="Standard deviation of the temporal smoothing of the sketch points, in s.",
    )


class HRLoss(DetailLoss):
    """Weights of the losses (all 1 in the official code)."""

    l1_wt: float = Field(1.0, ge=0, description="L1 on the whole image.")
    disc_wt: float = Field(
        1.0, ge=0, description="Relativistic average GAN; 0: without discriminator."
    )
    lip_l1_wt: float = Field(1.0, ge=0, description="L1 on the rectangle around the lips.")
    perceptual_wt: float = Field(
        1.0, ge=0, description="VGG19 features; used if weights.vgg is found."
    )
    lip_lpips_wt: float = Field(
        1.0, ge=0, description="LPIPS around the lips; used if weights.lpips is found."
    )
    legacy_sigmoid: bool = Field(
        False,
        description="Use the probabilities of the discriminator as logits, as in the official "
        "code; the gradients are weak.",
    )
    legacy_normalisation: bool = Field(
        False,
        description="VGG and LPIPS get BGR images in 0..1 without normalisation, as in the "
        "official code.",
    )


class HRWeights(FeatureWeights):
    """Components: trained networks that the model needs."""

    base: str = Field(
        "auto",
        description="HyperLipsBase whose output is sharpened: auto (newest run on the dataset, "
        "else an official file in checkpoints/), a path, or a run id.",
    )
    vgg: str | None = Field("auto", description="torchvision VGG19 state_dict, auto, or null.")
    lpips: str | None = Field("auto", description="torchvision VGG16 state_dict, auto, or null.")


class HRInfer(HyperLipsInfer):
    """Generation."""

    legacy_input: bool = Field(
        False,
        description="Resize image and sketch to the output size before the decoder, as in the "
        "official code (up to 16 times slower, and a scale that does not occur in training).",
    )


class HyperLipsHRConfig(ModelConfig):
    """Keys of HyperLipsHR."""

    fps: float = Field(25.0, gt=0, le=120, description="Frame rate in frames/s, as in the base.")
    model_params: HRNetwork = Field(default_factory=HRNetwork, description="Networks.")
    audio: MelSection = Field(default_factory=MelSection, description="Mel front end (fixed).")
    data: HRData = Field(default_factory=HRData, description="Training items.")
    loss: HRLoss = Field(default_factory=HRLoss, description="Loss weights.")
    weights: HRWeights = Field(default_factory=HRWeights, description="Components.")
    infer: HRInfer = Field(default_factory=HRInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        loss, weights = cfg.loss, cfg.weights
        specs = {
            "base": ComponentSpec(
                weights.base,
                "stage 1, whose output is sharpened",
                model="HyperLipsBase",
                files=("hyperlipsbase_mead.pth", "hyperlipsbase_multi.pth"),
                network="talkingface.model.audio_driven_talkingface.hyperlips.hyperlips_networks:"
                "HyperLipsBaseNet",
                required=True,
                at_inference=True,
                same_settings=("fps", "face.box_margins"),
            )
        }
        specs.update(face_features(loss, weights))
        if loss.perceptual_wt > 0:
            specs["vgg"] = vgg19(weights.vgg, "the perceptual loss (loss.perceptual_wt)")
        if loss.lip_lpips_wt > 0:
            specs["lpips"] = ComponentSpec(
                weights.lpips,
                "LPIPS around the lips (loss.lip_lpips_wt)",
                files=("LPIPS/vgg16-397923af.pth",),
                extra_files=("LPIPS/lpips_lin_vgg.pth",),
                network="talkingface.model.losses.perceptual:LPIPSNetwork",
            )
        return specs
