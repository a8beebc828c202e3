"""Configuration keys of Live Speech Portraits. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import ModelConfig, Section
from talkingface.data.dataprocess.lsp.motion import check_amplifier
from talkingface.model.apc_config import APCNetwork, apc_component
from talkingface.model.conditional_gan_config import (
    ImageGANData,
    ImageGANInfer,
    ImageGANLoss,
    ImageGANNetwork,
    ImageGANWeights,
    image_gan_components,
)

_LSP = "audio_driven_talkingface.lsp.lsp_motion_networks"


class PersonSection(Section):
    """Preparation of a person (ours)."""

    name: str | None = Field(
        None,
        pattern=r"^[^/\\.][^/\\]*$",
        description="All clips show this person; null: the speaker that their names tell.",
    )
    focal_ratio: float = Field(
        1.2,
        ge=0.5,
        le=5,
        description="Focal length over the longer side of the frame. Free for unknown cameras; "
        "depth gets noisy above 2.",
    )
    pose_smoothing: float = Field(
        0.04,
        ge=0,
        le=0.5,
        description="Standard deviation of the smoothing of the head pose in s (depth: twice). "
        "The points are lifted again, so they still project onto the detected pixels.",
    )
    jpeg_quality: int = Field(95, ge=50, le=100, description="Of the stored source frames.")
    max_seconds: float = Field(
        300.0,
        ge=1,
        description="Motion and speech features that the person's own files hold at most, s.",
    )


class APCWeights(Section):
    """Components: trained networks that the model needs."""

    apc: str = Field(
        "auto",
        description="APC that makes the speech features: auto (newest run on the dataset, else an "
        "official file in checkpoints/), a path, or a run id.",
    )


class APCData(Section):
    """Training items."""

    seconds: float = Field(4.0, gt=0.2, description="Length of the random pieces of sound.")
    steps_ahead: int = Field(3, ge=1, description="Mel rows (1/120 s) from input to target.")
    windows_per_clip: int = Field(4, ge=1, description="Items per clip and epoch.")


class APCConfig(ModelConfig):
    """Keys of APC."""

    apc: APCNetwork = Field(default_factory=APCNetwork, description="Network.")
    data: APCData = Field(default_factory=APCData, description="Training items.")


class MotionData(Section):
    """Training items of Audio2Feature and Audio2Headpose, at 60 Hz."""

    seq_len: int = Field(240, ge=8, description="Motion frames per item; clips must be as long.")
    stride: int = Field(4, ge=1, description="Frames between the starts of two items.")
    frame_future: int = Field(
        18, ge=0, description="Frames of sound after an output frame that the network needs."
    )
    items_per_epoch: int | None = Field(
        None, ge=1, description="Draw so many of all items per epoch; null: all."
    )


class Audio2FeatureNetwork(Section):
    """Size of the network; the defaults are the official one."""

    hidden: int = Field(
        256, ge=8, description="Width of the LSTM; linear layers are twice as wide."
    )
    layers: int = Field(3, ge=1, description="LSTM layers.")


class Audio2FeatureLoss(Section):
    """Objective."""

    l2_wt: float = Field(1000.0, gt=0, description="Mean squared error of the points.")


class Audio2FeatureConfig(ModelConfig):
    """Keys of Audio2Feature."""

    apc: APCNetwork = Field(default_factory=APCNetwork, description="Speech encoder.")
    person: PersonSection = Field(default_factory=PersonSection, description="Preparation.")
    model_params: Audio2FeatureNetwork = Field(
        default_factory=Audio2FeatureNetwork, description="Network."
    )
    data: MotionData = Field(default_factory=MotionData, description="Training items.")
    loss: Audio2FeatureLoss = Field(default_factory=Audio2FeatureLoss, description="Objective.")
    weights: APCWeights = Field(default_factory=APCWeights, description="Components.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return {"apc": apc_component(cfg)}

    @model_validator(mode="after")
    def _answers(self) -> Audio2FeatureConfig:
        if self.data.seq_len <= self.data.frame_future:
            raise ValueError(
                f"data.seq_len={self.data.seq_len} must exceed data.frame_future="
                f"{self.data.frame_future}: the answers come so many frames late"
            )
        return self


class HeadposeData(MotionData):
    """Training items of Audio2Headpose."""

    stride: int = Field(1, ge=1, description="Frames between the starts of two items.")
    frame_future: int = Field(15, ge=0, description="Frames of sound beyond a pose's own time.")
    skip_start: int = Field(0, ge=0, description="Frames left out at the start (official: 300).")
    skip_end: int = Field(0, ge=0, description="Frames left out at the end (official: 460).")
    short_clips: Literal["pad", "error"] = Field(
        "pad",
        description="Clips shorter than history and sequence: pad repeats the first frame as their "
        "history, error refuses them.",
    )


class Audio2HeadposeNetwork(Section):
    """Size of the WaveNet; the defaults are the official one."""

    layers: int = Field(7, ge=1, le=12, description="Layers per block; dilations double.")
    blocks: int = Field(
        2, ge=1, description="Blocks. The receptive field is 1 + blocks * (2^layers - 1)."
    )
    channels: int = Field(128, ge=4, description="Residual and dilation channels.")
    skip_channels: int = Field(256, ge=4, description="Skip channels.")
    condition: int = Field(512, ge=4, description="Channels of the sound.")
    residual: bool = Field(
        False,
        description="Predict the change of the pose, so that training starts from a still head; "
        "false: the pose itself (official).",
    )


class GMMSection(Section):
    """Distribution of the next pose."""

    ncenter: int = Field(1, ge=1, description="Gaussians.")
    sigma_min: float = Field(0.03, gt=0, description="Least standard deviation in the loss.")


class Audio2HeadposeConfig(ModelConfig):
    """Keys of Audio2Headpose."""

    apc: APCNetwork = Field(default_factory=APCNetwork, description="Speech encoder.")
    person: PersonSection = Field(default_factory=PersonSection, description="Preparation.")
    model_params: Audio2HeadposeNetwork = Field(
        default_factory=Audio2HeadposeNetwork, description="Network."
    )
    gmm: GMMSection = Field(default_factory=GMMSection, description="Distribution.")
    data: HeadposeData = Field(default_factory=HeadposeData, description="Training items.")
    weights: APCWeights = Field(default_factory=APCWeights, description="Components.")
    return_seconds: float = Field(
        8.0,
        ge=0,
        description="With model_params.residual: time constant with which a drawn head returns to "
        "its mean pose, without which it wanders off; 0: none.",
    )
    sigma_scale: float = Field(
        0.3, ge=0, description="Standard deviations of the drawn poses, as a factor; 0: the mean."
    )

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return {"apc": apc_component(cfg)}


class Feature2FaceConfig(ModelConfig):
    """Keys of Feature2Face."""

    fps: float = Field(25.0, gt=0, le=60, description="Rate of the videos that are written.")
    person: PersonSection = Field(default_factory=PersonSection, description="Preparation.")
    model_params: ImageGANNetwork = Field(default_factory=ImageGANNetwork, description="Networks.")
    data: ImageGANData = Field(default_factory=ImageGANData, description="Training items.")
    loss: ImageGANLoss = Field(default_factory=ImageGANLoss, description="Loss weights.")
    weights: ImageGANWeights = Field(default_factory=ImageGANWeights, description="Components.")
    infer: ImageGANInfer = Field(default_factory=ImageGANInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return image_gan_components(cfg)


class LLESection(Section):
    """Manifold projection of the speech features."""

    use: bool = Field(True, description="Project onto the person's own speech.")
    k: int = Field(10, ge=1, description="Neighbours.")
    percent: float = Field(1.0, ge=0, le=1, description="Share of the projection; the rest stays.")
    ridge: float = Field(1e-3, ge=0, description="Regularisation; 0 is the official plain solve.")


class MotionPost(Section):
    """Post-processing of the motion, in frames at 60 Hz; empirical values per person."""

    mouth_smooth: float = Field(2.0, ge=0, description="Smoothing of the mouth.")
    mouth_amp: list[str | float] = Field(
        ["XYZ", 1.5, 1.5, 1.5],
        description="Amplification: XY, XYZ, delta, LowerMore or CloseSmall, and its factors.",
    )
    rot_smooth: float = Field(5.0, ge=0, description="Smoothing of the head's rotation.")
    trans_smooth: float = Field(10.0, ge=0, description="Smoothing of its translation.")
    rot_amp: float = Field(1.0, ge=0, description="Factor on the rotation.")
    trans_amp: float = Field(1.0, ge=0, description="Factor on the translation.")
    shoulder_amp: float = Field(0.5, ge=0, description="Share of the head's way the shoulders go.")
    use_pred_jaw: bool = Field(
        False, description="Let the predicted chin move too; the official demo drops it."
    )
    causal: bool = Field(
        False,
        description="Smooth with the past only, as the live mode must; the videos are then equal.",
    )

    @model_validator(mode="after")
    def _known(self) -> MotionPost:
        method, *factors = self.mouth_amp
        if problem := check_amplifier(str(method), tuple(factors)):
            raise ValueError(f"mouth_amp: {problem}")
        return self


class LSPInfer(ImageGANInfer):
    """Generation."""

    lle: LLESection = Field(default_factory=LLESection, description="Manifold projection.")
    motion: MotionPost = Field(default_factory=MotionPost, description="Post-processing.")
    sigma_scale: float | None = Field(
        None, ge=0, description="Spread of the drawn poses; null: as Audio2Headpose says."
    )
    pad_headpose: bool = Field(
        True,
        description="Repeat the last sound, so that the video is as long as the sound; false: 15 "
        "motion frames shorter, as the official demo.",
    )
    person: str | None = Field(
        None, description="Folder or name of the person; null: whom the source shows."
    )


class PortraitWeights(APCWeights):
    """The trained parts."""

    audio2feature: str = Field("auto", description="Audio2Feature: auto, a path, or a run id.")
    audio2headpose: str = Field("auto", description="Audio2Headpose: auto, a path, or a run id.")
    feature2face: str = Field("auto", description="Feature2Face: auto, a path, or a run id.")


class LiveSpeechPortraitsConfig(ModelConfig):
    """Keys of live_speech_portraits, the whole chain."""

    fps: float = Field(25.0, gt=0, le=60, description="Rate of the videos that are written.")
    apc: APCNetwork = Field(default_factory=APCNetwork, description="Speech encoder.")
    person: PersonSection = Field(default_factory=PersonSection, description="Preparation.")
    model_params: ImageGANNetwork = Field(
        default_factory=ImageGANNetwork,
        description="Size of an official Feature2Face; trained ones know theirs.",
    )
    weights: PortraitWeights = Field(default_factory=PortraitWeights, description="Parts.")
    infer: LSPInfer = Field(default_factory=LSPInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        weights, size = cfg.weights, cfg.model_params

        def part(name: str, purpose: str, network: str, *arguments: Any) -> ComponentSpec:
            return ComponentSpec(
                getattr(weights, name.lower()),
                purpose,
                model=name,
                files=(f"live_speech_portraits/{name}.pkl", f"{name}.pkl"),
                network=f"talkingface.model.{network}",
                arguments=arguments,
                required=True,
                at_inference=True,
            )

        return {
            "audio2feature": part(
                "Audio2Feature", "the movement of the mouth", f"{_LSP}:Audio2FeatureNet"
            ),
            "audio2headpose": part(
                "Audio2Headpose",
                "the movement of the head",
                f"{_LSP}:Audio2HeadposeNet",
            ),
            "feature2face": part(
                "Feature2Face",
                "the pictures",
                "layers.feature2face_networks:Feature2FaceNet",
                *(size.size, size.levels, size.ngf),
            ),
            "apc": apc_component(cfg, same_as=("audio2feature", "audio2headpose")),
        }
