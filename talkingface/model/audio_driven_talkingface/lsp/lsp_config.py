"""Configuration keys of Live Speech Portraits. Imports no torch: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from talkingface.config.component_spec import ComponentSpec
from talkingface.config.schema import ModelConfig, PersonName, Section
from talkingface.data.dataprocess.lsp.motion import check_amplifier
from talkingface.model.apc_config import APCNetwork, APCWeights, apc_component
from talkingface.model.conditional_gan_config import ImageGANConfig, ImageGANInfer, ImageGANNetwork

_LSP = "audio_driven_talkingface.lsp.lsp_motion_networks"


class PersonSection(PersonName):
    """Preparation of a person; the official code has none."""

    focal_ratio: float = Field(
        1.2,
        ge=0.5,
        le=5,
        description="Focal length over the longer side of the frame. Any value will do for an "
        "unknown camera; depth gets noisy above 2.",
    )
    pose_smoothing: float = Field(
        0.04,
        ge=0,
        le=0.5,
        description="Standard deviation in s of the Gaussian that smooths the head pose (depth: "
        "twice). The points are lifted again, so they still project onto the detected pixels.",
    )
    jpeg_quality: int = Field(95, ge=50, le=100, description="JPEG quality of the stored frames.")
    max_seconds: float = Field(
        300.0, ge=1, description="Most seconds of motion and speech features kept for a person."
    )


class APCData(Section):
    """Training items."""

    seconds: float = Field(4.0, gt=0.2, description="Length of a random window.")
    steps_ahead: int = Field(3, ge=1, description="Mel rows (1/120 s each) from input to target.")
    windows_per_clip: int = Field(4, ge=1, description="Items per clip and epoch.")


class APCConfig(ModelConfig):
    """Keys of APC."""

    apc: APCNetwork = Field(default_factory=APCNetwork, description="Network.")
    data: APCData = Field(default_factory=APCData, description="Training items.")


class MotionData(Section):
    """Training items of Audio2Feature and Audio2Headpose, at 60 Hz."""

    seq_len: int = Field(240, ge=8, description="Motion frames per item, and least per clip.")
    stride: int = Field(4, ge=1, description="Frames between the starts of two items.")
    frame_future: int = Field(18, ge=0, description="Look-ahead: frames of sound after an output.")
    items_per_epoch: int | None = Field(None, ge=1, description="Random items; null: all items.")


class Audio2FeatureData(MotionData):
    """Training items of Audio2Feature."""

    noise: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of the noise on the speech features in training, as a "
        "fraction of theirs. Against overfitting to few minutes of speech; not official.",
    )


class Audio2FeatureNetwork(Section):
    """Size of the network; the defaults are official."""

    hidden: int = Field(256, ge=8, description="LSTM width; linear layers are twice as wide.")
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
    data: Audio2FeatureData = Field(
        default_factory=Audio2FeatureData, description="Training items."
    )
    loss: Audio2FeatureLoss = Field(default_factory=Audio2FeatureLoss, description="Objective.")
    weights: APCWeights = Field(default_factory=APCWeights, description="Components.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return {"apc": apc_component(cfg)}

    @model_validator(mode="after")
    def _exceeds_delay(self) -> Audio2FeatureConfig:
        if self.data.seq_len <= self.data.frame_future:
            raise ValueError(
                f"data.seq_len={self.data.seq_len} must exceed data.frame_future="
                f"{self.data.frame_future}, the delay of the outputs in frames"
            )
        return self


class HeadposeData(MotionData):
    """Training items of Audio2Headpose."""

    stride: int = Field(1, ge=1, description="Frames between the starts of two items.")
    frame_future: int = Field(15, ge=0, description="Look-ahead: frames of sound after a pose.")
    skip_start: int = Field(0, ge=0, description="Unused frames at the start (official: 300).")
    skip_end: int = Field(0, ge=0, description="Unused frames at the end (official: 460).")
    short_clips: Literal["pad", "error"] = Field(
        "pad",
        description="Frames without a full history: pad repeats the clip's first frame before it, "
        "error takes no items there and refuses clips that are too short.",
    )


class Audio2HeadposeNetwork(Section):
    """Size of the WaveNet; the defaults are official."""

    layers: int = Field(7, ge=1, le=12, description="Layers per block; dilations 1, 2, 4, ...")
    blocks: int = Field(2, ge=1, description="Blocks; receptive field: 1 + blocks*(2^layers - 1).")
    channels: int = Field(128, ge=4, description="Residual and dilation channels.")
    skip_channels: int = Field(256, ge=4, description="Skip channels.")
    condition: int = Field(512, ge=4, description="Channels of the sound.")
    residual: bool = Field(
        False,
        description="Predict the change of the pose, so training starts from a still head; false: "
        "predict the pose (official).",
    )


class GMMSection(Section):
    """Distribution of the next pose."""

    ncenter: int = Field(1, ge=1, description="Number of Gaussians.")
    sigma_min: float = Field(0.03, gt=0, description="Smallest standard deviation in the loss.")


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
        description="With model_params.residual: time constant in s with which a sampled head pose "
        "returns to the mean, since sampled changes drift; 0: no return.",
    )
    sigma_scale: float = Field(0.3, ge=0, description="Factor on the sampled deviations; 0: mean.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        return {"apc": apc_component(cfg)}


class Feature2FaceConfig(ImageGANConfig):
    """Keys of Feature2Face."""

    fps: float = Field(25.0, gt=0, le=60, description="Frame rate of the written videos.")
    person: PersonSection = Field(default_factory=PersonSection, description="Preparation.")


class LLESection(Section):
    """Manifold projection of the speech features."""

    use: bool = Field(True, description="Project onto the person's speech features.")
    k: int = Field(10, ge=1, description="Number of neighbours.")
    percent: float = Field(1.0, ge=0, le=1, description="Weight of the projection; 0: none.")
    ridge: float = Field(1e-3, ge=0, description="Regularisation; 0: none (official).")


class MotionPost(Section):
    """Post-processing of the motion; standard deviations of the smoothing in frames at 60 Hz."""

    mouth_smooth: float = Field(2.0, ge=0, description="Standard deviation for the mouth.")
    mouth_amp: list[str | float] = Field(
        ["XYZ", 1.5, 1.5, 1.5],
        description="Amplification method (XY, XYZ, delta, LowerMore, CloseSmall) and its factors.",
    )
    rot_smooth: float = Field(5.0, ge=0, description="Standard deviation for the head's rotation.")
    trans_smooth: float = Field(10.0, ge=0, description="Standard deviation for its translation.")
    rot_amp: float = Field(1.0, ge=0, description="Factor on the rotation.")
    trans_amp: float = Field(1.0, ge=0, description="Factor on the translation.")
    shoulder_amp: float = Field(0.5, ge=0, description="Shoulder translation per head translation.")
    use_pred_jaw: bool = Field(False, description="Use the predicted chin; official demo: false.")
    causal: bool = Field(
        False, description="Smooth over past frames only; required by the live mode."
    )

    @model_validator(mode="after")
    def _valid_amplifier(self) -> MotionPost:
        method, *factors = self.mouth_amp
        if problem := check_amplifier(str(method), tuple(factors)):
            raise ValueError(f"mouth_amp: {problem}")
        return self


class LSPInfer(ImageGANInfer):
    """Generation."""

    lle: LLESection = Field(default_factory=LLESection, description="Manifold projection.")
    motion: MotionPost = Field(default_factory=MotionPost, description="Post-processing.")
    sigma_scale: float | None = Field(None, ge=0, description="Null: that of Audio2Headpose.")
    pad_headpose: bool = Field(
        True,
        description="Repeat the last speech features, so that video and sound are equally long; "
        "false: the video is 15 motion frames shorter, as in the official demo.",
    )
    person: str | None = Field(None, description="Name or folder; null: person of the source.")


class PortraitWeights(APCWeights):
    """The trained parts of the chain."""

    audio2feature: str = Field("auto", description="Audio2Feature: auto, a path, or a run id.")
    audio2headpose: str = Field("auto", description="Audio2Headpose: auto, a path, or a run id.")
    feature2face: str = Field("auto", description="Feature2Face: auto, a path, or a run id.")


class LiveSpeechPortraitsConfig(ModelConfig):
    """Keys of live_speech_portraits, the whole chain."""

    fps: float = Field(25.0, gt=0, le=60, description="Frame rate of the written videos.")
    apc: APCNetwork = Field(default_factory=APCNetwork, description="Speech encoder.")
    person: PersonSection = Field(default_factory=PersonSection, description="Preparation.")
    model_params: ImageGANNetwork = Field(
        default_factory=ImageGANNetwork,
        description="Size of an official Feature2Face; a checkpoint of a run stores its size.",
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
                "Audio2Headpose", "the movement of the head", f"{_LSP}:Audio2HeadposeNet"
            ),
            "feature2face": part(
                "Feature2Face",
                "the pictures",
                "layers.feature2face_networks:Feature2FaceNet",
                *(size.size, size.levels, size.ngf),
            ),
            "apc": apc_component(cfg, same_as=("audio2feature", "audio2headpose")),
        }
